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
}
