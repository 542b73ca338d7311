//! What a job is and how it may change: plain data and pure functions.
//!
//! This is the queue's core. It does no I/O and reads no clock. [`crate::store`] keeps jobs and must
//! agree with [`Job::claim`] and [`Job::move_to`] about every step; a property test compares the two.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of a job that was given nothing but a URL: a worker fetches it.
pub const FETCH_KIND: &str = "fetch";

/// Milliseconds since the Unix epoch, as read by the node that proposed a change.
///
/// Replicas never read a clock while applying a change, so all of them store the same number.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct UnixMillis(pub i64);

/// Names one job, for ever and in the whole cluster. Sorts by time of submission.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct JobId(pub String);

impl fmt::Display for JobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Proves that its holder made the latest claim of a job; counts the claims of that job from 1.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct FencingToken(pub i64);

impl fmt::Display for FencingToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for a worker.
    Pending,
    /// A worker took it and has not begun.
    Claimed,
    /// A worker runs it.
    InProgress,
    /// Done.
    Completed,
    /// Ended without success.
    Failed,
    /// Given up on purpose.
    Cancelled,
}

impl JobState {
    /// Every state, in the order of a job's life.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Claimed,
        Self::InProgress,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
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
        }
    }

    /// The state of that name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether a worker holds the job, so that a change needs its token.
    pub const fn is_held(self) -> bool {
        match self {
            Self::Claimed | Self::InProgress => true,
            Self::Pending | Self::Completed | Self::Failed | Self::Cancelled => false,
        }
    }

    /// The states a client may move a job to from here. Claiming is not among them: see [`Job::claim`].
    pub const fn successors(self) -> &'static [Self] {
        match self {
            Self::Pending => &[Self::Cancelled],
            Self::Claimed => &[Self::InProgress, Self::Failed, Self::Cancelled],
            Self::InProgress => &[Self::Completed, Self::Failed, Self::Cancelled],
            Self::Completed | Self::Failed | Self::Cancelled => &[],
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// One piece of work.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// What sort of worker it needs.
    pub kind: String,
    /// What that worker is told; opaque to the queue.
    pub payload: serde_json::Value,
    /// Where it stands.
    pub state: JobState,
    /// When it was submitted, by the clock of the node that took it.
    pub created_at_ms: UnixMillis,
    /// When it last changed, by the clock of the node that took that change.
    pub updated_at_ms: UnixMillis,
    /// The node that took it.
    pub submitted_on: u64,
    /// The worker that claimed it last.
    pub claimed_by: Option<String>,
    /// How often it has been claimed; equals the token of the latest claim.
    pub attempts: i64,
}

/// Why a change of a job was refused. Nothing has changed then.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[serde(tag = "refusal", rename_all = "snake_case")]
pub enum Refusal {
    /// There is no such job.
    #[error("there is no job {job}")]
    UnknownJob {
        /// The id that was asked for.
        job: JobId,
    },
    /// No job goes from the one state to the other.
    #[error("a job that is {from} cannot become {to}")]
    IllegalTransition {
        /// Where the job stood.
        from: JobState,
        /// Where it was to go.
        to: JobState,
    },
    /// The job is held by a worker and the change came without that worker's token.
    #[error("the job is {state} and the request carries no token")]
    TokenMissing {
        /// Where the job stood.
        state: JobState,
    },
    /// The token is not that of the latest claim.
    #[error("token {given} is not the one of the latest claim")]
    TokenStale {
        /// The token that came.
        given: FencingToken,
    },
    /// The request id was used before, for something else.
    #[error("this idempotency key was used before for a different request")]
    KeyReused,
}

impl Job {
    /// Takes the job for `worker`, if it is free; answers with the token of this claim.
    pub fn claim(&mut self, worker: &str, now: UnixMillis) -> Option<FencingToken> {
        if self.state != JobState::Pending {
            return None;
        }
        self.state = JobState::Claimed;
        self.claimed_by = Some(worker.to_owned());
        self.attempts += 1;
        self.updated_at_ms = now;
        Some(FencingToken(self.attempts))
    }

    /// Moves the job to another state.
    ///
    /// The token is looked at before the transition: a worker that lost its job learns that, and
    /// not where the job has gone since.
    pub fn move_to(
        &mut self,
        target: JobState,
        token: Option<FencingToken>,
        now: UnixMillis,
    ) -> Result<(), Refusal> {
        if self.state.is_held() {
            match token {
                None => return Err(Refusal::TokenMissing { state: self.state }),
                Some(given) if given != FencingToken(self.attempts) => {
                    return Err(Refusal::TokenStale { given });
                }
                Some(_) => {}
            }
        }
        if !self.state.successors().contains(&target) {
            return Err(Refusal::IllegalTransition {
                from: self.state,
                to: target,
            });
        }
        self.state = target;
        self.updated_at_ms = now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(state: JobState, attempts: i64) -> Job {
        Job {
            id: JobId("j".into()),
            kind: FETCH_KIND.into(),
            payload: serde_json::Value::Null,
            state,
            created_at_ms: UnixMillis(1),
            updated_at_ms: UnixMillis(1),
            submitted_on: 1,
            claimed_by: None,
            attempts,
        }
    }

    #[track_caller]
    fn check(from: JobState, to: JobState, token: Option<i64>, expected: &str) {
        let mut job = job(from, 2);
        let before = job.clone();
        let answer = match job.move_to(to, token.map(FencingToken), UnixMillis(9)) {
            Ok(()) => {
                assert_eq!((job.state, job.updated_at_ms), (to, UnixMillis(9)));
                "moved".to_owned()
            }
            Err(refusal) => {
                assert_eq!(job, before, "a refusal changed the job");
                refusal.to_string()
            }
        };
        assert_eq!(answer, expected);
    }

    #[test]
    fn a_job_moves_along_its_life() {
        use JobState::*;
        check(Claimed, InProgress, Some(2), "moved");
        check(InProgress, Completed, Some(2), "moved");
        check(InProgress, Failed, Some(2), "moved");
        check(Claimed, Cancelled, Some(2), "moved");
        check(Pending, Cancelled, None, "moved");
    }

    #[test]
    fn a_job_does_not_jump_or_return() {
        use JobState::*;
        check(
            Pending,
            Completed,
            None,
            "a job that is pending cannot become completed",
        );
        check(
            Pending,
            Claimed,
            None,
            "a job that is pending cannot become claimed",
        );
        check(
            Claimed,
            Completed,
            Some(2),
            "a job that is claimed cannot become completed",
        );
        check(
            Completed,
            Failed,
            Some(2),
            "a job that is completed cannot become failed",
        );
        check(
            Completed,
            Completed,
            None,
            "a job that is completed cannot become completed",
        );
    }

    #[test]
    fn a_held_job_asks_for_the_latest_token() {
        use JobState::*;
        check(
            Claimed,
            InProgress,
            None,
            "the job is claimed and the request carries no token",
        );
        check(
            InProgress,
            Completed,
            Some(1),
            "token 1 is not the one of the latest claim",
        );
        check(
            InProgress,
            Completed,
            Some(3),
            "token 3 is not the one of the latest claim",
        );
    }

    #[test]
    fn only_a_pending_job_is_claimed() {
        for state in JobState::ALL {
            let mut job = job(state, 4);
            let token = job.claim("w", UnixMillis(9));
            let expected = (state == JobState::Pending).then_some(FencingToken(5));
            assert_eq!(token, expected, "{state}");
        }
    }

    #[test]
    fn every_state_is_read_back_from_its_word() {
        for state in JobState::ALL {
            assert_eq!(JobState::parse(state.as_str()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert_eq!(JobState::parse("done"), None);
    }
}
