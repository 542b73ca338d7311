//! The scenarios that come with mvm-ci: its own cluster in real machines.
//!
//! They are written on the `mvm-lab` API as any user's are; only here do lab and node meet.

mod simple_network;

use mvm_lab::scenario::Scenario;

/// Returns every scenario.
pub fn all() -> Vec<Scenario> {
    vec![simple_network::scenario()]
}
