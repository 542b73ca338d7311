//! How long a failed job rests before its next attempt: exponential, with a jitter that is derived and not drawn.
//!
//! The pause is a duration. Who counts it is the leader, on its monotonic clock: [`crate::keeper`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{FencingToken, JobId};

/// The pauses of one job.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Backoff {
    /// The pause after the first failure; doubles with each further one.
    pub base_ms: u64,
    /// The longest pause.
    pub max_ms: u64,
}

impl Default for Backoff {
    /// One second, doubling up to five minutes.
    fn default() -> Self {
        Self {
            base_ms: 1_000,
            max_ms: 300_000,
        }
    }
}

impl Backoff {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The pause after the attempt `token`, which was the `failures`-th to fail.
    ///
    /// Half of it is fixed, half depends on job and attempt, so that jobs which failed together do not come back
    /// together, and every leader computes the same.
    pub fn pause(&self, job: &JobId, token: FencingToken, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(63);
        let full = self
            .base_ms
            .saturating_mul(1_u64 << doublings)
            .min(self.max_ms);
        let hash = blake3::hash(format!("{}\0{}", job.0, token.0).as_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hash.as_bytes()[..8]);
        let half = full / 2;
        // A draw from 0..=half, out of 32 bits, which is finer than a millisecond matters.
        let share = u128::from(u64::from_le_bytes(bytes) >> 32);
        let jitter = (u128::from(full - half) * share) >> 32;
        Duration::from_millis(half + u64::try_from(jitter).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_limit_and_keeps_within_half() {
        let backoff = Backoff {
            base_ms: 100,
            max_ms: 1_000,
        };
        for (failures, full) in [(1, 100), (2, 200), (4, 800), (5, 1_000), (u32::MAX, 1_000)] {
            for job in 0..50 {
                let job = JobId(job.to_string());
                let pause = backoff.pause(&job, FencingToken(7), failures).as_millis();
                assert!(
                    (full / 2..=full).contains(&pause),
                    "{failures}: {pause} of {full}"
                );
            }
        }
    }

    #[test]
    fn jobs_that_fail_together_spread_out_and_one_job_repeats_itself() {
        let backoff = Backoff::default();
        let pause =
            |job: u32, token| backoff.pause(&JobId(job.to_string()), FencingToken(token), 4);
        let distinct: std::collections::BTreeSet<_> = (0..100).map(|job| pause(job, 1)).collect();
        assert!(distinct.len() > 90, "{}", distinct.len());
        assert_eq!(pause(3, 1), pause(3, 1));
        assert_ne!(pause(3, 1), pause(3, 2));
    }
}
