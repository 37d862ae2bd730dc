//! A thread-safe memory allocator.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod block;
pub mod placement;
