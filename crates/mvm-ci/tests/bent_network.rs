//! The cluster behind networks that delay, lose, flap and work one way only, and behind firewalls. One after the other: these scenarios
//! watch for elections, which a host that is busy with other machines may cause by itself.

mod support;

use std::sync::{Mutex, PoisonError};

use mvm_lab::lab::StartBy;

#[track_caller]
fn check(name: &str) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    support::check(name, StartBy::Snapshot);
}

#[test]
fn latency() {
    check("latency");
}

#[test]
fn lossy() {
    check("lossy");
}

#[test]
fn one_way() {
    check("one-way");
}

#[test]
fn firewall() {
    check("firewall");
}

#[test]
fn flap() {
    check("flap");
}
