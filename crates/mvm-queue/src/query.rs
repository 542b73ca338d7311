//! What can be read from the queue, and the answers.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    command::Stream,
    cron::Missed,
    id::{FencingToken, JobId, UnixMillis},
    job::{Attempt, Job, JobSpec, JobState},
};

/// Jobs on a page at most.
pub const PAGE_MAX: u32 = 500;

/// Jobs that one page looks at for those that fit its filter, so that a page costs the same in a queue of any length.
pub const PAGE_SCAN_MAX: u32 = 1_000;

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
    /// The output, as hexadecimal digits: it may be cut anywhere, so it need not be text.
    pub hex: String,
}

impl LogChunk {
    /// The output.
    pub fn bytes(&self) -> Vec<u8> {
        let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0);
        self.hex
            .as_bytes()
            .chunks_exact(2)
            .map(|pair| u8::try_from(digit(pair[0]) * 16 + digit(pair[1])).unwrap_or(0))
            .collect()
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
