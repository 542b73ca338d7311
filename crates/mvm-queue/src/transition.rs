//! What the end of an attempt makes of its job: the one decision with limits in it, as a function of plain values.

use crate::job::{AttemptOutcome, JobSpec, JobState, WaitsFor};

/// What an ending depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// Failed and timed out attempts before this one.
    pub(crate) failures: u32,
    /// Lost attempts before this one.
    pub(crate) losses: u32,
    /// Whether somebody asked the worker to stop.
    pub(crate) cancel_requested: bool,
    /// Whether somebody paused it.
    pub(crate) paused: bool,
}

/// What becomes of the job.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Ending {
    /// Where it stands now.
    pub(crate) state: JobState,
    /// What it waits for, if it is pending again.
    pub(crate) waits_for: Option<WaitsFor>,
    /// Failed and timed out attempts with this one.
    pub(crate) failures: u32,
    /// Lost attempts with this one.
    pub(crate) losses: u32,
}

/// Decides what becomes of a job whose attempt ended.
///
/// - Success wins over a request to cancel: the work is done.
/// - After a request to cancel, any other ending cancels the job.
/// - Lost attempts have a limit of their own. Before it the job is ready at once; at it the job is dead.
/// - A permanent failure, and the only failure of a job with one attempt, is `failed`.
/// - A job that was retried up to its limit is `dead`.
/// - A paused job that would be pending again rests instead.
pub(crate) fn ending(
    spec: &JobSpec,
    standing: Standing,
    outcome: AttemptOutcome,
    permanent: bool,
) -> Ending {
    let failed = matches!(outcome, AttemptOutcome::Failed | AttemptOutcome::TimedOut);
    let lost = outcome == AttemptOutcome::Lost;
    let failures = standing.failures.saturating_add(u32::from(failed));
    let losses = standing.losses.saturating_add(u32::from(lost));
    let (state, waits_for) = match outcome {
        AttemptOutcome::Succeeded => (JobState::Completed, None),
        _ if standing.cancel_requested => (JobState::Cancelled, None),
        AttemptOutcome::Cancelled => (JobState::Cancelled, None),
        AttemptOutcome::Lost if losses >= spec.losses_max => (JobState::Dead, None),
        AttemptOutcome::Lost => (JobState::Pending, Some(spec.eligible())),
        AttemptOutcome::Failed | AttemptOutcome::TimedOut if permanent => (JobState::Failed, None),
        AttemptOutcome::Failed | AttemptOutcome::TimedOut if failures < spec.attempts_max => {
            (JobState::Pending, Some(WaitsFor::Backoff))
        }
        AttemptOutcome::Failed | AttemptOutcome::TimedOut if spec.attempts_max == 1 => {
            (JobState::Failed, None)
        }
        AttemptOutcome::Failed | AttemptOutcome::TimedOut => (JobState::Dead, None),
    };
    Ending {
        state,
        waits_for: match waits_for {
            Some(_) if standing.paused => Some(WaitsFor::Paused),
            waits_for => waits_for,
        },
        failures,
        losses,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AttemptOutcome::*;

    /// `attempts_max`, `losses_max`, failures and losses so far, cancel requested.
    type Case = (u32, u32, u32, u32, bool);

    #[track_caller]
    fn check(case: Case, outcome: AttemptOutcome, permanent: bool, expected: &str) {
        let (attempts_max, losses_max, failures, losses, cancel_requested) = case;
        let mut spec = JobSpec::new("k", serde_json::Value::Null);
        spec.attempts_max = attempts_max;
        spec.losses_max = losses_max;
        let standing = Standing {
            failures,
            losses,
            cancel_requested,
            paused: false,
        };
        let ending = ending(&spec, standing, outcome, permanent);
        let waits = ending.waits_for.map_or("", WaitsFor::as_str);
        let found = format!(
            "{} {waits} {} {}",
            ending.state, ending.failures, ending.losses
        );
        assert_eq!(found, expected);
    }

    #[test]
    fn success_completes_also_when_a_stop_was_asked_for() {
        check((1, 1, 0, 0, false), Succeeded, false, "completed  0 0");
        check((1, 1, 0, 0, true), Succeeded, false, "completed  0 0");
    }

    #[test]
    fn any_other_end_after_a_request_to_cancel_cancels() {
        for outcome in [Failed, TimedOut, Lost, Cancelled] {
            let counts = match outcome {
                Failed | TimedOut => "1 0",
                Lost => "0 1",
                Succeeded | Cancelled => "0 0",
            };
            check(
                (9, 9, 0, 0, true),
                outcome,
                false,
                &format!("cancelled  {counts}"),
            );
        }
        check((9, 9, 0, 0, false), Cancelled, false, "cancelled  0 0");
    }

    #[test]
    fn failures_are_retried_up_to_their_limit() {
        check((1, 3, 0, 0, false), Failed, false, "failed  1 0");
        check((2, 3, 0, 0, false), Failed, false, "pending backoff 1 0");
        check((2, 3, 1, 0, false), Failed, false, "dead  2 0");
        check((2, 3, 1, 0, false), TimedOut, false, "dead  2 0");
        check((5, 3, 0, 0, false), Failed, true, "failed  1 0");
    }

    #[test]
    fn a_paused_job_rests_instead_of_going_on() {
        let mut spec = JobSpec::new("k", serde_json::Value::Null);
        spec.attempts_max = 2;
        let standing = Standing {
            failures: 0,
            losses: 0,
            cancel_requested: false,
            paused: true,
        };
        let waits_for = |outcome| ending(&spec, standing, outcome, false).waits_for;
        assert_eq!(waits_for(Lost), Some(WaitsFor::Paused));
        assert_eq!(waits_for(Failed), Some(WaitsFor::Paused));
        assert_eq!(waits_for(Succeeded), None);
    }

    #[test]
    fn losses_are_counted_apart_and_have_a_limit_of_their_own() {
        check((1, 3, 0, 0, false), Lost, false, "pending worker 0 1");
        check((1, 3, 0, 1, false), Lost, false, "pending worker 0 2");
        check((1, 3, 0, 2, false), Lost, false, "dead  0 3");
        check((3, 3, 2, 0, false), Lost, false, "pending worker 2 1");
    }
}
