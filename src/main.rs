//! flowtap.
fn main() {}
