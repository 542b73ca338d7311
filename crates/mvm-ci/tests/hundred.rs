//! A hundred machines at once, in a program of its own: no other test's machines are to run beside them.

mod support;

use mvm_lab::lab::StartBy;
use support::check;

#[test]
fn hundred() {
    check("hundred", StartBy::Snapshot);
}
