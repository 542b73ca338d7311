//! mvm-ci.
fn main() {}
