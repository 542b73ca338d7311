//! The program's commands, against nodes in this test's memory and in processes of their own.
//!
//! One program for all of it: each that links both halves takes as long to link as its tests to run. Those that boot machines
//! are apart.

// Helpers of tests may unwrap and print as tests do.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod bad_input;
mod cluster;
mod failures;
mod follow;
mod help;
mod invariants;
mod life;
mod loopback;
mod node;
#[path = "../../../mvm-node/tests/support/ports.rs"]
mod ports;
mod schedule;
mod served;
mod submit;
mod worker;
