//! One instance of a fleet.
fn main() {}
