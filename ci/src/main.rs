//! `cargo ci …`: the project's own checks.
fn main() {}
