//! The decisions of the job queue, without I/O, threads or clocks: time and input are arguments.
//!
//! ```text
//!              Command { request, at, change }
//!                │                      │
//!     ┌──────────▼─────────┐   ┌────────▼─────────────┐
//!     │ Queue::apply       │   │ sql::statements      │   one short call of a stored
//!     │ the pure core:     │ = │ sql::outcomes        │   procedure per command; every
//!     │ the definition     │   │ the same in SQLite   │   replica runs it from the log
//!     └──────────┬─────────┘   └────────┬─────────────┘
//!                └─────────┬────────────┘
//!                     Outcome ──▶ Keeper (on the leader) ──▶ further commands: expire, ready,
//!                                                            due, settle, fire a tick, prune
//! ```
//!
//! What is here: what a job is ([`JobSpec`], [`Job`]), what is accepted ([`JobSpec::validate`]), the commands and their
//! effects ([`Change`], [`Effect`], [`Refusal`]), the core ([`Queue`]), the same in SQL ([`sql`]), queries
//! ([`Query`]), cron lines ([`Schedule`]) and the leader's bookkeeping ([`Keeper`]).
//!
//! What is not: proposing, reading, clocks, workers and HTTP (`mvm-node`); how work is run.
//!
//! # A job's life
//!
//! ```text
//!            ┌──────────── lost: at once; failed or timed out: after a pause ────────────┐
//!            ▼                                                                           │
//!  submit ─▶ pending ─── claim ──▶ claimed ─── start ──▶ in_progress ───────────────────▶┤
//!            │ waits for:                                                                ├▶ completed
//!            │  dependencies ▶ run-after ▶ (concurrency ⇄) worker                        ├▶ failed
//!            └─ cancel, or a dependency that did not complete ───────────────────────────┼▶ cancelled
//!                                                                                        └▶ dead
//! ```
//!
//! A workflow's job goes back to pending also when it is parked, and then waits for a time or a message. A paused job waits
//! until it is resumed.
//!
//! # Invariants
//!
//! - **One effect per request.** A request id that was applied is answered from what was recorded; for another request it is
//!   refused. An idempotency key has one job for as long as that job exists, whichever node was asked.
//! - **One lease per job.** A job is claimed only while it waits for a worker. Each claim has a token one larger than the
//!   claim before, for ever, also across retries by hand.
//! - **An old token changes nothing**: start, renewal, log, append, park, end, expiry.
//! - **A journal has no gap and no fork.** Frames are added at its end by who holds the job, and go from its end only by a retry by hand.
//!   A message leaves the inbox in the step that records it.
//! - **No wall clock counts a lease, a timeout or a pause.** The leader's monotonic clock does, from the grant, the last renewal
//!   it applied, or its election. Its proposal names the token and the number of renewals it knew, and is refused if
//!   either has moved on. Only run-after times, cron ticks and retention by age look at a wall clock, the leader's.
//! - **Only what a worker may take is ready.** Jobs which wait for dependencies, a time, a message, a pause, to be resumed, or
//!   their concurrency key are not in the ready queue, so a claim costs `O(S log n)` for `S` pairs of kind and label set.
//! - **A key's limit holds** among the jobs that workers hold. Within each pair of kind and label set, the highest
//!   priority and then the oldest goes first.
//! - **No cycles.** A job depends on jobs that exist when it is submitted, and its dependencies never change.
//! - **Every step is bounded**: commands, logs, results, and how much one command does.
//!
//! `src/tests` shows each of them able to fail, by planted bugs in the core and in the SQL.
//!
//! # What is deliberately absent
//!
//! - A registry of nodes. Draining is a worker that claims nothing; labels come with each claim.
//! - Time zones. Cron lines are in UTC.
//! - Fairness between users, and ageing of priorities: a steady stream of higher priority starves what is below.

#![forbid(unsafe_code)]

mod answer;
mod backoff;
mod bytes;
mod command;
mod cron;
mod effect;
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
    bytes::Hex,
    command::{Change, Command, Expiry, Report, Stream, Tick, Versioned, WIRE_VERSION},
    cron::{Missed, Schedule, validate_schedule},
    effect::{Claim, Effect},
    id::{FencingToken, JobId, RequestId, UnixMillis},
    job::{
        Attempt, AttemptOutcome, Concurrency, DependencyFailure, FETCH_KIND, FLOW_KIND, Job,
        JobSpec, JobState, WaitsFor,
    },
    keeper::{Keeper, KeeperConfig, Retention},
    limits::{
        APPEND_BYTES_MAX, APPEND_FRAMES_MAX, ATTEMPTS_MAX, CHUNK_BYTES_MAX, CONCURRENCY_MAX,
        DEPENDENCIES_MAX, ERROR_BYTES_MAX, INBOX_BYTES_MAX, INBOX_MESSAGES_MAX, Invalid,
        JOURNAL_BYTES_MAX, JOURNAL_FRAMES_MAX, KEY_BYTES_MAX, KINDS_MAX, LABELS_MAX, LANES_MAX,
        LOG_BYTES_MAX, MESSAGE_BYTES_MAX, MODULE_BYTES_MAX, MODULE_CHUNKS_MAX, MODULES_MAX,
        PAUSE_MS_MAX, PAYLOAD_BYTES_MAX, REQUESTS_KEPT, RESULT_BYTES_MAX, SCHEDULES_MAX, SLOTS_MAX,
        STEPS_MAX, WORD_BYTES_MAX, validate_append, validate_chunk, validate_message,
        validate_module, validate_module_chunk, validate_offer, validate_reason,
    },
    query::{
        Answer, Cursor, Execution, FRAMES_BYTES_MAX, FRAMES_PAGE_MAX, Filter, Frame, KeeperFact,
        LogChunk, Message, Module, Order, PAGE_MAX, PAGE_SCAN_MAX, Query, StoredSchedule,
    },
    queue::{Outcome, Queue},
    refusal::Refusal,
};

/// The statement of one valid command takes no more than this in a log entry, by [`sql::encoded_bytes`].
pub const COMMAND_BYTES_MAX: usize = 128 * 1024;
