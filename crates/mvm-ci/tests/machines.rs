//! The scenarios, in real virtual machines. Each takes the host's boot tokens while its guests boot.

mod support;

use mvm_lab::lab::StartBy;
use support::check;

#[test]
fn simple_network() {
    check("simple-network", StartBy::Snapshot);
}

/// Without snapshots everything must be as before.
#[test]
fn simple_network_cold() {
    check("simple-network", StartBy::ColdBoot);
}

#[test]
fn cluster() {
    check("cluster", StartBy::Snapshot);
}

#[test]
fn pair() {
    check("pair", StartBy::Snapshot);
}

#[test]
fn under_load() {
    check("under-load", StartBy::Snapshot);
}

#[test]
fn steal() {
    check("steal", StartBy::Snapshot);
}

#[test]
fn minority() {
    check("minority", StartBy::Snapshot);
}

#[test]
fn elections() {
    check("elections", StartBy::Snapshot);
}

#[test]
fn concurrent() {
    check("concurrent", StartBy::Snapshot);
}

#[test]
fn workflow_failover() {
    check("workflow-failover", StartBy::Snapshot);
}

#[test]
fn independent_engines() {
    check("independent-engines", StartBy::Snapshot);
}
