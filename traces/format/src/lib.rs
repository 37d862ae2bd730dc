//! The record and chunk codec of allocation traces, shared by recorder and reader.
#![no_std]
#![forbid(unsafe_code)]
