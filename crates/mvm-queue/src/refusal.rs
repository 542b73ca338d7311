//! Why the store refuses a change. A refused change has changed nothing, and is remembered like any other outcome.

use serde::{Deserialize, Serialize};

use crate::{
    id::{FencingToken, JobId},
    job::JobState,
};

/// Why a change was refused.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[serde(tag = "refusal", rename_all = "snake_case")]
pub enum Refusal {
    /// There is no such job.
    #[error("there is no job {job}")]
    UnknownJob {
        /// The id that was asked for.
        job: JobId,
    },
    /// No job goes from the one state to the other in this way.
    #[error("a job that is {from} cannot become {to}")]
    IllegalTransition {
        /// Where the job stood.
        from: JobState,
        /// Where it was to go.
        to: JobState,
    },
    /// The token is not that of the latest claim.
    #[error("token {given} is not the one of the latest claim")]
    TokenStale {
        /// The token that came.
        given: FencingToken,
    },
    /// The token is that of the latest claim, but the claim has ended: the lease ran out, or the job has finished.
    #[error("the lease has ended: the job is {state}")]
    LeaseEnded {
        /// Where the job stood.
        state: JobState,
    },
    /// The request id or the idempotency key was used before, for something else.
    #[error("this idempotency key was used before for a different request")]
    KeyReused,
    /// A job of that id exists, and is not from this request.
    #[error("the job id {job} is taken")]
    IdTaken {
        /// The id.
        job: JobId,
    },
    /// The job is to wait for one that does not exist, or that was removed after its end.
    #[error("there is no job {job} to depend on")]
    UnknownDependency {
        /// The first that is missing.
        job: JobId,
    },
    /// Unfinished jobs have as many distinct pairs of kind and labels as the queue keeps apart.
    #[error(
        "unfinished jobs have too many different sets of labels; submit again when some have ended"
    )]
    TooManyLabelSets,
    /// The chunk is not the next one of its attempt's log.
    #[error("the log's next chunk is number {expected}")]
    LogGap {
        /// The number that the next chunk must have.
        expected: u32,
    },
    /// The lease was renewed after the leader last looked.
    #[error("the lease was renewed in the meantime")]
    RenewedSince,
    /// What the leader proposed is not due: things have changed since it looked.
    #[error("nothing is due: the job is {state}")]
    NotDue {
        /// Where the job stood.
        state: JobState,
    },
    /// Somebody fired this tick, or the schedule has changed.
    #[error("this tick of schedule {schedule:?} was fired before, or the schedule has changed")]
    TickTaken {
        /// Which schedule.
        schedule: String,
    },
    /// There is no such schedule.
    #[error("there is no schedule {schedule:?}")]
    UnknownSchedule {
        /// Which.
        schedule: String,
    },
    /// There are as many schedules as there may be.
    #[error("there are too many schedules")]
    TooManySchedules,
    /// Only jobs of the kind `flow` have a journal and an inbox, and are parked.
    #[error("job {job} is not a workflow")]
    NotAWorkflow {
        /// Which job.
        job: JobId,
    },
    /// The frames are not the next ones of the journal.
    #[error("the journal's next frame is number {next}")]
    JournalGap {
        /// The number that the next frame must have.
        next: u64,
    },
    /// The journal has no room for these frames.
    #[error("the journal is full")]
    JournalFull,
    /// The job has ended, so it receives no message.
    #[error("the job has finished: it is {state}")]
    Finished {
        /// How it ended.
        state: JobState,
    },
    /// As many messages wait as may, or as many bytes of them.
    #[error("the inbox is full; send again when the workflow has received some messages")]
    InboxFull,
    /// The job has ended, or a worker holds it that cannot give it back.
    #[error("a job that is {state} cannot be paused")]
    CannotPause {
        /// Where the job stood.
        state: JobState,
    },
    /// There is nothing to resume.
    #[error("the job is not paused")]
    NotPaused,
    /// Another module has this name and version.
    #[error("module {name} {version} exists and is another one; deploy under a new version")]
    VersionTaken {
        /// The name.
        name: String,
        /// The version.
        version: String,
    },
    /// Chunks of the module are missing, or are not as long together as the module.
    #[error("of the module {chunks} chunks with {bytes} bytes are stored; upload it again")]
    ModuleIncomplete {
        /// How many of its chunks are stored.
        chunks: u32,
        /// How long they are together.
        bytes: u64,
    },
    /// There are as many modules as there may be.
    #[error("there are too many modules")]
    TooManyModules,
}
