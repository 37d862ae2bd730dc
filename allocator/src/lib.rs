//! A thread-safe memory allocator.
#![no_std]
