//! Nodes in processes of their own, on loopback, as the network and the disk see them.
//!
//! One program for all of it: each that links the store takes as long to link as its tests to run.

// Helpers of tests may unwrap and print as tests do.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod backups;
mod cluster;
mod counting;
#[path = "../support/exposition.rs"]
mod exposition;
mod largest;
mod pair;
#[path = "../support/ports.rs"]
mod ports;
mod replaced;
mod rolling;
mod secured;
#[path = "../support/mod.rs"]
mod support;
mod three_nodes;
#[path = "../support/tls.rs"]
mod tls;
mod workflows;

/// What children run; nothing in this process.
#[test]
fn node_process() {
    cluster::run_node_if_child();
}

/// Tells what a test does next.
fn step(what: &str) {
    eprintln!("{what}");
}
