//! What to do with a job when: a pure machine, given what happened and the time. Carried out by `keeper`.

use std::time::{Duration, Instant};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    /// The node wants the job to end.
    Cancel,
    /// The node wants it dead, or the node is dead.
    Kill,
    /// The job's own process ended.
    Ended(Ending),
    /// The job's own process ended and nobody of the job is left.
    Alone,
    /// Time passed.
    Tick,
}

/// How the job's own process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Code(i32),
    Signal(i32),
}

/// What the job came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Ended(Ending),
    TimedOut,
    Cancelled,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Wait for the next happening, or until [`Plan::wakes_at`].
    Wait,
    /// Ask the job's process group to end.
    Terminate,
    /// Kill all that is left; this is the verdict.
    Finish(Verdict),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running {
        limit: Option<Instant>,
    },
    Stopping {
        verdict: Verdict,
        kill: Option<Instant>,
    },
    Lingering {
        verdict: Verdict,
        kill: Option<Instant>,
    },
}

/// The life of one job.
#[derive(Debug)]
pub(super) struct Plan {
    phase: Phase,
    kill_grace: Duration,
    linger: Duration,
}

impl Plan {
    pub(super) fn new(
        now: Instant,
        time_limit: Option<Duration>,
        kill_grace: Duration,
        linger: Duration,
    ) -> Self {
        // A limit past the clock's end is none.
        let limit = time_limit.and_then(|limit| now.checked_add(limit));
        Self {
            phase: Phase::Running { limit },
            kill_grace,
            linger,
        }
    }

    /// Returns when to look again, if nothing happens before.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running { limit } => limit,
            Phase::Stopping { kill, .. } | Phase::Lingering { kill, .. } => kill,
        }
    }

    pub(super) fn step(&mut self, now: Instant, happening: Happening) -> Step {
        let due = self.wakes_at().is_some_and(|at| at <= now);
        match (self.phase, happening) {
            (Phase::Running { .. }, Happening::Ended(ending)) => {
                self.linger(now, Verdict::Ended(ending))
            }
            (Phase::Stopping { verdict, .. }, Happening::Ended(_)) => self.linger(now, verdict),
            (Phase::Running { .. }, Happening::Kill) => Step::Finish(Verdict::Cancelled),
            (Phase::Running { .. }, Happening::Cancel) => self.stop(now, Verdict::Cancelled),
            (Phase::Running { .. }, Happening::Tick) if due => self.stop(now, Verdict::TimedOut),
            (
                Phase::Stopping { verdict, .. } | Phase::Lingering { verdict, .. },
                Happening::Kill,
            ) => Step::Finish(verdict),
            (Phase::Lingering { verdict, .. }, Happening::Alone) => Step::Finish(verdict),
            (
                Phase::Stopping { verdict, .. } | Phase::Lingering { verdict, .. },
                Happening::Tick,
            ) if due => Step::Finish(verdict),
            // A second request to end, a process that ends twice: nothing new.
            (_, _) => Step::Wait,
        }
    }

    fn stop(&mut self, now: Instant, verdict: Verdict) -> Step {
        let kill = now.checked_add(self.kill_grace);
        self.phase = Phase::Stopping { verdict, kill };
        Step::Terminate
    }

    fn linger(&mut self, now: Instant, verdict: Verdict) -> Step {
        let kill = now.checked_add(self.linger);
        self.phase = Phase::Lingering { verdict, kill };
        Step::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: Happening = Happening::Ended(Ending::Code(3));
    const RETURNED: Step = Step::Finish(Verdict::Ended(Ending::Code(3)));

    /// A job with a limit of 100 ms, 20 ms to react and 10 ms to linger; happenings with their time in ms.
    #[track_caller]
    fn check(happenings: &[(u64, Happening)], expected: &[Step]) {
        let begin = Instant::now();
        let ms = Duration::from_millis;
        let mut plan = Plan::new(begin, Some(ms(100)), ms(20), ms(10));
        let steps: Vec<_> = happenings
            .iter()
            .map(|(at, happening)| plan.step(begin + ms(*at), *happening))
            .collect();
        assert_eq!(steps, expected);
    }

    #[test]
    fn a_job_ends_by_itself() {
        check(&[(5, CODE), (6, Happening::Alone)], &[Step::Wait, RETURNED]);
    }

    #[test]
    fn what_lingers_is_killed() {
        check(
            &[(5, CODE), (14, Happening::Tick), (15, Happening::Tick)],
            &[Step::Wait, Step::Wait, RETURNED],
        );
    }

    #[test]
    fn time_runs_out() {
        let timed_out = Step::Finish(Verdict::TimedOut);
        check(
            &[
                (99, Happening::Tick),
                (100, Happening::Tick),
                (120, Happening::Tick),
            ],
            &[Step::Wait, Step::Terminate, timed_out],
        );
        check(
            &[(100, Happening::Tick), (110, CODE), (111, Happening::Alone)],
            &[Step::Terminate, Step::Wait, timed_out],
        );
    }

    #[test]
    fn the_first_reason_counts() {
        let cancelled = Step::Finish(Verdict::Cancelled);
        check(
            &[
                (90, Happening::Cancel),
                (101, Happening::Tick),
                (110, Happening::Tick),
            ],
            &[Step::Terminate, Step::Wait, cancelled],
        );
        check(
            &[(5, CODE), (6, Happening::Cancel), (7, Happening::Kill)],
            &[Step::Wait, Step::Wait, RETURNED],
        );
    }

    #[test]
    fn a_kill_does_not_wait() {
        let cancelled = Step::Finish(Verdict::Cancelled);
        check(&[(1, Happening::Kill)], &[cancelled]);
        check(
            &[(1, Happening::Cancel), (2, Happening::Kill)],
            &[Step::Terminate, cancelled],
        );
    }

    #[test]
    fn a_limit_past_the_end_of_time_is_none() {
        let plan = Plan::new(
            Instant::now(),
            Some(Duration::MAX),
            Duration::ZERO,
            Duration::ZERO,
        );
        assert_eq!(plan.wakes_at(), None);
    }
}
