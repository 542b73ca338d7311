//! What is counted of jobs.
//!
//! An event is counted by the node that wrote its command to the log and read the outcome there: once in the
//! cluster. Two exceptions, both rare: a command whose outcome the leader never learnt is not counted, and one that was repeated
//! because its answer was lost is counted again. These are rates for people, not a ledger.

use std::time::Duration;

use mvm_queue::{
    AttemptOutcome, Change, Claim, Command, Effect, Expiry, JobId, JobState, UnixMillis,
};
use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use super::{Word, histograms};
use crate::id;

/// What became of jobs.
#[derive(Debug)]
pub(crate) struct QueueMetrics {
    submitted: Counter,
    claims: Counter,
    steals: Counter,
    attempts: Family<Word, Counter>,
    expiries: Family<Word, Counter>,
    claim_latency: Histogram,
    completion_latency: Family<Word, Histogram>,
}

const OUTCOMES: [AttemptOutcome; 5] = [
    AttemptOutcome::Succeeded,
    AttemptOutcome::Failed,
    AttemptOutcome::TimedOut,
    AttemptOutcome::Lost,
    AttemptOutcome::Cancelled,
];

const CAUSES: [&str; 3] = ["lease", "timeout", "cancel"];

const fn cause(expiry: Expiry) -> &'static str {
    match expiry {
        Expiry::Lease { .. } => "lease",
        Expiry::Timeout => "timeout",
        Expiry::Cancel => "cancel",
    }
}

impl QueueMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let finished = JobState::ALL
            .into_iter()
            .filter(|state| state.is_finished());
        let finished: Vec<_> = finished.map(JobState::as_str).collect();
        let metrics = Self {
            submitted: Counter::default(),
            claims: Counter::default(),
            steals: Counter::default(),
            attempts: Family::default(),
            expiries: Family::default(),
            claim_latency: Histogram::new([
                0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0,
                7_200.0,
            ]),
            completion_latency: histograms("state", &finished, lives),
        };
        for outcome in OUTCOMES {
            drop(
                metrics
                    .attempts
                    .get_or_create(&[("outcome", outcome.as_str())]),
            );
        }
        for cause in CAUSES {
            drop(metrics.expiries.get_or_create(&[("cause", cause)]));
        }
        metrics.register(registry);
        metrics
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "jobs_submitted",
            "New jobs, counted by the leader that wrote them",
            self.submitted.clone(),
        );
        registry.register(
            "job_claims",
            "Jobs given to workers, counted by the leader that gave them",
            self.claims.clone(),
        );
        registry.register(
            "job_steals",
            "Jobs given to a worker of another node than the one that took them, counted by the leader that gave them",
            self.steals.clone(),
        );
        registry.register(
            "job_attempts",
            "Attempts that ended, by how, counted by the leader that ended them",
            self.attempts.clone(),
        );
        registry.register(
            "lease_expiries",
            "Attempts that the leader ended because their worker was silent (lease), or did not end them in time (timeout, cancel)",
            self.expiries.clone(),
        );
        registry.register(
            "job_claim_latency_seconds",
            "Time from a job's submission, or its run-after time if later, to its first claim, by the clocks of the nodes; jobs with dependencies or a concurrency key are left out; counted by the leader",
            self.claim_latency.clone(),
        );
        registry.register(
            "job_completion_latency_seconds",
            "Time from a job's submission to its end, all waiting included, by the state it ended in and the clocks of the nodes; jobs cancelled because of a dependency are left out; counted by the leader",
            self.completion_latency.clone(),
        );
    }

    /// Counts what a command did that this node wrote to the log.
    pub(crate) fn applied(&self, command: &Command, effect: &Effect) {
        match (&command.change, effect) {
            (_, Effect::Submitted { existing, .. }) => {
                self.submitted.inc_by(u64::from(!*existing));
            }
            (Change::Claim { node, .. }, Effect::Claimed { claims }) => {
                for claim in claims {
                    self.claimed(command.at, *node, claim);
                }
            }
            (Change::Finish { job, report, .. }, Effect::Ended { state, .. }) => {
                self.attempt(report.outcome());
                self.ended(command.at, job, *state);
            }
            (Change::Expire { job, cause: of, .. }, Effect::Ended { state, .. }) => {
                let expiries = &self.expiries;
                expiries.get_or_create_owned(&[("cause", cause(*of))]).inc();
                self.attempt(of.outcome());
                self.ended(command.at, job, *state);
            }
            (Change::Cancel { job, .. }, Effect::Cancelled { state, .. })
            | (Change::Park { job, .. }, Effect::Parked { state, .. }) => {
                self.ended(command.at, job, *state);
            }
            _ => {}
        }
    }

    fn claimed(&self, at: UnixMillis, node: u64, claim: &Claim) {
        self.claims.inc();
        if claim.submitted_on != node {
            self.steals.inc();
        }
        let spec = &claim.spec;
        let waited_for_others = !spec.dependencies.is_empty() || spec.concurrency.is_some();
        if claim.token.0 != 1 || waited_for_others {
            return;
        }
        if let Some(submitted) = id::made_at(&claim.job) {
            let since = spec
                .run_after_ms
                .map_or(submitted, |time| time.max(submitted));
            self.claim_latency.observe(between(since, at).as_secs_f64());
        }
    }

    fn attempt(&self, outcome: AttemptOutcome) {
        self.attempts
            .get_or_create_owned(&[("outcome", outcome.as_str())])
            .inc();
    }

    fn ended(&self, at: UnixMillis, job: &JobId, state: JobState) {
        if let Some(submitted) = id::made_at(job).filter(|_| state.is_finished()) {
            self.completion_latency
                .get_or_create_owned(&[("state", state.as_str())])
                .observe(between(submitted, at).as_secs_f64());
        }
    }
}

/// Clocks of two nodes differ, and none goes back in a histogram.
fn between(from: UnixMillis, to: UnixMillis) -> Duration {
    Duration::from_millis(u64::try_from(to.0.saturating_sub(from.0)).unwrap_or(0))
}

/// From what is done at once to what takes a day.
fn lives() -> Histogram {
    Histogram::new([
        0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0,
    ])
}
