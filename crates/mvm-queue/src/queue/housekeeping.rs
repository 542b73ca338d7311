//! What the leader proposes by itself: pauses and waits that are over, ends that are to be told, and old jobs that go.
//!
//! Each of these commands takes a bounded number of steps, so that no entry of the log takes long to apply; the leader
//! proposes the next when there is more.

use super::{Outcome, Queue, submit::dependency_error};
use crate::{
    effect::Effect,
    id::{FencingToken, JobId, UnixMillis},
    job::{DependencyFailure, JobState, WaitsFor},
    limits::PRUNE_FRAMES,
    refusal::Refusal,
};

impl Queue {
    pub(super) fn ready(&mut self, id: &JobId, token: FencingToken, at: UnixMillis) -> Outcome {
        let seq = self.seq(id)?;
        let job = &self.at(seq).job;
        if job.token != token {
            return Err(Refusal::TokenStale { given: token });
        }
        if job.waits_for != Some(WaitsFor::Backoff) {
            return Err(Refusal::NotDue { state: job.state });
        }
        let waits_for = job.spec.eligible();
        self.set(seq, JobState::Pending, Some(waits_for), at);
        Ok(Effect::Ready)
    }

    pub(super) fn due(&mut self, now: UnixMillis, steps: u32, at: UnixMillis) -> Effect {
        let mut count = 0;
        for _ in 0..steps {
            match self.next_run_after() {
                Some((time, seq)) if time <= now => {
                    let waits_for = self.at(seq).job.spec.eligible();
                    self.set(seq, JobState::Pending, Some(waits_for), at);
                    count += 1;
                }
                Some(_) | None => break,
            }
        }
        Effect::Due {
            count,
            next_ms: self.next_run_after().map(|(time, _)| time),
        }
    }

    pub(crate) fn next_run_after(&self) -> Option<(UnixMillis, i64)> {
        self.jobs
            .iter()
            .filter_map(|(seq, entry)| Some((entry.job.wakes_at_ms()?, *seq)))
            .min()
    }

    pub(super) fn settle(&mut self, steps: u32, at: UnixMillis) -> Effect {
        let mut count = 0;
        for _ in 0..steps {
            let Some(on) = self.settling.first().copied() else {
                break;
            };
            let Some((_, waiting)) = self
                .edges
                .range((on, i64::MIN)..=(on, i64::MAX))
                .next()
                .copied()
            else {
                // Those who waited have been cancelled and removed.
                self.settling.remove(&on);
                continue;
            };
            self.settle_one(on, waiting, at);
            self.edges.remove(&(on, waiting));
            if !self.has_dependents(on) {
                self.settling.remove(&on);
            }
            count += 1;
        }
        Effect::Settled {
            count,
            more: !self.settling.is_empty(),
            next_ms: self.next_run_after().map(|(time, _)| time),
        }
    }

    fn settle_one(&mut self, on: i64, waiting: i64, at: UnixMillis) {
        let ended = &self.at(on).job;
        let completed = ended.state == JobState::Completed;
        let error = dependency_error(ended);
        let job = &mut self.at(waiting).job;
        if job.state != JobState::Pending {
            // It was cancelled while it waited.
            return;
        }
        if completed || job.spec.on_dependency_failure == DependencyFailure::Run {
            job.dependencies_open -= 1;
            if job.dependencies_open == 0 {
                let waits_for = match job.paused {
                    Some(_) => WaitsFor::Paused,
                    None => job.spec.after_dependencies(),
                };
                self.set(waiting, JobState::Pending, Some(waits_for), at);
            }
        } else {
            job.error = Some(error);
            self.set(waiting, JobState::Cancelled, None, at);
        }
    }

    pub(super) fn prune(
        &mut self,
        keep: u64,
        before: Option<UnixMillis>,
        chunks_before: Option<UnixMillis>,
        steps: u32,
    ) -> Effect {
        let removes = |queue: &mut Self| {
            queue.remove_leftovers()
                || queue.remove_finished(keep, before)
                || queue.uploads.remove_stray(chunks_before)
        };
        let count = (0..steps).take_while(|_| removes(self)).count();
        Effect::Pruned {
            count: u32::try_from(count).unwrap_or(steps),
        }
    }

    /// Removes some of the frames that are left of a removed job.
    fn remove_leftovers(&mut self) -> bool {
        let Some((seq, frames)) = self.leftovers.pop_first() else {
            return false;
        };
        self.leave(seq, frames);
        true
    }

    fn leave(&mut self, seq: i64, frames: usize) {
        if frames > PRUNE_FRAMES {
            self.leftovers.insert(seq, frames - PRUNE_FRAMES);
        }
    }

    fn remove_finished(&mut self, keep: u64, before: Option<UnixMillis>) -> bool {
        let finished = self
            .jobs
            .values()
            .filter(|entry| entry.job.state.is_finished());
        let too_many = finished.count() as u64 > keep;
        let oldest = self
            .jobs
            .iter()
            .filter(|(seq, _)| !self.settling.contains(seq))
            .filter_map(|(seq, entry)| Some((entry.job.finished_at_ms?, *seq)))
            .min();
        match oldest {
            Some((ended, seq)) if too_many || before.is_some_and(|before| ended < before) => {
                self.remove(seq);
                true
            }
            Some(_) | None => false,
        }
    }

    fn remove(&mut self, seq: i64) {
        if let Some(entry) = self.jobs.remove(&seq) {
            self.ids.remove(&entry.job.id);
            self.leave(seq, entry.workflow.frames.len());
        }
        self.edges.retain(|(_, waiting)| *waiting != seq);
    }
}
