//! What must hold whatever happens, looked at after each applied command.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    command::{Change, Command, Report},
    effect::Effect,
    id::{FencingToken, JobId, RequestId},
    job::{DependencyFailure, Job, JobSpec, JobState},
    queue::{Outcome, Queue},
};

/// Watches a log as it is applied.
#[derive(Default)]
pub(super) struct Invariants {
    seen: BTreeSet<RequestId>,
    live: HashMap<JobId, (FencingToken, JobSpec)>,
    tokens: HashMap<JobId, FencingToken>,
    completed: BTreeSet<JobId>,
    /// Jobs that ended; a retry by hand may have begun them again.
    ended: BTreeSet<JobId>,
    of_key: BTreeMap<String, JobId>,
    limits: BTreeMap<String, u32>,
    ticks: BTreeSet<(String, i64, i64)>,
}

impl Invariants {
    /// Applies a command and says which invariant it breaks.
    pub(super) fn apply(
        &mut self,
        queue: &mut Queue,
        command: &Command,
    ) -> Result<Outcome, String> {
        if matches!(command.change, Change::All { .. }) {
            let mut outcomes = Vec::new();
            for part in command.parts() {
                outcomes.push(self.apply(queue, &part)?);
                if outcomes.last().is_some_and(Result::is_err) {
                    break;
                }
            }
            return Ok(Ok(Effect::All { outcomes }));
        }
        let named = held_by(&command.change).map(|(job, token)| (job.clone(), token));
        let seen = |queue: &Queue, job: &JobId| {
            let entry = queue.entry(job)?;
            Some((entry.job.clone(), entry.workflow.frames.len()))
        };
        let before = named.as_ref().and_then(|(job, _)| seen(queue, job));
        let outcome = queue.apply(command);
        let first = self.seen.insert(command.request.clone());
        if let Some((job, token)) = &named {
            let after = seen(queue, job);
            let live = self.live.get(job).map(|(token, _)| *token);
            if live != Some(*token) && before != after && first {
                return Err(format!("stale token {token} of {job} changed it"));
            }
            if outcome.is_err() && before != after {
                return Err(format!("a refused {:?} changed {job}", command.change));
            }
        }
        if !first {
            // A repeat has no second effect; whether it had is seen in what follows.
            return Ok(outcome);
        }
        if let Ok(effect) = &outcome {
            self.effect(queue, &command.change, effect)?;
        }
        Ok(outcome)
    }

    fn effect(&mut self, queue: &Queue, change: &Change, effect: &Effect) -> Result<(), String> {
        if let Change::Finish { job, .. } | Change::Expire { job, .. } = change
            && let Effect::Ended { state, .. } = effect
            && state.is_finished()
        {
            self.ended.insert(job.clone());
        }
        match (change, effect) {
            (
                Change::Submit { spec, tick, .. },
                Effect::Submitted {
                    job,
                    existing,
                    state,
                    ..
                },
            ) => {
                if !existing && *state == JobState::Pending {
                    self.note_limit(queue, job);
                }
                if let Some(key) = &spec.idempotency_key {
                    let known = self
                        .of_key
                        .entry(key.clone())
                        .or_insert_with(|| job.clone());
                    if known != job && queue.job(known).is_some() {
                        return Err(format!("key {key:?} has two jobs, {known} and {job}"));
                    }
                    known.clone_from(job);
                }
                if let Some(tick) = tick
                    && !existing
                    && !self
                        .ticks
                        .insert((tick.schedule.clone(), tick.revision, tick.tick_ms.0))
                {
                    return Err(format!("{tick:?} fired twice"));
                }
            }
            (_, Effect::Claimed { claims }) => {
                for claim in claims {
                    self.claimed(queue, claim)?;
                }
            }
            (Change::Finish { job, report, .. }, Effect::Ended { state, .. }) => {
                self.live.remove(job);
                if matches!(report, Report::Succeeded { .. }) != (*state == JobState::Completed) {
                    return Err(format!("{report:?} made {job} {state}"));
                }
                if *state == JobState::Completed && !self.completed.insert(job.clone()) {
                    return Err(format!("{job} was completed twice"));
                }
            }
            (Change::Expire { job, .. }, Effect::Ended { state, .. }) => {
                self.live.remove(job);
                if *state == JobState::Completed {
                    return Err(format!("an expiry completed {job}"));
                }
            }
            (Change::Park { job, .. }, Effect::Parked { state, .. }) => {
                self.live.remove(job);
                if state.is_finished() {
                    self.ended.insert(job.clone());
                }
            }
            (Change::Retry { job, .. }, Effect::Retried) => {
                let key = |job: &Job| job.spec.concurrency.as_ref().map(|of| of.key.clone());
                let own = queue.job(job).and_then(key);
                let others = queue.jobs.values().map(|entry| &entry.job);
                let of_key = others.filter(|job| !job.state.is_finished() && key(job) == own);
                if of_key.count() == 1 {
                    self.note_limit(queue, job);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn claimed(&mut self, queue: &Queue, claim: &crate::effect::Claim) -> Result<(), String> {
        let job = &claim.job;
        if let Some((token, _)) = self.live.get(job) {
            return Err(format!("{job} has two leases, {token} and {}", claim.token));
        }
        if self
            .tokens
            .get(job)
            .is_some_and(|token| *token >= claim.token)
        {
            return Err(format!("the token of {job} did not grow: {}", claim.token));
        }
        if queue.job(job).is_some_and(|job| job.paused.is_some()) {
            return Err(format!("{job} runs while it is paused"));
        }
        for on in &claim.spec.dependencies {
            // One that is gone had ended.
            let state = queue
                .job(on)
                .map_or(JobState::Completed, |on: &Job| on.state);
            let needs = claim.spec.on_dependency_failure == DependencyFailure::Cancel;
            let has_ended = state.is_finished() || self.ended.contains(on);
            if !has_ended || (needs && state != JobState::Completed) {
                return Err(format!(
                    "{job} runs while {on}, which it waits for, is {state}"
                ));
            }
        }
        self.tokens.insert(job.clone(), claim.token);
        self.live
            .insert(job.clone(), (claim.token, claim.spec.clone()));
        self.within_limit(claim)
    }

    /// A key's limit is that of the job which was submitted last, or which was retried when there was no other.
    fn note_limit(&mut self, queue: &Queue, job: &JobId) {
        let Some(concurrency) = queue.job(job).and_then(|job| job.spec.concurrency.clone()) else {
            return;
        };
        self.limits.insert(concurrency.key, concurrency.limit);
    }

    fn within_limit(&self, claim: &crate::effect::Claim) -> Result<(), String> {
        let Some(concurrency) = &claim.spec.concurrency else {
            return Ok(());
        };
        let key = &concurrency.key;
        let of_key = |spec: &JobSpec| spec.concurrency.as_ref().is_some_and(|of| of.key == *key);
        let held = self.live.values().filter(|(_, spec)| of_key(spec)).count();
        let limit = self.limits.get(key).copied().unwrap_or(0);
        if held > limit as usize {
            return Err(format!(
                "{held} jobs of key {key:?} are held, limit {limit}"
            ));
        }
        Ok(())
    }
}

fn held_by(change: &Change) -> Option<(&JobId, FencingToken)> {
    match change {
        Change::Start { job, token }
        | Change::Renew { job, token }
        | Change::Log { job, token, .. }
        | Change::Finish { job, token, .. }
        | Change::Append { job, token, .. }
        | Change::Park { job, token, .. }
        | Change::Expire { job, token, .. } => Some((job, *token)),
        _ => None,
    }
}
