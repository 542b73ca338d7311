//! What is looked at when somebody asks: the queue's depth and the Raft group.

use mvm_queue::JobState;
use prometheus_client::{
    metrics::{
        family::Family,
        gauge::{ConstGauge, Gauge},
        info::Info,
    },
    registry::Registry,
};

use super::{PREFIX, Word};
use crate::store::Glance;

/// What was seen for one answer. What could not be seen has no sample.
#[derive(Debug)]
pub(crate) struct Scrape {
    /// The state of this node.
    pub(crate) glance: Glance,
    /// The number of jobs in each state, in this node's replica.
    pub(crate) depth: Option<Vec<(JobState, u64)>>,
}

impl Scrape {
    /// Registers it all under the names it is shown by.
    pub(super) fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register(
            "build",
            "The version of this node's program",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        self.depth(&mut registry);
        self.raft(&mut registry);
        registry
    }

    fn depth(&self, registry: &mut Registry) {
        let jobs = Family::<Word, Gauge>::default();
        for (state, count) in self.depth.iter().flatten() {
            jobs.get_or_create_owned(&[("state", state.as_str())])
                .set(signed(*count));
        }
        registry.register(
            "queue_jobs",
            "Jobs in each state, as this node's replica has them; the same on every node that keeps up; no sample before joining",
            jobs,
        );
    }

    fn raft(&self, registry: &mut Registry) {
        let Glance { raft, .. } = &self.glance;
        let mut show = |name: &str, help: &str, value: u64| {
            registry.register(name, help, ConstGauge::new(value));
        };
        show(
            "raft_joined",
            "1 once this node has joined its cluster",
            raft.is_some().into(),
        );
        let Some(raft) = raft else { return };
        show("raft_term", "The current term", raft.term);
        show(
            "raft_leader",
            "The leader's node number, 0 if this node knows none",
            raft.leader.unwrap_or(0),
        );
        show(
            "raft_is_leader",
            "1 on a leader that has lately heard from a majority",
            raft.leads.into(),
        );
        show(
            "raft_last_log_index",
            "The last entry of this node's log",
            raft.last_log_index,
        );
        show(
            "raft_applied_index",
            "The last entry that this node's replica reflects",
            raft.applied_index,
        );
        show("raft_voters", "Voters by this node's log", raft.voters);
        if let Some(age) = raft.quorum_age {
            registry.register(
                "raft_quorum_age_seconds",
                "On a leader, time since it last heard from a majority",
                ConstGauge::new(age.as_secs_f64()),
            );
        }
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
