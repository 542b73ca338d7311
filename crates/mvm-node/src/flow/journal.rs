//! The engine's journal in the replicated store.

mod asking;
mod claiming;
mod early;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use mvm_flow::{
    hub::Hub,
    id::{Epoch, ExecutionId, ModuleHash},
    journal::{
        self, Append, Claim, INBOX_MAX, Journal, Message, Order, Outcome, Page, Refused, Shown,
        Start, Wait, Watch,
    },
    limits::{Limits, Room},
    module::Description,
};
use mvm_queue::{
    Answer, CHUNK_BYTES_MAX, Change, Cursor, Effect, FLOW_KIND, FRAMES_BYTES_MAX, FencingToken,
    Filter, JobId, JobState, PAGE_MAX, Query, Refusal, Report, RequestId,
};
use serde_json::Value;
use tokio::sync::Notify;

use self::early::Early;
use super::{
    FlowConfig,
    free::{Free, Given},
    leases::Leases,
    payload::Payload,
    words,
};
use crate::{
    consensus::{Barrier, Proposal},
    id::IdMaker,
    store::Store,
    worker::Control,
};

/// The shortest time between two looks at the replica, for work and for news.
const LOOK: Duration = Duration::from_millis(20);
/// The same, for those who watch what another node does.
const NEWS: Duration = Duration::from_millis(100);
/// The pause after a change that was not decided.
const RETRY: Duration = Duration::from_millis(200);
/// How often a client's change of unknown outcome is asked for again.
const REPEATS: usize = 3;
/// Changes asked for side by side.
const ABREAST: usize = 64;
/// Pages of jobs that are looked through for executions.
const PAGES_MAX: usize = 20;

/// A journal in the replicated store.
#[derive(Debug)]
pub(crate) struct FlowJournal<S> {
    store: Arc<S>,
    node: u64,
    labels: BTreeSet<String>,
    lease: Duration,
    limits: Limits,
    /// Says whether this node takes work.
    control: Arc<Control>,
    ids: IdMaker,
    hub: Hub,
    leases: Leases,
    free: Free,
    early: Early,
    /// Something of this node's may be ready.
    ready: Notify,
}

impl<S: Store> FlowJournal<S> {
    pub(super) fn new(store: Arc<S>, config: &FlowConfig, control: Arc<Control>) -> Self {
        let node = config.node;
        Self {
            store,
            node,
            labels: config.labels.clone(),
            lease: config.lease,
            limits: config.limits.clone(),
            control,
            ids: IdMaker::new(u16::try_from(node).unwrap_or(u16::MAX)),
            hub: Hub::default(),
            leases: Leases::default(),
            free: Free::default(),
            early: Early::default(),
            ready: Notify::new(),
        }
    }

    /// Renews leases, and tells those who watch of what other nodes do. Runs until dropped.
    pub(crate) async fn keep(&self) -> ((), ()) {
        let renewing = async {
            let mut renew = tokio::time::interval(self.lease / 3);
            loop {
                renew.tick().await;
                self.renew().await;
            }
        };
        let telling = async {
            let mut seen = 0;
            loop {
                seen = self.store.applied(seen).await;
                self.hub.touch_all();
                tokio::time::sleep(NEWS).await;
            }
        };
        tokio::join!(renewing, telling)
    }

    async fn renew(&self) {
        let mut held = self.leases.renewing();
        held.retain(|(id, _)| !self.early.has(*id));
        let renewals = stream::iter(held).map(async |(id, lease)| {
            let name = format!("{}-{}-renew-{}", lease.job, lease.token, lease.renewals);
            let change = Change::Renew {
                job: lease.job.clone(),
                token: lease.token,
            };
            match self.propose(&RequestId(name), change).await {
                Proposal::Committed {
                    effect: Effect::Renewed { cancel: true, .. },
                } => {
                    let reason = self.job(id).await.ok().and_then(|shown| shown.reason);
                    self.hub
                        .order(id, Some(Order::Cancel(reason.unwrap_or_default())));
                    self.hub.touch(id);
                }
                Proposal::Committed {
                    effect: Effect::Renewed { pause: true, .. },
                } => {
                    self.hub.order(id, Some(Order::Pause));
                    self.hub.touch(id);
                }
                Proposal::Rejected { .. } => {
                    self.leases.drop(id, lease.run);
                    self.hub.touch(id);
                }
                // The next one may get through; if not, whoever takes the job fences this node off.
                _ => {}
            }
        });
        renewals.buffer_unordered(ABREAST).collect::<()>().await;
    }

    /// Appends, and does one thing more, in one entry of the log.
    async fn write(
        &self,
        claim: &Claim,
        what: &str,
        append: Option<Append>,
        end: Option<Change>,
    ) -> Result<(), Refused> {
        let append = append.filter(|append| {
            let Append {
                frames, consumed, ..
            } = append;
            !frames.is_empty() || !consumed.is_empty()
        });
        let (job, token) = (job_id(claim.id), token(claim.epoch));
        let mut changes = Vec::new();
        if let Some(append) = append {
            // The first owner's mark in the journal is the beginning of the work.
            if !self.leases.is_started(claim.id) {
                changes.push(Change::Start {
                    job: job.clone(),
                    token,
                });
            }
            changes.push(Change::Append {
                job,
                token,
                first: append.first,
                frames: append.frames,
                consumed: append.consumed,
                response: append.response,
            });
        }
        changes.extend(end);
        if changes.is_empty() {
            return Ok(());
        }
        match self.write_early(claim, what, &changes).await {
            Some(written) => written?,
            None if !self.leases.holds(claim.id, claim.run) => {
                return Err(Refused::Lost { id: claim.id });
            }
            None => self.insist(claim, what, changes).await?,
        }
        self.leases.started(claim.id);
        Ok(())
    }

    /// The owner is none any more.
    fn let_go(&self, claim: &Claim) {
        self.leases.drop(claim.id, claim.run);
        self.hub.order(claim.id, None);
        self.hub.touch(claim.id);
        self.ready.notify_one();
    }
}

impl<S: Store> Journal for FlowJournal<S> {
    async fn deploy(&self, module: &Description, bytes: Arc<[u8]>) -> Result<(), Refused> {
        let invalid = |refusal: Refusal| match refusal {
            Refusal::VersionTaken { name, version } => Refused::VersionTaken {
                name,
                version,
                deployed: "another".into(),
                given: module.hash.0.clone(),
            },
            other => Refused::Invalid {
                why: other.to_string(),
            },
        };
        let chunks: Vec<_> = bytes.chunks(CHUNK_BYTES_MAX).map(<[u8]>::to_vec).collect();
        let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        let puts = (0..).zip(chunks).map(|(number, bytes)| {
            self.ask(Change::PutChunk {
                hash: module.hash.0.clone(),
                number,
                bytes,
            })
        });
        let mut puts = stream::iter(puts).buffer_unordered(8);
        while let Some(put) = puts.next().await {
            put?.map_err(invalid)?;
        }
        let deploy = Change::Deploy {
            name: module.name.clone(),
            version: module.version.clone(),
            hash: module.hash.0.clone(),
            bytes: bytes.len() as u64,
            chunks: count,
        };
        self.ask(deploy).await?.map(drop).map_err(invalid)
    }

    async fn modules(&self) -> Result<Vec<journal::Module>, Refused> {
        match self.read(Barrier::Linearizable, Query::Modules).await? {
            Answer::Modules { modules } => Ok(modules.into_iter().map(words::module).collect()),
            other => Err(mismatch(&other)),
        }
    }

    async fn module_bytes(&self, hash: &ModuleHash) -> Result<Vec<u8>, Refused> {
        // The replica may not have it yet.
        for barrier in [Barrier::Local, Barrier::Linearizable] {
            let modules = match self.read(barrier, Query::Modules).await? {
                Answer::Modules { modules } => modules,
                other => return Err(mismatch(&other)),
            };
            let Some(module) = modules.into_iter().find(|module| module.hash == hash.0) else {
                continue;
            };
            let mut bytes = Vec::new();
            for number in 0..module.chunks {
                let query = Query::Chunk {
                    hash: hash.0.clone(),
                    number,
                };
                if let Answer::Chunk { chunk: Some(chunk) } = self.read(barrier, query).await? {
                    bytes.extend(chunk.bytes());
                }
            }
            if ModuleHash::of(&bytes) == *hash {
                return Ok(bytes);
            }
        }
        Err(Refused::UnknownModule(hash.clone()))
    }

    async fn start(&self, start: Start) -> Result<(), Refused> {
        let payload = Payload {
            module: start.module.clone(),
            version: Some(start.version.clone()),
            hash: Some(start.hash.clone()),
            workflow: start.workflow.clone(),
            input: Value::Null,
            input_text: Some(start.input.clone()),
            parent: start.parent,
        };
        let mut spec = payload.job(&self.limits);
        // A child is started once, however often its parent comes to that point.
        spec.idempotency_key = Some(start.id.to_string());
        spec.validate().map_err(|invalid| Refused::Invalid {
            why: invalid.to_string(),
        })?;
        let submit = Change::Submit {
            job: job_id(start.id),
            submitted_on: self.node,
            spec: Box::new(spec),
            tick: None,
        };
        let id = start.id;
        if !self.free.reserve(&self.control) {
            let started = self.ask(submit).await?;
            self.ready.notify_one();
            return started
                .map(drop)
                .map_err(|refusal| words::refused(id, refusal));
        }
        match start.parent {
            None if !self.free.is_queued() => self.start_early(start, submit).await,
            // A child may have been started before, and others may have it.
            _ => self.start_claimed(id, submit).await,
        }
    }

    async fn show(&self, id: ExecutionId) -> Result<Shown, Refused> {
        match self.shown_by(Barrier::Local, id).await {
            Err(Refused::UnknownExecution(_)) => self.job(id).await,
            shown => shown,
        }
    }

    async fn list(&self, page: Page) -> Result<Vec<Shown>, Refused> {
        let mut found = Vec::new();
        let mut after: Option<Cursor> = None;
        let mut skipping = page.before;
        for _ in 0..PAGES_MAX {
            let query = Query::List {
                after,
                limit: PAGE_MAX,
                order: mvm_queue::Order::NewestFirst,
                filter: Filter::default(),
            };
            let (jobs, next) = match self.read(Barrier::Linearizable, query).await? {
                Answer::Jobs { jobs, next, .. } => (jobs, next),
                other => return Err(mismatch(&other)),
            };
            for job in jobs.iter().filter(|job| job.spec.kind == FLOW_KIND) {
                let Some(shown) = words::shown(job, None) else {
                    continue;
                };
                if let Some(before) = skipping {
                    if before == shown.id {
                        skipping = None;
                    }
                    continue;
                }
                let fits = page.state.is_none_or(|state| shown.state == state)
                    && page
                        .module
                        .as_ref()
                        .is_none_or(|module| shown.module == *module);
                if fits {
                    found.push(shown);
                }
                if found.len() >= page.limit {
                    return Ok(found);
                }
            }
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        Ok(found)
    }

    async fn frames(&self, id: ExecutionId, from: u64) -> Result<Vec<Vec<u8>>, Refused> {
        let query = Query::Frames {
            job: job_id(id),
            from,
            bytes_max: FRAMES_BYTES_MAX,
        };
        match self.read(Barrier::Linearizable, query).await? {
            Answer::Frames { frames } => {
                Ok(frames.into_iter().map(|frame| frame.hex.bytes()).collect())
            }
            other => Err(mismatch(&other)),
        }
    }

    async fn send(&self, id: ExecutionId, kind: String, data: String) -> Result<(), Refused> {
        let invalid = |why: String| Refused::Invalid { why };
        let data: Value =
            serde_json::from_str(&data).map_err(|error| invalid(error.to_string()))?;
        mvm_queue::validate_message(&kind, &data).map_err(|error| invalid(error.to_string()))?;
        let change = Change::Send {
            job: job_id(id),
            kind,
            data,
        };
        self.ask_about(id, change).await.map(drop)
    }

    async fn cancel(&self, id: ExecutionId, reason: String) -> Result<(), Refused> {
        mvm_queue::validate_reason(&reason).map_err(|error| Refused::Invalid {
            why: error.to_string(),
        })?;
        let change = Change::Cancel {
            job: job_id(id),
            reason: Some(reason.clone()),
        };
        self.ask_about(id, change).await?;
        if self.leases.is_here(id) {
            self.hub.order(id, Some(Order::Cancel(reason)));
            self.hub.touch(id);
        }
        Ok(())
    }

    async fn pause(&self, id: ExecutionId) -> Result<(), Refused> {
        let change = Change::Pause {
            job: job_id(id),
            reason: None,
        };
        self.ask_about(id, change).await?;
        if self.leases.is_here(id) {
            self.hub.order(id, Some(Order::Pause));
            self.hub.touch(id);
        }
        Ok(())
    }

    async fn resume(&self, id: ExecutionId) -> Result<(), Refused> {
        self.ask_about(id, Change::Resume { job: job_id(id) })
            .await?;
        self.hub.order(id, None);
        Ok(())
    }

    async fn retry(&self, id: ExecutionId, keep_frames: u64) -> Result<(), Refused> {
        let change = Change::Retry {
            job: job_id(id),
            keep_frames: keep_frames.try_into().ok(),
        };
        match self.ask(change).await? {
            Ok(_) => {
                self.hub.touch(id);
                self.ready.notify_one();
                Ok(())
            }
            Err(Refusal::IllegalTransition {
                from: JobState::Cancelled,
                ..
            }) => Err(Refused::Invalid {
                why: format!("workflow {id} was cancelled; start it again"),
            }),
            Err(Refusal::IllegalTransition { .. }) => {
                let state = self.job(id).await?.state;
                Err(Refused::CannotRetry { id, state })
            }
            Err(refusal) => Err(words::refused(id, refusal)),
        }
    }

    fn watch(&self, id: ExecutionId) -> Watch {
        self.hub.watch(id)
    }

    fn is_held_here(&self, id: ExecutionId) -> bool {
        self.leases.is_here(id)
    }

    /// The queue sees to it that no more of a module run than may, on all nodes together.
    async fn claim(&self, slots: usize, _room: &Arc<Room>) -> Result<Vec<Claim>, Refused> {
        self.free.offer(slots);
        loop {
            self.control.takes_jobs().await;
            let looked = Instant::now();
            let Given { claimed, early } = self.free.handed_over();
            if !claimed.is_empty() || !early.is_empty() {
                let claimed = self.begin_all(claimed).await;
                return Ok(early.into_iter().chain(claimed).collect());
            }
            let (ready, seen) = self.is_ready().await;
            self.free.set_queued(ready);
            if ready {
                let free = self.free.take();
                let claims = match free {
                    0 => Vec::new(),
                    free => self.take(free).await?,
                };
                if !claims.is_empty() {
                    return Ok(claims);
                }
                self.free.offer(free);
            }
            let news = async {
                self.store.applied(seen).await;
                tokio::time::sleep_until((looked + LOOK).into()).await;
            };
            tokio::select! {
                () = news => {}
                () = self.ready.notified() => {}
            }
        }
    }

    async fn append(&self, claim: &Claim, append: Append) -> Result<(), Refused> {
        let what = format!("append-{}", append.first);
        self.write(claim, &what, Some(append), None).await
    }

    async fn inbox(&self, id: ExecutionId, beyond: u64) -> Result<Vec<Message>, Refused> {
        // The replica may still have what an owner before received. What comes later is new on every replica.
        let barrier = match beyond {
            0 => Barrier::Linearizable,
            _ => Barrier::Local,
        };
        let query = Query::Inbox {
            job: job_id(id),
            beyond,
            limit: u32::try_from(INBOX_MAX).unwrap_or(u32::MAX),
        };
        let messages = match self.read(barrier, query).await? {
            Answer::Inbox { messages } => messages,
            other => return Err(mismatch(&other)),
        };
        let message = |message: mvm_queue::Message| Message {
            number: message.number,
            kind: message.kind,
            data: message.data.to_string(),
        };
        Ok(messages.into_iter().map(message).collect())
    }

    async fn order(&self, claim: &Claim) -> Result<Order, Refused> {
        if !self.leases.holds(claim.id, claim.run) {
            return Err(Refused::Lost { id: claim.id });
        }
        Ok(self.hub.ordered(claim.id))
    }

    async fn park(&self, claim: &Claim, append: Append, wait: Wait) -> Result<(), Refused> {
        let change = Change::Park {
            job: job_id(claim.id),
            token: token(claim.epoch),
            until_ms: wait.until.map(|until| mvm_queue::UnixMillis(until.0)),
            seen: wait.message_beyond,
            reason: wait.lacks,
        };
        self.write(claim, "park", Some(append), Some(change))
            .await?;
        self.let_go(claim);
        Ok(())
    }

    async fn finish(
        &self,
        claim: &Claim,
        append: Option<Append>,
        outcome: Outcome,
    ) -> Result<(), Refused> {
        let report = match outcome {
            Outcome::Completed => Report::Succeeded {
                result: Value::Null,
            },
            Outcome::Failed { reason } => Report::failed(&reason, true),
            Outcome::Cancelled { .. } => Report::Cancelled,
        };
        let change = Change::Finish {
            job: job_id(claim.id),
            token: token(claim.epoch),
            report,
        };
        self.write(claim, "finish", append, Some(change)).await?;
        self.let_go(claim);
        Ok(())
    }
}

fn job_id(id: ExecutionId) -> JobId {
    JobId(id.to_string())
}

fn token(epoch: Epoch) -> FencingToken {
    FencingToken(i64::try_from(epoch.0).unwrap_or(i64::MAX))
}

/// Several changes as one; nothing if there are none.
fn one(mut changes: Vec<Change>) -> Option<Change> {
    match changes.len() {
        0 | 1 => changes.pop(),
        _ => Some(Change::All { changes }),
    }
}

fn kinds() -> BTreeSet<String> {
    [FLOW_KIND.to_owned()].into()
}

/// The store answered something else than it was asked: a defect.
fn mismatch(answer: &impl std::fmt::Debug) -> Refused {
    Refused::Broken {
        why: format!("the store answered {answer:?}"),
    }
}

#[cfg(test)]
mod tests;
