//! The scenarios that come with mvm-ci: its own cluster in real machines.
//!
//! They are written on the `mvm-lab` API as any user's are; only here do lab and node meet.

mod api;
mod clock;
mod cluster;
mod cluster_nodes;
mod concurrent;
mod elections;
mod firewall;
mod flap;
mod hundred;
mod independent_engines;
mod judged;
mod latency;
mod ledger;
mod lossy;
mod minority;
mod one_way;
mod pair;
mod simple_network;
mod steal;
mod under_load;
mod workflow_failover;
mod workflows;
mod writes;

use std::path::Path;

use mvm_lab::{scenario::Scenario, topology::Topology};

/// Brings this very program to the machines of a topology that asks for `mvm-ci`.
pub fn bring_program(topology: &mut Topology, program: &Path) {
    topology.bring("mvm-ci", program, cluster_nodes::PROGRAM);
}

/// Returns every scenario. `program` is the mvm-ci that runs in the machines.
pub fn all(program: &Path) -> Vec<Scenario> {
    vec![
        simple_network::scenario(),
        hundred::scenario(),
        cluster::scenario(program),
        pair::scenario(program),
        under_load::scenario(program),
        latency::scenario(program),
        lossy::scenario(program),
        one_way::scenario(program),
        flap::scenario(program),
        firewall::scenario(program),
        steal::scenario(program),
        minority::scenario(program),
        elections::scenario(program),
        concurrent::scenario(program),
        workflow_failover::scenario(program),
        independent_engines::scenario(program),
    ]
}
