//! What an engine counts, for Prometheus. Every count begins at zero with the process.

use std::time::Duration;

use prometheus_client::{
    encoding::prometheus_text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Precedes every name.
const PREFIX: &str = "mvm_ci_flow";

/// One label whose value is a word of ours.
type Word = [(&'static str, &'static str); 1];

/// All that an engine counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    started: Counter,
    runs: Counter,
    running: Gauge,
    ended: Family<Word, Counter>,
    commands: Family<Word, Counter>,
    requests: Histogram,
}

/// The content type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// How a run ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "they say what they are")]
pub enum Ended {
    Completed,
    Failed,
    Cancelled,
    Parked,
    Lost,
    Broken,
}

impl Ended {
    const ALL: [Self; 6] = [
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Parked,
        Self::Lost,
        Self::Broken,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Parked => "parked",
            Self::Lost => "lost",
            Self::Broken => "broken",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let metrics = Self {
            started: Counter::default(),
            runs: Counter::default(),
            running: Gauge::default(),
            ended: Family::default(),
            commands: Family::default(),
            // From a neighbour's answer to the longest that the vendor's library waits for.
            requests: Histogram::new([0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 30.0, 120.0]),
            registry: Registry::default(),
        };
        for ended in Ended::ALL {
            drop(metrics.ended.get_or_create(&[("how", ended.as_str())]));
        }
        for source in ["guest", "journal"] {
            drop(metrics.commands.get_or_create(&[("answered_by", source)]));
        }
        registry.register(
            "started",
            "Workflows started through this engine",
            metrics.started.clone(),
        );
        registry.register(
            "runs",
            "Runs begun: a workflow runs again after each wait",
            metrics.runs.clone(),
        );
        registry.register("running", "Runs under way", metrics.running.clone());
        registry.register(
            "runs_ended",
            "Runs that ended, by how",
            metrics.ended.clone(),
        );
        registry.register(
            "commands",
            "Commands of guests, by what answered them: an effect for the guest, or the journal",
            metrics.commands.clone(),
        );
        registry.register(
            "http_request_seconds",
            "How long requests of guests took",
            metrics.requests.clone(),
        );
        Self {
            registry,
            ..metrics
        }
    }
}

impl Metrics {
    /// Writes all that was counted, as Prometheus text.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    pub(crate) fn started(&self) {
        self.started.inc();
    }

    pub(crate) fn run_begins(&self) {
        self.runs.inc();
        self.running.inc();
    }

    pub(crate) fn run_ended(&self, ended: Ended) {
        self.running.dec();
        self.ended.get_or_create(&[("how", ended.as_str())]).inc();
    }

    pub(crate) fn command(&self, replayed: bool) {
        let source = if replayed { "journal" } else { "guest" };
        self.commands
            .get_or_create(&[("answered_by", source)])
            .inc();
    }

    pub(crate) fn request(&self, took: Duration) {
        self.requests.observe(took.as_secs_f64());
    }
}
