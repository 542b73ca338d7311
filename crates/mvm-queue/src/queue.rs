//! The pure core: a queue in memory, to which commands are applied one after another.
//!
//! It is the definition of what the queue does; [`crate::sql`] does the same to a database, and a test runs both side by
//! side. So it is written to be read: where SQL keeps an index, this looks at all jobs. Reading is in
//! [`crate::answer`], changes of jobs that are in the queue are in the sub-modules.

mod flow;
mod housekeeping;
mod lease;
mod submit;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    command::{Change, Command},
    effect::Effect,
    id::{FencingToken, JobId, RequestId, UnixMillis},
    job::{Attempt, Job, JobState, WaitsFor},
    limits::{REQUESTS_KEPT, SLOTS_MAX, steps_of},
    query::{LogChunk, Module, StoredSchedule},
    refusal::Refusal,
};

use self::flow::Uploads;
pub(crate) use self::{flow::Workflow, lease::is_ready_for};

/// What becomes of a command.
pub type Outcome = Result<Effect, Refusal>;

/// The queue.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// By place in the queue, which is the order of commitment.
    pub(crate) jobs: BTreeMap<i64, Entry>,
    ids: HashMap<JobId, i64>,
    /// Grows for ever, also over removed jobs.
    last_seq: i64,
    /// Limits of the keys that unfinished jobs have.
    limits: BTreeMap<String, u32>,
    /// Pairs (what is waited for, who waits) that have not been settled.
    edges: BTreeSet<(i64, i64)>,
    /// Ended jobs that others wait for.
    pub(crate) settling: BTreeSet<i64>,
    pub(crate) schedules: BTreeMap<String, StoredSchedule>,
    /// How many frames are left of the journals of removed jobs.
    leftovers: BTreeMap<i64, usize>,
    pub(crate) uploads: Uploads,
    /// By name and then in the order of deployment.
    pub(crate) modules: BTreeMap<(String, usize), Module>,
    requests: HashMap<RequestId, (i64, String, Outcome)>,
    request_order: BTreeMap<i64, RequestId>,
    #[cfg(test)]
    pub(crate) bug: Option<crate::tests::Bug>,
}

/// A job with all that belongs to it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) job: Job,
    pub(crate) spec_digest: String,
    pub(crate) attempts: BTreeMap<FencingToken, Attempt>,
    pub(crate) logs: BTreeMap<FencingToken, Vec<LogChunk>>,
    /// What only a workflow has.
    pub(crate) workflow: Workflow,
}

impl Queue {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies a command, as every replica does. A request that was applied before has no second effect.
    pub fn apply(&mut self, command: &Command) -> Outcome {
        if !matches!(command.change, Change::All { .. }) {
            return self.apply_one(command);
        }
        let mut outcomes = Vec::new();
        for part in command.parts() {
            outcomes.push(self.apply_one(&part));
            if outcomes.last().is_some_and(Result::is_err) {
                break;
            }
        }
        Ok(Effect::All { outcomes })
    }

    fn apply_one(&mut self, command: &Command) -> Outcome {
        let digest = command.change.digest();
        if let Some((_, known, outcome)) = self.requests.get(&command.request)
            && !self.forgets_requests()
        {
            return if *known == digest {
                self.repeated(outcome.clone())
            } else {
                Err(Refusal::KeyReused)
            };
        }
        let seq = self.next_request();
        let outcome = self.change(command);
        self.request_order.insert(seq, command.request.clone());
        self.requests
            .insert(command.request.clone(), (seq, digest, outcome.clone()));
        if let Some(forgotten) = self.request_order.remove(&(seq - REQUESTS_KEPT)) {
            self.requests.remove(&forgotten);
        }
        outcome
    }

    /// An answer is put together anew, so what was claimed and has been removed since is not in it.
    fn repeated(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Ok(Effect::Claimed { claims }) => Ok(Effect::Claimed {
                claims: claims
                    .into_iter()
                    .filter(|claim| self.ids.contains_key(&claim.job))
                    .collect(),
            }),
            other => other,
        }
    }

    fn change(&mut self, command: &Command) -> Outcome {
        let at = command.at;
        match &command.change {
            Change::Submit {
                job,
                submitted_on,
                spec,
                tick,
            } => self.submit(job, *submitted_on, spec, tick.as_ref(), at),
            Change::Claim {
                node,
                worker,
                slots,
                labels,
                kinds,
            } => Ok(self.claim(
                *node,
                worker,
                (*slots).clamp(1, SLOTS_MAX),
                labels,
                kinds,
                at,
            )),
            Change::Start { job, token } => self.start(job, *token, at),
            Change::Renew { job, token } => self.renew(job, *token),
            Change::Log {
                job,
                token,
                number,
                stream,
                bytes,
            } => self.log(job, *token, *number, *stream, bytes, at),
            Change::Finish { job, token, report } => self.finish(job, *token, report, at),
            Change::Expire { job, token, cause } => self.expire(job, *token, *cause, at),
            Change::Cancel { job, reason } => self.cancel(job, reason.as_deref(), at),
            Change::Retry { job, keep_frames } => self.retry(job, *keep_frames, at),
            Change::Pause { job, reason } => self.pause(job, reason.as_deref(), at),
            Change::Resume { job } => self.resume(job, at),
            Change::Ready { job, token } => self.ready(job, *token, at),
            Change::Due { now_ms, steps } => Ok(self.due(*now_ms, steps_of(*steps), at)),
            Change::Settle { steps } => Ok(self.settle(steps_of(*steps), at)),
            Change::SetSchedule {
                name,
                cron,
                missed,
                spec,
                next_ms,
            } => self.set_schedule(StoredSchedule {
                name: name.clone(),
                revision: self.next_request(),
                cron: cron.clone(),
                missed: *missed,
                spec: (**spec).clone(),
                next_ms: *next_ms,
            }),
            Change::SkipTick { tick } => self.skip_tick(tick),
            Change::RemoveSchedule { name } => self.remove_schedule(name),
            Change::Prune {
                keep,
                before_ms,
                chunks_before_ms,
                steps,
            } => Ok(self.prune(*keep, *before_ms, *chunks_before_ms, steps_of(*steps))),
            Change::Append {
                job,
                token,
                first,
                frames,
                consumed,
                response,
            } => self.append(job, *token, *first, frames, consumed, *response),
            Change::Send { job, kind, data } => self.send(job, kind, data, at),
            Change::Park {
                job,
                token,
                until_ms,
                seen,
                reason,
            } => self.park(job, *token, *until_ms, *seen, reason.as_deref(), at),
            // Its parts are applied one by one.
            Change::All { .. } => Ok(Effect::All {
                outcomes: Vec::new(),
            }),
            Change::PutChunk {
                hash,
                number,
                bytes,
            } => Ok(self.put_chunk(hash, *number, bytes, at)),
            Change::Deploy {
                name,
                version,
                hash,
                bytes,
                chunks,
            } => self.deploy(Module {
                name: name.clone(),
                version: version.clone(),
                hash: hash.clone(),
                bytes: *bytes,
                chunks: *chunks,
                deployed_at_ms: at,
            }),
        }
    }

    fn next_request(&self) -> i64 {
        self.request_order
            .last_key_value()
            .map_or(1, |(seq, _)| seq + 1)
    }

    pub(crate) fn entry(&self, id: &JobId) -> Option<&Entry> {
        self.jobs.get(self.ids.get(id)?)
    }

    fn seq(&self, id: &JobId) -> Result<i64, Refusal> {
        let unknown = || Refusal::UnknownJob { job: id.clone() };
        self.ids.get(id).copied().ok_or_else(unknown)
    }

    /// The entry at a place that is known to be taken.
    #[allow(clippy::expect_used)]
    fn at(&mut self, seq: i64) -> &mut Entry {
        self.jobs.get_mut(&seq).expect("a place that was looked up")
    }

    /// Moves a job, and everything that follows from where jobs stand.
    fn set(&mut self, seq: i64, state: JobState, waits_for: Option<WaitsFor>, at: UnixMillis) {
        let job = &mut self.at(seq).job;
        job.state = state;
        job.waits_for = waits_for;
        job.updated_at_ms = at;
        job.finished_at_ms = state.is_finished().then_some(at);
        if state.is_finished() {
            job.paused = None;
        }
        let key = job.spec.concurrency.as_ref().map(|key| key.key.clone());
        if state.is_finished() && self.has_dependents(seq) {
            self.settling.insert(seq);
        }
        if let Some(key) = key {
            self.admit(&key);
        }
    }

    fn has_dependents(&self, seq: i64) -> bool {
        self.edges
            .range((seq, i64::MIN)..=(seq, i64::MAX))
            .next()
            .is_some()
    }

    /// Lets the first jobs of a key into the ready queue, as many as the key has room for, and no others.
    ///
    /// The first ones of each pair of kind and label set: so a job that no worker can take keeps back none that some
    /// worker could.
    fn admit(&mut self, key: &str) {
        let of_key = |entry: &&Entry| {
            let concurrency = entry.job.spec.concurrency.as_ref();
            concurrency.is_some_and(|concurrency| concurrency.key == key)
        };
        let jobs = || self.jobs.values().filter(of_key).map(|entry| &entry.job);
        if jobs().all(|job| job.state.is_finished()) {
            self.limits.remove(key);
            return;
        }
        let held = jobs().filter(|job| job.state.is_held()).count();
        let limit = self.limits.get(key).copied().unwrap_or(0) as usize;
        let room = limit.saturating_sub(held);
        let mut lanes: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (seq, entry) in &self.jobs {
            let eligible = matches!(
                entry.job.waits_for,
                Some(WaitsFor::Concurrency | WaitsFor::Worker)
            );
            if of_key(&entry) && eligible {
                let spec = &entry.job.spec;
                lanes
                    .entry((spec.kind.clone(), spec.labels.clone()))
                    .or_default()
                    .push((-i64::from(spec.priority), *seq));
            }
        }
        let ignored = self.ignores_keys();
        for mut lane in lanes.into_values() {
            lane.sort_unstable();
            for (place, (_, seq)) in lane.into_iter().enumerate() {
                let waits_for = if place < room || ignored {
                    WaitsFor::Worker
                } else {
                    WaitsFor::Concurrency
                };
                self.at(seq).job.waits_for = Some(waits_for);
            }
        }
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    const fn forgets_requests(&self) -> bool {
        false
    }
    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    const fn ignores_keys(&self) -> bool {
        false
    }
    #[cfg(test)]
    fn forgets_requests(&self) -> bool {
        self.bug == Some(crate::tests::Bug::ForgetsRequests)
    }
    #[cfg(test)]
    fn ignores_keys(&self) -> bool {
        self.bug == Some(crate::tests::Bug::IgnoresKeys)
    }
}
