//! The binary dagwright.

fn main() {}
