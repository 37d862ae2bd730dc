//! The record and chunk codec of allocation traces, shared by recorder and reader.
//!
//! One module per version of the format, side by side; a version that was released is never
//! edited again, and a golden file of each is read by the tests. [`v1`] holds the byte-level
//! specification of version 1.
//!
//! This crate allocates nothing and needs no operating system, so that the same code runs inside
//! another program's `malloc`.
//!
//! # Invariants
//! 1. No input makes a decoder panic, read outside its slice, or yield more records than the
//!    slice has bytes.
//! 2. What an encoder wrote, the decoder of the same version reads back equal.
#![no_std]
#![forbid(unsafe_code)]

pub mod crc32c;
pub mod v1;
pub mod varint;
