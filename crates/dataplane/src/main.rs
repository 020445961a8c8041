//! The binary dagwright-task.
fn main() {}
