//! The preload library that records every malloc-family call of a live program.
