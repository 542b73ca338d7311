//! What can be read from the queue, and the answers.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    bytes::Hex,
    command::Stream,
    cron::Missed,
    id::{FencingToken, JobId, UnixMillis},
    job::{Attempt, Job, JobSpec, JobState},
};

/// Jobs on a page at most.
pub const PAGE_MAX: u32 = 500;

/// Jobs that one page looks at for those that fit its filter, so that a page costs the same in a queue of any length.
pub const PAGE_SCAN_MAX: u32 = 1_000;

/// Frames that one answer has at most.
pub const FRAMES_PAGE_MAX: u32 = 1_024;

/// The frames of one answer, together; one frame is answered whatever its length.
pub const FRAMES_BYTES_MAX: u64 = 1024 * 1024;

/// What to read.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "query", rename_all = "snake_case", deny_unknown_fields)]
pub enum Query {
    /// One job.
    Job {
        /// Which.
        job: JobId,
    },
    /// A page of jobs.
    List {
        /// Continue after the job that this cursor names.
        after: Option<Cursor>,
        /// At most so many; [`PAGE_MAX`] at most.
        limit: u32,
        /// From which end.
        order: Order,
        /// Which of them.
        filter: Filter,
    },
    /// How many jobs are in each state.
    Stats,
    /// How many jobs are ready for a worker: a claim is a write, so one looks at the local replica before.
    Ready {
        /// The labels it offers.
        labels: BTreeSet<String>,
        /// The kinds it can do; empty means any.
        kinds: BTreeSet<String>,
    },
    /// The attempts at a job, the first one first.
    Attempts {
        /// Which job.
        job: JobId,
    },
    /// The log of an attempt, from a chunk on.
    Log {
        /// Which job.
        job: JobId,
        /// Which attempt.
        token: FencingToken,
        /// The number of the first chunk.
        from: u32,
        /// At most so many chunks.
        limit: u32,
    },
    /// All schedules, by name.
    Schedules,
    /// What a leader's keeper must know at its election.
    Keeper,
    /// How the execution of a workflow stands.
    Execution {
        /// Which job.
        job: JobId,
    },
    /// The journal of a workflow, from a frame on.
    Frames {
        /// Which job.
        job: JobId,
        /// The number of the first frame.
        from: u64,
        /// Together at most so many bytes, but one frame at least; [`FRAMES_BYTES_MAX`] at most.
        bytes_max: u64,
    },
    /// The messages that a workflow has not received.
    Inbox {
        /// Which job.
        job: JobId,
        /// Only those with a larger number.
        beyond: u64,
        /// At most so many.
        limit: u32,
    },
    /// All modules, by name and then in the order of their deployment.
    Modules,
    /// One module.
    Module {
        /// Its name.
        name: String,
        /// Its version.
        version: String,
    },
    /// A piece of a module.
    Chunk {
        /// The BLAKE3 hash of the module, in hexadecimal.
        hash: String,
        /// Its number.
        number: u32,
    },
}

/// The order of a list.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// In the order in which jobs were committed.
    #[default]
    OldestFirst,
    /// The other way round.
    NewestFirst,
}

/// Which jobs a list has. What is not given does not matter.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Only those in this state.
    pub state: Option<JobState>,
    /// Only those that need this label.
    pub label: Option<String>,
    /// Only those that this node took.
    pub submitted_on: Option<u64>,
    /// Only those that a worker of this node claimed last.
    pub claimed_on: Option<u64>,
    /// Only those submitted at this time or later.
    pub created_from_ms: Option<UnixMillis>,
    /// Only those submitted before this time.
    pub created_before_ms: Option<UnixMillis>,
}

impl Filter {
    pub(crate) fn fits(&self, job: &Job) -> bool {
        self.state.is_none_or(|state| job.state == state)
            && self
                .label
                .as_ref()
                .is_none_or(|label| job.spec.labels.contains(label))
            && self
                .submitted_on
                .is_none_or(|node| job.submitted_on == node)
            && self
                .claimed_on
                .is_none_or(|node| job.claimed_on == Some(node))
            && self
                .created_from_ms
                .is_none_or(|from| job.created_at_ms >= from)
            && self
                .created_before_ms
                .is_none_or(|before| job.created_at_ms < before)
    }
}

/// A place in the list of jobs. Stays valid for ever, since jobs are only added at the end.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Cursor(pub i64);

/// The answer to a [`Query`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// The job, if there is one of that id.
    Job {
        /// The job.
        job: Option<Box<Job>>,
    },
    /// A page. It may be short, even empty, while there is more: it ends where it has looked at [`PAGE_SCAN_MAX`].
    Jobs {
        /// The jobs.
        jobs: Vec<Job>,
        /// Where to continue; nothing at the end.
        next: Option<Cursor>,
    },
    /// Every state with its number of jobs, also where that is zero.
    Stats {
        /// Pairs in the order of [`JobState::ALL`].
        counts: Vec<(JobState, u64)>,
    },
    /// For a worker that thinks of claiming.
    Ready {
        /// So many jobs are ready for it.
        count: u64,
    },
    /// The attempts.
    Attempts {
        /// Oldest first; empty if there is no such job.
        attempts: Vec<Attempt>,
    },
    /// A part of a log.
    Log {
        /// The chunks.
        chunks: Vec<LogChunk>,
    },
    /// The schedules.
    Schedules {
        /// By name.
        schedules: Vec<StoredSchedule>,
    },
    /// For [`crate::keeper::Keeper::elected`].
    Keeper {
        /// In no particular order.
        facts: Vec<KeeperFact>,
    },
    /// The execution, if there is a workflow of that id.
    Execution {
        /// The execution.
        execution: Option<Execution>,
    },
    /// A part of a journal.
    Frames {
        /// The frames; none beyond the end.
        frames: Vec<Frame>,
    },
    /// A part of an inbox.
    Inbox {
        /// The messages, the oldest first.
        messages: Vec<Message>,
    },
    /// The modules.
    Modules {
        /// By name and then in the order of their deployment.
        modules: Vec<Module>,
    },
    /// The module, if there is one.
    Module {
        /// The module.
        module: Option<Module>,
    },
    /// The chunk, if it is stored.
    Chunk {
        /// Its bytes.
        chunk: Option<Hex>,
    },
}

/// How the execution of a workflow stands, besides its job.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Execution {
    /// How many frames its journal has.
    pub frames: u64,
    /// How long they are together.
    pub bytes: u64,
    /// The frame at which its response begins.
    pub response: Option<u64>,
    /// How many messages it has not received.
    pub messages: u64,
    /// Whether somebody paused it.
    pub paused: bool,
}

/// A piece of a journal.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Frame {
    /// Its number, from 0.
    pub number: u64,
    /// What its engine wrote.
    pub hex: Hex,
}

/// A message in an inbox.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Message {
    /// Its number, from 1.
    pub number: u64,
    /// What sort of message it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The message.
    pub data: serde_json::Value,
    /// When the node that took it read its clock.
    pub sent_at_ms: UnixMillis,
}

/// A deployed module.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The BLAKE3 hash of its bytes, in hexadecimal.
    pub hash: String,
    /// How long it is.
    pub bytes: u64,
    /// Of how many chunks.
    pub chunks: u32,
    /// When the node that took it read its clock.
    pub deployed_at_ms: UnixMillis,
}

/// A piece of output.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LogChunk {
    /// Its number.
    pub number: u32,
    /// Where it came from.
    pub stream: Stream,
    /// When the node that took it read its clock.
    pub at_ms: UnixMillis,
    /// The output: it may be cut anywhere, so it need not be text.
    pub hex: Hex,
}

impl LogChunk {
    /// The output.
    pub fn bytes(&self) -> Vec<u8> {
        self.hex.bytes()
    }
}

/// A schedule as the store has it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StoredSchedule {
    /// Its name.
    pub name: String,
    /// Its version.
    pub revision: i64,
    /// Its cron line, in UTC.
    pub cron: String,
    /// What of missed ticks.
    pub missed: Missed,
    /// The job of each tick.
    pub spec: JobSpec,
    /// The tick it waits for.
    pub next_ms: UnixMillis,
}

/// One thing that the leader must look after.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum KeeperFact {
    /// A worker has a lease.
    Lease {
        /// Which job.
        job: JobId,
        /// The claim.
        token: FencingToken,
        /// How often it was renewed.
        renewals: u64,
        /// Whether it is in progress, so that its timeout runs.
        started: bool,
        /// Its timeout.
        timeout_ms: Option<u64>,
        /// Whether its worker is to stop.
        cancel: bool,
    },
    /// A job rests after a failure.
    Backoff {
        /// Which job.
        job: JobId,
        /// The attempt that failed.
        token: FencingToken,
        /// Its failures so far.
        failures: u32,
        /// Its pauses.
        backoff: crate::backoff::Backoff,
    },
    /// The next run-after time.
    RunAfter {
        /// The time; nothing if no job waits for one.
        next_ms: Option<UnixMillis>,
    },
    /// Whether ends of jobs are to be told.
    Settling {
        /// Whether.
        more: bool,
    },
    /// A schedule.
    Schedule {
        /// The schedule.
        schedule: Box<StoredSchedule>,
    },
}
