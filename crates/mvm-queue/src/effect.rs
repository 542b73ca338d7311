//! What commands did. They cross from node to node as JSON, like [`crate::command`].

use serde::{Deserialize, Serialize};

use crate::{
    id::{FencingToken, JobId, UnixMillis},
    job::{JobSpec, JobState, WaitsFor},
    queue::Outcome,
};

/// What a command that was not refused did.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// There is a job for the spec.
    Submitted {
        /// Its id; not the proposed one if the idempotency key had a job.
        job: JobId,
        /// Whether the idempotency key had it.
        existing: bool,
        /// Where it stood then.
        state: JobState,
        /// What it waited for then.
        waits_for: Option<WaitsFor>,
    },
    /// The worker has these jobs; none if none was ready for it.
    Claimed {
        /// The claims.
        claims: Vec<Claim>,
    },
    /// The attempt is in progress.
    Started,
    /// The lease goes on.
    Renewed {
        /// How often it has been renewed.
        renewals: u64,
        /// Whether the worker must stop.
        cancel: bool,
        /// Whether the worker of a workflow should park it.
        pause: bool,
    },
    /// The chunk is stored, or was before, or was dropped as beyond the limit.
    Logged {
        /// The number of the next chunk.
        next: u32,
        /// Bytes of this log that are not kept.
        dropped_bytes: u64,
    },
    /// The attempt has ended.
    Ended {
        /// Where the job stands.
        state: JobState,
        /// What it waits for if it is pending again.
        waits_for: Option<WaitsFor>,
        /// The pause that the leader counts if it waits for that.
        pause_ms: Option<u64>,
        /// Whether jobs wait for this one, so that a [`Change::Settle`] is due.
        dependents: bool,
    },
    /// The job is cancelled, or its worker will be told.
    Cancelled {
        /// Where the job stands: `cancelled`, or held.
        state: JobState,
        /// Whether jobs wait for this one.
        dependents: bool,
    },
    /// The job is pending again.
    Retried,
    /// The pause is over.
    Ready,
    /// Jobs whose time had come go on.
    Due {
        /// How many.
        count: u32,
        /// The next time that comes.
        next_ms: Option<UnixMillis>,
    },
    /// Pairs of jobs were settled.
    Settled {
        /// How many.
        count: u32,
        /// Whether there are more.
        more: bool,
        /// The next run-after time that comes: a job may wait for that after its dependencies.
        next_ms: Option<UnixMillis>,
    },
    /// The schedule is in force.
    ScheduleSet {
        /// Its version.
        revision: i64,
    },
    /// The schedule waits for the next tick.
    TickSkipped,
    /// The schedule is gone.
    ScheduleRemoved,
    /// Finished jobs, and what was left of others, were removed.
    Pruned {
        /// How many steps removed something.
        count: u32,
    },
    /// The job rests, or its worker will be told.
    Paused {
        /// Where the job stands: `pending`, or held.
        state: JobState,
    },
    /// The rest is over.
    Resumed {
        /// What the job waits for if it is pending.
        waits_for: Option<WaitsFor>,
        /// The next run-after time that comes: the job may wait for that.
        next_ms: Option<UnixMillis>,
    },
    /// The frames are in the journal.
    Appended {
        /// The number of the next frame.
        next: u64,
    },
    /// The message is in the inbox.
    Sent {
        /// Its number, from 1 in each inbox.
        number: u64,
        /// What the job waits for now.
        waits_for: Option<WaitsFor>,
    },
    /// The worker has the workflow no more.
    Parked {
        /// Where the job stands: `pending`, or `cancelled` if that was asked for.
        state: JobState,
        /// What it waits for if it is pending.
        waits_for: Option<WaitsFor>,
        /// Whether jobs wait for this one, and it is cancelled.
        dependents: bool,
    },
    /// What became of each change, as far as they were tried: one that is refused is the last one.
    All {
        /// In the order of the changes.
        outcomes: Vec<Outcome>,
    },
    /// The chunk is stored.
    ChunkPut,
    /// The module is visible.
    Deployed {
        /// Whether it was before.
        existing: bool,
    },
}

impl Effect {
    /// Whether more jobs may be ready than before, so that idle workers should look.
    pub fn wakes_workers(&self) -> bool {
        match self {
            Self::Submitted { waits_for, .. } | Self::Sent { waits_for, .. } => {
                *waits_for == Some(WaitsFor::Worker)
            }
            // A key of the job may have room now.
            Self::Ended { .. }
            | Self::Retried
            | Self::Ready
            | Self::Resumed { .. }
            | Self::Parked { .. } => true,
            Self::Due { count, .. } | Self::Settled { count, .. } => *count > 0,
            Self::All { outcomes } => outcomes.iter().flatten().any(Self::wakes_workers),
            Self::Claimed { .. }
            | Self::Started
            | Self::Renewed { .. }
            | Self::Logged { .. }
            | Self::Cancelled { .. }
            | Self::ScheduleSet { .. }
            | Self::TickSkipped
            | Self::ScheduleRemoved
            | Self::Pruned { .. }
            | Self::Paused { .. }
            | Self::Appended { .. }
            | Self::ChunkPut
            | Self::Deployed { .. } => false,
        }
    }
}

/// A job as its worker gets it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Claim {
    /// Which job.
    pub job: JobId,
    /// What the worker must show from now on.
    pub token: FencingToken,
    /// The node that took the job; another than the worker's makes it stolen work.
    pub submitted_on: u64,
    /// What was asked for.
    pub spec: JobSpec,
}
