//! What must hold whatever happens, looked at after each applied command.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    command::{Change, Command, Effect, Report},
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
    ticks: BTreeSet<(String, i64, i64)>,
}

impl Invariants {
    /// Applies a command and says which invariant it breaks.
    pub(super) fn apply(&mut self, queue: &mut Queue, command: &Command) -> Result<Outcome, String> {
        let named = held_by(&command.change).map(|(job, token)| (job.clone(), token));
        let before = named.as_ref().and_then(|(job, _)| queue.job(job).cloned());
        let outcome = queue.apply(command);
        let first = self.seen.insert(command.request.clone());
        if let Some((job, token)) = &named {
            let after = queue.job(job).cloned();
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
            (Change::Submit { spec, tick, .. }, Effect::Submitted { job, existing, .. }) => {
                if let Some(key) = &spec.idempotency_key {
                    let known = self.of_key.entry(key.clone()).or_insert_with(|| job.clone());
                    if known != job && queue.job(known).is_some() {
                        return Err(format!("key {key:?} has two jobs, {known} and {job}"));
                    }
                    known.clone_from(job);
                }
                if let Some(tick) = tick
                    && !existing
                    && !self.ticks.insert((
                        tick.schedule.clone(),
                        tick.revision,
                        tick.tick_ms.0,
                    ))
                {
                    return Err(format!("{tick:?} fired twice"));
                }
            }
            (_, Effect::Claimed { claims }) => {
                for claim in claims {
                    self.claimed(queue, claim)?;
                }
            }
            (
                Change::Finish { job, report, .. },
                Effect::Ended { state, .. },
            ) => {
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
            _ => {}
        }
        self.keys()
    }

    fn claimed(&mut self, queue: &Queue, claim: &crate::command::Claim) -> Result<(), String> {
        let job = &claim.job;
        if let Some((token, _)) = self.live.get(job) {
            return Err(format!("{job} has two leases, {token} and {}", claim.token));
        }
        if self.tokens.get(job).is_some_and(|token| *token >= claim.token) {
            return Err(format!("the token of {job} did not grow: {}", claim.token));
        }
        for on in &claim.spec.dependencies {
            // One that is gone had ended.
            let state = queue.job(on).map_or(JobState::Completed, |on: &Job| on.state);
            let needs = claim.spec.on_dependency_failure == DependencyFailure::Cancel;
            let has_ended = state.is_finished() || self.ended.contains(on);
            if !has_ended || (needs && state != JobState::Completed) {
                return Err(format!("{job} runs while {on}, which it waits for, is {state}"));
            }
        }
        self.tokens.insert(job.clone(), claim.token);
        self.live.insert(job.clone(), (claim.token, claim.spec.clone()));
        Ok(())
    }

    /// A key has as many leases as its most generous holder allows, at most. Limits may differ within a key.
    fn keys(&self) -> Result<(), String> {
        let mut held: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
        for (_, spec) in self.live.values() {
            if let Some(concurrency) = &spec.concurrency {
                let entry = held.entry(&concurrency.key).or_default();
                entry.0 += 1;
                entry.1 = entry.1.max(concurrency.limit);
            }
        }
        match held.iter().find(|(_, (held, limit))| held > limit) {
            Some((key, (held, _))) => Err(format!("{held} jobs of key {key:?} are held")),
            None => Ok(()),
        }
    }
}

fn held_by(change: &Change) -> Option<(&JobId, FencingToken)> {
    match change {
        Change::Start { job, token }
        | Change::Renew { job, token }
        | Change::Log { job, token, .. }
        | Change::Finish { job, token, .. }
        | Change::Expire { job, token, .. } => Some((job, *token)),
        _ => None,
    }
}
