//! The job queue's decisions: a pure core, the same as SQL, and the leader's bookkeeping. (Diagram to come.)
#![forbid(unsafe_code)]

mod answer;
mod backoff;
mod command;
mod cron;
mod id;
mod job;
mod keeper;
mod limits;
mod query;
mod queue;
mod refusal;
pub mod sql;
#[cfg(test)]
mod tests;
mod transition;

pub use self::{
    backoff::Backoff,
    command::{
        Change, Claim, Command, Effect, Expiry, Report, Stream, Tick, Versioned, WIRE_VERSION,
    },
    cron::{Firing, Missed, Schedule, validate_schedule},
    id::{FencingToken, JobId, RequestId, UnixMillis},
    job::{
        Attempt, AttemptOutcome, Concurrency, DependencyFailure, FETCH_KIND, Job, JobSpec, JobState,
        WaitsFor,
    },
    keeper::{Keeper, KeeperConfig, Retention},
    limits::*,
    query::{
        Answer, Cursor, Filter, KeeperFact, LogChunk, Order, PAGE_MAX, PAGE_SCAN_MAX, Query,
        StoredSchedule,
    },
    queue::{Outcome, Queue},
    refusal::Refusal,
};

/// The statement of one valid command takes no more than this in a log entry, by [`sql::encoded_bytes`].
pub const COMMAND_BYTES_MAX: usize = 128 * 1024;
