//! What is counted on the way into the log.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use super::{Word, histograms, waits};
use crate::{consensus::Proposal, http::internal};

/// The way into the log.
#[derive(Debug)]
pub(crate) struct StoreMetrics {
    proposals: Family<Word, Histogram>,
    batches: Histogram,
    writes: Family<Word, Histogram>,
    forwarded: Family<[(&'static str, &'static str); 2], Counter>,
    syncs: Histogram,
}

/// What is written to the log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entry {
    /// A batch of commands.
    Commands,
    /// The mark of a linearizable read.
    Barrier,
}

impl Entry {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::Barrier => "barrier",
        }
    }
}

/// What became of a request to another node.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Forwarded {
    /// It was answered.
    Answered,
    /// It did not get there.
    NotSent,
    /// It was sent, and no answer came.
    Lost,
}

impl Forwarded {
    const ALL: [Self; 3] = [Self::Answered, Self::NotSent, Self::Lost];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::NotSent => "not_sent",
            Self::Lost => "lost",
        }
    }
}

const RESULTS: [&str; 5] = ["committed", "rejected", "unavailable", "unknown", "broken"];

const fn result(proposal: &Proposal) -> &'static str {
    match proposal {
        Proposal::Committed { .. } => "committed",
        Proposal::Rejected { .. } => "rejected",
        Proposal::Unavailable { .. } => "unavailable",
        Proposal::Unknown => "unknown",
        Proposal::Broken { .. } => "broken",
    }
}

/// The routes between nodes, as words.
const ROUTES: [(&str, &str); 3] = [
    (internal::PROPOSE, "propose"),
    (internal::READ, "read"),
    (internal::LEAD, "lead"),
];

impl StoreMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            proposals: histograms("result", &RESULTS, waits),
            batches: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]),
            writes: histograms(
                "entry",
                &[Entry::Commands, Entry::Barrier].map(Entry::as_str),
                writes,
            ),
            forwarded: Family::default(),
            syncs: syncs(),
        };
        for (_, route) in ROUTES {
            for result in Forwarded::ALL {
                let labels = [("route", route), ("result", result.as_str())];
                drop(metrics.forwarded.get_or_create(&labels));
            }
        }
        registry.register(
            "proposal_duration_seconds",
            "Time to decide what became of a change, counted by the node that was asked for it; unavailable was never applied, unknown may be",
            metrics.proposals.clone(),
        );
        registry.register(
            "raft_batch_commands",
            "Commands that shared one entry of the log, counted by the leader",
            metrics.batches.clone(),
        );
        registry.register(
            "raft_write_duration_seconds",
            "Time from handing an entry to the log until it is applied on the leader: its own disk sync, a majority's, and the database",
            metrics.writes.clone(),
        );
        registry.register(
            "forwarded_requests",
            "Requests from this node to the leader",
            metrics.forwarded.clone(),
        );
        registry.register(
            "data_dir_sync_duration_seconds",
            "Time to write a block of 4 KiB in the data directory and to sync it (fdatasync), tried every ten seconds",
            metrics.syncs.clone(),
        );
        metrics
    }

    /// Waits for what becomes of a proposal, and counts it.
    pub(crate) async fn proposal(&self, proposing: impl Future<Output = Proposal>) -> Proposal {
        let start = Instant::now();
        let proposal = proposing.await;
        self.proposals
            .get_or_create_owned(&[("result", result(&proposal))])
            .observe(start.elapsed().as_secs_f64());
        proposal
    }

    /// Counts a batch that goes to the log.
    #[expect(clippy::cast_precision_loss, reason = "batches are small")]
    pub(crate) fn batch(&self, commands: usize) {
        self.batches.observe(commands as f64);
    }

    /// Counts an entry that the log took and applied.
    pub(crate) fn written(&self, entry: Entry, duration: Duration) {
        self.writes
            .get_or_create_owned(&[("entry", entry.as_str())])
            .observe(duration.as_secs_f64());
    }

    /// Counts a sync of the disk.
    pub(crate) fn synced(&self, duration: Duration) {
        self.syncs.observe(duration.as_secs_f64());
    }

    /// Counts a request to another node.
    pub(crate) fn forwarded(&self, path: &str, result: Forwarded) {
        let known = ROUTES.iter().find(|(route, _)| *route == path);
        let route = known.map_or("other", |(_, word)| *word);
        self.forwarded
            .get_or_create_owned(&[("route", route), ("result", result.as_str())])
            .inc();
    }
}

fn syncs() -> Histogram {
    Histogram::new([
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    ])
}

/// Disks sync in a tenth of a millisecond to some tens of them.
fn writes() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    ])
}
