//! What a node counts, and how it is shown to Prometheus.
//!
//! ```text
//!   http ─────────▶ HttpMetrics    requests
//!   asking, worker ▶ StoreMetrics  proposals, batches, log writes, what went to the leader
//!   timekeeper ───▶ QueueMetrics   what became of jobs: counted where a command was written to the log, by the
//!                                  leader, so that a sum over the nodes counts each event once
//!   worker ───────▶ WorkerMetrics  slots
//!   GET /metrics ─▶ Scrape         queue depth, Raft, process: read when asked for
//! ```
//!
//! Labels are of closed sets: no ids, nothing that a client chose. `docs/metrics.md` lists all; a test compares.

mod http;
mod process;
mod queue;
mod scrape;
mod store;
mod worker;

use prometheus_client::{
    encoding::{prometheus_text, text},
    metrics::{family::Family, histogram::Histogram},
    registry::Registry,
};

pub(crate) use self::{
    http::HttpMetrics,
    queue::QueueMetrics,
    scrape::Scrape,
    store::{Entry, Forwarded, StoreMetrics},
    worker::WorkerMetrics,
};

/// Precedes every name but those of the process.
const PREFIX: &str = "mvm_ci";

/// One label whose value is a word of ours.
type Word = [(&'static str, &'static str); 1];

/// How metrics are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Format {
    /// Prometheus text, version 0.0.4.
    Prometheus,
    /// OpenMetrics text, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The content type of an answer.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All that a node counts. Every count begins at zero with the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// The HTTP interface.
    pub(crate) http: HttpMetrics,
    /// The way into the log.
    pub(crate) store: StoreMetrics,
    /// What became of jobs.
    pub(crate) queue: QueueMetrics,
    /// The node's own worker.
    pub(crate) worker: WorkerMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        Self {
            http: HttpMetrics::new(&mut registry),
            store: StoreMetrics::new(&mut registry),
            queue: QueueMetrics::new(&mut registry),
            worker: WorkerMetrics::new(&mut registry),
            registry,
        }
    }
}

impl Metrics {
    /// Writes all that was counted, and what was looked at for this answer.
    pub(crate) fn text(&self, format: Format, scrape: &Scrape) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        let registries = [&self.registry, &scrape.registry(), &process::registry()];
        match format {
            Format::Prometheus => {
                for registry in registries {
                    prometheus_text::encode(&mut text, registry)?;
                }
            }
            Format::OpenMetrics => {
                for registry in registries {
                    text::encode_registry(&mut text, registry)?;
                }
                text::encode_eof(&mut text)?;
            }
        }
        Ok(text)
    }
}

/// A histogram for each word, all present from the beginning.
fn histograms(
    label: &'static str,
    words: &[&'static str],
    new: fn() -> Histogram,
) -> Family<Word, Histogram> {
    let family = Family::new_with_constructor(new);
    for word in words {
        drop(family.get_or_create(&[(label, *word)]));
    }
    family
}

/// Durations of what somebody waits for, in seconds; 2 and 3 are promised limits.
fn waits() -> Histogram {
    Histogram::new([
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0,
    ])
}
