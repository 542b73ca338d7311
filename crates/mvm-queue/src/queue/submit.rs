//! New jobs, schedules, cancelling and retrying: what clients ask for.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU64,
};

use super::{Entry, Outcome, Queue, Workflow};
use crate::{
    command::Tick,
    effect::Effect,
    id::{FencingToken, JobId, UnixMillis},
    job::{DependencyFailure, FLOW_KIND, Job, JobSpec, JobState, WaitsFor},
    limits::{LANES_MAX, SCHEDULES_MAX},
    query::StoredSchedule,
    refusal::Refusal,
};

impl Queue {
    pub(super) fn submit(
        &mut self,
        id: &JobId,
        submitted_on: u64,
        spec: &JobSpec,
        tick: Option<&Tick>,
        at: UnixMillis,
    ) -> Outcome {
        let spec_digest = spec.digest();
        if let Some(known) = self.of_idempotency_key(spec.idempotency_key.as_deref()) {
            return if known.spec_digest == spec_digest {
                Ok(submitted(&known.job, true))
            } else {
                Err(Refusal::KeyReused)
            };
        }
        if let Some(tick) = tick {
            self.check_tick(tick)?;
        }
        if self.ids.contains_key(id) {
            return Err(Refusal::IdTaken { job: id.clone() });
        }
        let unknown = |job: &&JobId| !self.ids.contains_key(*job);
        if let Some(job) = spec.dependencies.iter().find(unknown) {
            return Err(Refusal::UnknownDependency { job: job.clone() });
        }
        self.check_lane(spec)?;

        self.last_seq += 1;
        let seq = self.last_seq;
        let open = self.open_dependencies(spec);
        let doomed = self.failed_dependency(spec);
        let (state, waits_for) = match doomed {
            Some(_) => (JobState::Cancelled, None),
            None if !open.is_empty() => (JobState::Pending, Some(WaitsFor::Dependencies)),
            None => (JobState::Pending, Some(spec.after_dependencies())),
        };
        let job = Job {
            id: id.clone(),
            spec: spec.clone(),
            state,
            waits_for,
            run_after_ms: spec.run_after_ms,
            created_at_ms: at,
            updated_at_ms: at,
            finished_at_ms: None,
            submitted_on,
            schedule: tick.map(|tick| tick.schedule.clone()),
            claimed_by: None,
            claimed_on: None,
            token: FencingToken(0),
            failures: 0,
            losses: 0,
            renewals: 0,
            cancel_requested: false,
            paused: None,
            dependencies_open: 0,
            error: doomed,
            result: None,
        };
        let entry = Entry {
            job,
            spec_digest,
            attempts: BTreeMap::new(),
            logs: BTreeMap::new(),
            workflow: Workflow::default(),
        };
        self.jobs.insert(seq, entry);
        self.ids.insert(id.clone(), seq);
        if state == JobState::Pending {
            let open_count = u32::try_from(open.len()).unwrap_or(u32::MAX);
            self.at(seq).job.dependencies_open = open_count;
            self.edges.extend(open.into_iter().map(|on| (on, seq)));
            if let Some(concurrency) = &spec.concurrency {
                self.limits
                    .insert(concurrency.key.clone(), concurrency.limit);
            }
        }
        self.set(seq, state, waits_for, at);
        if let Some(tick) = tick {
            self.move_tick(tick);
        }
        Ok(submitted(&self.at(seq).job, false))
    }

    fn of_idempotency_key(&self, key: Option<&str>) -> Option<&Entry> {
        let key = key?;
        self.jobs
            .values()
            .find(|entry| entry.job.spec.idempotency_key.as_deref() == Some(key))
    }

    /// Refuses to open one more lane than the queue keeps apart.
    fn check_lane(&self, spec: &JobSpec) -> Result<(), Refusal> {
        if self.jobs.len() < LANES_MAX {
            return Ok(());
        }
        let lane = (&spec.kind, &spec.labels);
        let unfinished = self.jobs.values().map(|entry| &entry.job);
        let lanes: BTreeSet<_> = unfinished
            .filter(|job| !job.state.is_finished())
            .map(|job| (&job.spec.kind, &job.spec.labels))
            .collect();
        if lanes.len() < LANES_MAX || lanes.contains(&lane) {
            Ok(())
        } else {
            Err(Refusal::TooManyLabelSets)
        }
    }

    fn dependencies<'a>(&'a self, spec: &'a JobSpec) -> impl Iterator<Item = (i64, &'a Job)> {
        let ids = spec.dependencies.iter();
        ids.filter_map(|id| {
            let seq = *self.ids.get(id)?;
            Some((seq, &self.jobs.get(&seq)?.job))
        })
    }

    fn open_dependencies(&self, spec: &JobSpec) -> Vec<i64> {
        if self.ignores_dependencies() {
            return Vec::new();
        }
        self.dependencies(spec)
            .filter(|(_, job)| !job.state.is_finished())
            .map(|(seq, _)| seq)
            .collect()
    }

    /// What is wrong with the first dependency that has ended otherwise than the job needs.
    fn failed_dependency(&self, spec: &JobSpec) -> Option<String> {
        if spec.on_dependency_failure == DependencyFailure::Run {
            return None;
        }
        self.dependencies(spec)
            .find(|(_, job)| job.state.is_finished() && job.state != JobState::Completed)
            .map(|(_, job)| dependency_error(job))
    }

    pub(super) fn cancel(&mut self, id: &JobId, reason: Option<&str>, at: UnixMillis) -> Outcome {
        let seq = self.seq(id)?;
        let job = &mut self.at(seq).job;
        if job.state.is_finished() {
            return Err(Refusal::IllegalTransition {
                from: job.state,
                to: JobState::Cancelled,
            });
        }
        // What went wrong before is not why a held job is going to be cancelled.
        let known = job.error.take();
        let keeps = !job.state.is_held() || job.cancel_requested;
        job.error = reason.map(str::to_owned).or(known.filter(|_| keeps));
        if job.state.is_held() {
            job.cancel_requested = true;
            job.updated_at_ms = at;
        } else {
            self.set(seq, JobState::Cancelled, None, at);
        }
        let state = self.at(seq).job.state;
        Ok(Effect::Cancelled {
            state,
            dependents: self.settling.contains(&seq),
        })
    }

    pub(super) fn retry(
        &mut self,
        id: &JobId,
        keep_frames: Option<NonZeroU64>,
        at: UnixMillis,
    ) -> Outcome {
        let seq = self.seq(id)?;
        let job = &self.at(seq).job;
        if !matches!(job.state, JobState::Failed | JobState::Dead) {
            return Err(Refusal::IllegalTransition {
                from: job.state,
                to: JobState::Pending,
            });
        }
        let spec = job.spec.clone();
        if keep_frames.is_some() && spec.kind != FLOW_KIND {
            return Err(Refusal::NotAWorkflow { job: id.clone() });
        }
        self.check_lane(&spec)?;
        if let Some(concurrency) = &spec.concurrency {
            self.limits
                .entry(concurrency.key.clone())
                .or_insert(concurrency.limit);
        }
        // Those that wait for it and have not been told of its end go on waiting.
        self.settling.remove(&seq);
        if let Some(keep) = keep_frames {
            self.at(seq).workflow.cut(keep);
        }
        let job = &mut self.at(seq).job;
        job.failures = 0;
        job.losses = 0;
        job.cancel_requested = false;
        job.error = None;
        self.set(seq, JobState::Pending, Some(spec.eligible()), at);
        Ok(Effect::Retried)
    }

    pub(super) fn set_schedule(&mut self, schedule: StoredSchedule) -> Outcome {
        if self.schedules.len() >= SCHEDULES_MAX && !self.schedules.contains_key(&schedule.name) {
            return Err(Refusal::TooManySchedules);
        }
        let revision = schedule.revision;
        self.schedules.insert(schedule.name.clone(), schedule);
        Ok(Effect::ScheduleSet { revision })
    }

    pub(super) fn remove_schedule(&mut self, name: &str) -> Outcome {
        match self.schedules.remove(name) {
            Some(_) => Ok(Effect::ScheduleRemoved),
            None => Err(Refusal::UnknownSchedule {
                schedule: name.to_owned(),
            }),
        }
    }

    pub(super) fn skip_tick(&mut self, tick: &Tick) -> Outcome {
        self.check_tick(tick)?;
        self.move_tick(tick);
        Ok(Effect::TickSkipped)
    }

    fn check_tick(&self, tick: &Tick) -> Result<(), Refusal> {
        let waits = self.schedules.get(&tick.schedule).is_some_and(|schedule| {
            schedule.revision == tick.revision && schedule.next_ms == tick.tick_ms
        });
        if waits {
            Ok(())
        } else {
            Err(Refusal::TickTaken {
                schedule: tick.schedule.clone(),
            })
        }
    }

    fn move_tick(&mut self, tick: &Tick) {
        if let Some(schedule) = self.schedules.get_mut(&tick.schedule) {
            schedule.next_ms = tick.next_ms;
        }
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    const fn ignores_dependencies(&self) -> bool {
        false
    }
    #[cfg(test)]
    fn ignores_dependencies(&self) -> bool {
        self.bug == Some(crate::tests::Bug::IgnoresDependencies)
    }
}

fn submitted(job: &Job, existing: bool) -> Effect {
    Effect::Submitted {
        job: job.id.clone(),
        existing,
        state: job.state,
        waits_for: job.waits_for,
    }
}

pub(super) fn dependency_error(job: &Job) -> String {
    format!("dependency {} ended as {}", job.id, job.state)
}
