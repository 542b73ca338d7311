//! What nodes answer, as far as it is needed. Fields that are not known here are passed over: a newer node may have more.

use std::collections::{BTreeMap, BTreeSet};

use mvm_queue::{
    Cursor, FencingToken, JobId, JobSpec, JobState, Missed, Stream, UnixMillis, WaitsFor,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Consistency {
    /// It reflects everything acknowledged before the question.
    #[default]
    Linearizable,
    /// It is what the asked node has, also when that is cut off.
    Local,
}

impl Consistency {
    pub(crate) fn query(self) -> Option<(&'static str, String)> {
        match self {
            Self::Linearizable => None,
            Self::Local => Some(("consistency", "local".to_owned())),
        }
    }
}

/// A job, as it stands.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct JobView {
    /// Its name.
    pub id: JobId,
    /// What was asked for.
    #[serde(flatten)]
    pub spec: JobSpec,
    /// Where it stands.
    pub state: JobState,
    /// What it waits for, while it is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitsFor>,
    /// When that ends, if it waits for a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wakes_at_ms: Option<UnixMillis>,
    /// When it was submitted.
    pub created_at_ms: UnixMillis,
    /// When it last changed.
    pub updated_at_ms: UnixMillis,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at_ms: Option<UnixMillis>,
    /// The node that took it.
    pub submitted_on: u64,
    /// The schedule that submitted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The worker that claimed it last.
    pub claimed_by: Option<String>,
    /// That worker's node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed_on: Option<u64>,
    /// Claims so far; the latest one's token.
    pub attempts: FencingToken,
    /// Attempts that failed or timed out.
    #[serde(default)]
    pub failures: u32,
    /// Attempts whose worker was lost.
    #[serde(default)]
    pub losses: u32,
    /// Somebody asked the worker to stop.
    #[serde(default)]
    pub cancel_requested: bool,
    /// Somebody paused it, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// Why the latest attempt, or the job, did not succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the worker reported on success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
}

/// A part of the list of jobs.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct JobsPage {
    /// May be few, even none, while there is a next page.
    pub jobs: Vec<JobView>,
    /// Where to continue; nothing at the end.
    pub next: Option<Cursor>,
}

/// The answer to a submission.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Submitted {
    /// The job.
    pub id: JobId,
    /// Where it stands.
    pub state: JobState,
    /// What it waits for, while it is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitsFor>,
    /// There was a job of that idempotency key, or this is the answer to a repetition.
    #[serde(default)]
    pub existing: bool,
}

/// Where a change leaves a job.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Changed {
    /// The job.
    pub id: JobId,
    /// Where it stands now.
    pub state: JobState,
}

/// A job given to a worker.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Claimed {
    /// The job.
    pub id: JobId,
    /// Proves the claim.
    pub token: FencingToken,
    /// The node that took the job.
    pub submitted_on: u64,
    /// What is to be done.
    #[serde(flatten)]
    pub spec: JobSpec,
}

/// The answer to a renewal.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
pub struct Renewed {
    /// How often the lease has been renewed.
    pub renewals: u64,
    /// The job is to be stopped.
    pub cancel: bool,
    /// The job, a workflow, is to be parked.
    #[serde(default)]
    pub pause: bool,
}

/// How many jobs there are.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Stats {
    /// In each state.
    pub counts: BTreeMap<JobState, u64>,
    /// In all.
    pub total: u64,
}

/// A piece of a job's output.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Chunk {
    /// Its place in the attempt's log, from 0, without gaps.
    pub number: u32,
    /// Where it came from.
    pub stream: Stream,
    /// When the node that took it read its clock.
    pub at_ms: UnixMillis,
    /// The output.
    pub text: String,
}

/// What one node knows of its cluster.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ClusterView {
    /// The node that tells this.
    pub node: u64,
    /// Whom it takes for the leader.
    pub leader: Option<u64>,
    /// Its Raft term.
    pub term: u64,
    /// The end of its log.
    pub last_log_index: u64,
    /// How much of that it has applied.
    pub applied_index: u64,
    /// It would serve a linearizable request now.
    pub quorum: bool,
    /// Why not.
    pub reason: Option<String>,
    /// All nodes.
    pub members: Vec<Member>,
}

/// One node of a cluster.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Member {
    /// Its number.
    pub id: u64,
    /// Host and port of its HTTP interface.
    pub http: String,
    /// Whether it takes part in elections.
    pub voter: bool,
}

/// The worker of one node.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct WorkerView {
    /// The node that tells this.
    pub node: u64,
    /// How many jobs it runs at once.
    pub slots: u32,
    /// How many it runs now.
    pub busy: u32,
    /// It takes no more.
    pub draining: bool,
    /// What it offers.
    pub labels: BTreeSet<String>,
    /// The kinds it can do.
    pub kinds: BTreeSet<String>,
}

/// A backup of the queue on a node's disk.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BackupView {
    /// The file's name.
    pub name: String,
    /// When it was asked for.
    pub created_at_ms: UnixMillis,
    /// Its size.
    pub bytes: u64,
}

/// The backups of one node.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BackupsView {
    /// Whose.
    pub node: u64,
    /// The newest first.
    pub backups: Vec<BackupView>,
}

/// What submits jobs at times.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ScheduleView {
    /// Its name.
    pub name: String,
    /// Grows whenever it is replaced.
    pub revision: i64,
    /// When, in UTC.
    pub cron: String,
    /// What becomes of ticks that nobody could fire.
    pub missed: Missed,
    /// What is submitted.
    pub job: JobSpec,
    /// The next tick.
    pub next_ms: UnixMillis,
}

/// The answer to a schedule that was set.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ScheduleSet {
    /// Its name.
    pub name: String,
    /// Grows whenever it is replaced.
    pub revision: i64,
    /// The first tick.
    pub next_ms: UnixMillis,
}
