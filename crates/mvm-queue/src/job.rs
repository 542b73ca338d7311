//! What a job is: what is asked for ([`JobSpec`]), and how it stands ([`Job`]). How it changes is in
//! [`crate::transition`] and [`crate::core`]; which specs are accepted is in [`crate::limits`].

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    backoff::Backoff,
    id::{FencingToken, JobId, UnixMillis},
};

/// The kind of a job that was given nothing but a URL: a worker fetches it.
pub const FETCH_KIND: &str = "fetch";

/// The kind of a job that executes a workflow: it has a journal and an inbox besides.
pub const FLOW_KIND: &str = "flow";

/// Where a job stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Not taken by a worker; [`WaitsFor`] says why.
    Pending,
    /// A worker took it and has not begun.
    Claimed,
    /// A worker runs it.
    InProgress,
    /// Done.
    Completed,
    /// Its last attempt failed and no further one was allowed: it may not be retried at all.
    Failed,
    /// Given up on purpose, or because a job it depends on did not complete.
    Cancelled,
    /// Retried until a limit was reached, of failures or of lost workers.
    Dead,
}

impl JobState {
    /// Every state, in the order of a job's life.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Claimed,
        Self::InProgress,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Dead,
    ];

    /// The word used on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Claimed => "claimed",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Dead => "dead",
        }
    }

    /// The state of that name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether a worker has a lease on the job.
    pub const fn is_held(self) -> bool {
        matches!(self, Self::Claimed | Self::InProgress)
    }

    /// Whether the job has ended.
    pub const fn is_finished(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Failed | Self::Cancelled | Self::Dead
        )
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What a pending job waits for. Only those that wait for a worker are in the ready queue.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitsFor {
    /// Other jobs have not ended.
    Dependencies,
    /// Its time has not come, by the leader's wall clock.
    RunAfter,
    /// A workflow's inbox has no message that it has not seen; perhaps a time as well, whichever comes first.
    Message,
    /// Somebody has to resume it.
    Paused,
    /// It failed and the pause before the next attempt is not over.
    Backoff,
    /// As many jobs of its concurrency key run as may, or are before it.
    Concurrency,
    /// Nothing but a free worker that has its labels.
    Worker,
}

impl WaitsFor {
    /// The word used on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dependencies => "dependencies",
            Self::RunAfter => "run_after",
            Self::Message => "message",
            Self::Paused => "paused",
            Self::Backoff => "backoff",
            Self::Concurrency => "concurrency",
            Self::Worker => "worker",
        }
    }
}

/// A key of which only so many jobs are held by workers at a time.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Concurrency {
    /// Names the key.
    pub key: String,
    /// How many of its jobs may be held at once. The latest submitted job of a key sets it for all of them.
    pub limit: u32,
}

/// What becomes of a job when one that it depends on ends otherwise than completed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DependencyFailure {
    /// It is cancelled, and so on along the chain.
    #[default]
    Cancel,
    /// It runs anyway: it waits for the end, not for success.
    Run,
}

impl DependencyFailure {
    /// The word used on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Run => "run",
        }
    }
}

/// What a client asks for. [`JobSpec::validate`] says whether it can be had.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// What sort of worker it needs.
    pub kind: String,
    /// What that worker is told; opaque to the queue.
    pub payload: Value,
    /// Labels which a worker must offer, all of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub labels: BTreeSet<String>,
    /// Higher goes first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// Not before this time, by the leader's wall clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_after_ms: Option<UnixMillis>,
    /// So many failed or timed out attempts end the job.
    #[serde(default = "attempts_max", skip_serializing_if = "is_attempts_max")]
    pub attempts_max: u32,
    /// So many lost attempts end the job: one that kills its workers must end, one crash must not end it.
    #[serde(default = "losses_max", skip_serializing_if = "is_losses_max")]
    pub losses_max: u32,
    /// The pause after a failed or timed out attempt. After a lost one there is none.
    #[serde(default, skip_serializing_if = "Backoff::is_default")]
    pub backoff: Backoff,
    /// How long one attempt may be in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Its concurrency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// Jobs that must end before. They exist already, so there is no cycle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<JobId>,
    /// What if one of them does not complete.
    #[serde(default, skip_serializing_if = "is_cancel")]
    pub on_dependency_failure: DependencyFailure,
    /// The client's name for this job: the same key with the same spec is the same job for as long as the job
    /// exists, whichever node is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

const fn attempts_max() -> u32 {
    1
}
const fn losses_max() -> u32 {
    3
}
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_attempts_max(number: &u32) -> bool {
    *number == attempts_max()
}
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_losses_max(number: &u32) -> bool {
    *number == losses_max()
}
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_zero(number: &i32) -> bool {
    *number == 0
}
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_cancel(policy: &DependencyFailure) -> bool {
    matches!(policy, DependencyFailure::Cancel)
}

impl JobSpec {
    /// A job with nothing special: one attempt, no labels, at once.
    pub fn new(kind: impl Into<String>, payload: Value) -> Self {
        Self {
            kind: kind.into(),
            payload,
            labels: BTreeSet::new(),
            priority: 0,
            run_after_ms: None,
            attempts_max: attempts_max(),
            losses_max: losses_max(),
            backoff: Backoff::default(),
            timeout_ms: None,
            concurrency: None,
            dependencies: Vec::new(),
            on_dependency_failure: DependencyFailure::Cancel,
            idempotency_key: None,
        }
    }

    /// By which another spec under the same idempotency key is noticed.
    ///
    /// A plain job has the digest that the first version of the store recorded for it.
    pub fn digest(&self) -> String {
        let mut asked = serde_json::json!(["submit", self.kind, self.payload]);
        let mut bare = self.clone();
        bare.idempotency_key = None;
        bare.payload = Value::Null;
        if bare != Self::new(&*self.kind, Value::Null)
            && let (Value::Array(parts), Ok(rest)) = (&mut asked, serde_json::to_value(&bare))
        {
            parts.push(rest);
        }
        blake3::hash(asked.to_string().as_bytes())
            .to_hex()
            .to_string()
    }

    /// What a job waits for once its dependencies have ended and its time has come.
    ///
    /// [`WaitsFor::Concurrency`] becomes [`WaitsFor::Worker`] in the same step if its key has room.
    pub(crate) const fn eligible(&self) -> WaitsFor {
        match self.concurrency {
            Some(_) => WaitsFor::Concurrency,
            None => WaitsFor::Worker,
        }
    }

    /// What a job waits for once its dependencies have ended.
    pub(crate) const fn after_dependencies(&self) -> WaitsFor {
        match self.run_after_ms {
            Some(_) => WaitsFor::RunAfter,
            None => self.eligible(),
        }
    }
}

/// One piece of work, as it stands.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// What was asked for.
    pub spec: JobSpec,
    /// Where it stands.
    pub state: JobState,
    /// What it waits for, while it is pending.
    pub waits_for: Option<WaitsFor>,
    /// The time that it waits for, or waited for last: the spec's, until its worker parks it until another.
    pub run_after_ms: Option<UnixMillis>,
    /// When it was submitted, by the clock of the node that took it.
    pub created_at_ms: UnixMillis,
    /// When it last changed, by the clock of the node that proposed that change.
    pub updated_at_ms: UnixMillis,
    /// When it ended.
    pub finished_at_ms: Option<UnixMillis>,
    /// The node that took it.
    pub submitted_on: u64,
    /// The schedule that submitted it.
    pub schedule: Option<String>,
    /// The worker that claimed it last.
    pub claimed_by: Option<String>,
    /// That worker's node.
    pub claimed_on: Option<u64>,
    /// The token of the latest claim; 0 before the first. It counts all attempts.
    pub token: FencingToken,
    /// Attempts that failed or timed out, since the last retry by hand.
    pub failures: u32,
    /// Attempts whose worker was lost, since the last retry by hand.
    pub losses: u32,
    /// How often the lease of the latest claim has been renewed.
    pub renewals: u64,
    /// Somebody asked the worker to stop.
    pub cancel_requested: bool,
    /// Somebody paused it, and why; empty without a reason. No worker gets it until it is resumed.
    pub paused: Option<String>,
    /// Dependencies that have not been settled.
    pub dependencies_open: u32,
    /// Why the latest attempt, or the job, did not succeed.
    pub error: Option<String>,
    /// What the worker reported on success.
    pub result: Option<Value>,
}

impl Job {
    /// The time that it waits for now, if it does.
    pub fn wakes_at_ms(&self) -> Option<UnixMillis> {
        let of_time = matches!(self.waits_for, Some(WaitsFor::RunAfter | WaitsFor::Message));
        self.run_after_ms.filter(|_| of_time)
    }
}

/// How one attempt ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// The work is done.
    Succeeded,
    /// The work said no.
    Failed,
    /// It was in progress longer than it may.
    TimedOut,
    /// Its worker's lease ended, or the worker gave it back. Nobody knows how far it got.
    Lost,
    /// It was stopped on request.
    Cancelled,
}

impl AttemptOutcome {
    /// The word used on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Lost => "lost",
            Self::Cancelled => "cancelled",
        }
    }
}

/// One attempt at a job.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Attempt {
    /// Its number and token.
    pub token: FencingToken,
    /// Who made it.
    pub worker: String,
    /// On which node.
    pub node: u64,
    /// When it was claimed.
    pub claimed_at_ms: UnixMillis,
    /// When it was begun.
    pub started_at_ms: Option<UnixMillis>,
    /// When it ended.
    pub ended_at_ms: Option<UnixMillis>,
    /// How it ended.
    pub outcome: Option<AttemptOutcome>,
    /// Why it did not succeed.
    pub error: Option<String>,
    /// The number that its next log chunk must have.
    pub log_next: u32,
    /// Bytes of its log in the store.
    pub log_bytes: u64,
    /// Bytes of its log which the store did not keep, because they were beyond the limit.
    pub log_dropped_bytes: u64,
}
