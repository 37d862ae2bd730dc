//! The throughput pass: nothing beside the calls.
#![forbid(unsafe_code)]

use std::ffi::c_void;

use super::latency::OpKind;
use super::{Observer, Shared};

/// Notes nothing.
#[derive(Debug)]
pub(crate) struct Throughput;

impl Observer for Throughput {
    const SIZES: bool = false;

    fn new(_: &Shared<'_>, _: usize) -> Self {
        Throughput
    }

    #[inline(always)]
    fn call(&mut self, _: OpKind, _: usize, call: impl FnOnce() -> *mut c_void) -> *mut c_void {
        call()
    }
}

/// Notes nothing, but has sizes kept, for streams whose releases state them, or whose accesses may
/// have to be cut to them.
#[derive(Debug)]
pub(crate) struct SizedThroughput;

impl Observer for SizedThroughput {
    const SIZES: bool = true;

    fn new(_: &Shared<'_>, _: usize) -> Self {
        SizedThroughput
    }

    #[inline(always)]
    fn call(&mut self, _: OpKind, _: usize, call: impl FnOnce() -> *mut c_void) -> *mut c_void {
        call()
    }
}
