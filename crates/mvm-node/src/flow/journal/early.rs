//! Workflows that run before the cluster knows of them.
//!
//! ```text
//!   start ──▶ the engine, at once ──▶ guest ──▶ first write ─┐
//!      └── waits a moment for that ───────────────────────────┴─▶ one entry: submit, claim, begin, append, ...
//! ```
//!
//! Where there is room, what is started here runs at once, and its submission goes with the first thing that it writes. It
//! does nothing that others see before it writes, so it is as if it had been run after it was claimed. If the claim comes to
//! something else (a job that has waited longer), or nobody knows whether the entry is in the log, the run is lost: it leaves
//! no trace, and whoever claims the workflow runs it from its beginning. It has the token of the first claim before there is
//! one, and the next run will have the same; so it writes nothing by itself before its submission is decided, and never when
//! it is lost.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mvm_flow::{
    id::{Epoch, ExecutionId},
    journal::{Claim, Refused, Start},
};
use mvm_queue::{Change, Effect, FencingToken, RequestId};
use tokio::sync::{Notify, OnceCell};

use super::{FlowJournal, job_id};
use crate::{flow::words, id, store::Store};

/// How long a submission waits for the first thing that its workflow writes.
const MOMENT: Duration = Duration::from_millis(20);
/// The token of a job's first claim.
const FIRST: FencingToken = FencingToken(1);

/// Submissions that are not decided.
#[derive(Debug, Default)]
pub(super) struct Early(Mutex<HashMap<ExecutionId, Arc<Submission>>>);

#[derive(Debug)]
struct Submission {
    submit: Change,
    /// The run that began early.
    run: u64,
    /// What became of it.
    decided: OnceCell<Result<(), Refused>>,
    news: Notify,
}

impl Early {
    fn of(&self, id: ExecutionId) -> Option<Arc<Submission>> {
        self.lock().get(&id).cloned()
    }

    /// Whether the cluster may not know of this one yet.
    pub(super) fn has(&self, id: ExecutionId) -> bool {
        self.lock().contains_key(&id)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ExecutionId, Arc<Submission>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A starter that waits. If it goes away before its submission is decided, as when a client hangs up, the run is lost.
struct Starter<'a, S: Store> {
    journal: &'a FlowJournal<S>,
    id: ExecutionId,
    submission: Arc<Submission>,
}

impl<S: Store> Drop for Starter<'_, S> {
    fn drop(&mut self) {
        if !self.submission.decided.initialized() {
            if self.journal.free.withdraw(self.id) {
                self.journal.free.give_back();
            }
            self.journal.lose(self.id, self.submission.run);
        }
        self.journal.early.lock().remove(&self.id);
    }
}

impl<S: Store> FlowJournal<S> {
    /// Starts a workflow of which nobody has heard before, in a slot that is reserved for it.
    pub(super) async fn start_early(&self, start: Start, submit: Change) -> Result<(), Refused> {
        let id = start.id;
        let submission = Arc::new(Submission {
            submit,
            run: self.leases.hold(id, job_id(id), FIRST),
            decided: OnceCell::new(),
            news: Notify::new(),
        });
        let starter = Starter {
            journal: self,
            id,
            submission: Arc::clone(&submission),
        };
        self.early.lock().insert(id, Arc::clone(&submission));
        self.free.give_early(Claim {
            id,
            epoch: Epoch(1),
            module: start.module,
            version: start.version,
            hash: start.hash,
            workflow: start.workflow,
            input: start.input,
            frames: 0,
            run: submission.run,
        });
        self.ready.notify_one();
        let _moment = tokio::time::timeout(MOMENT, submission.news.notified()).await;
        let alone = async {
            let submit = submission.submit.clone();
            if self.free.withdraw(id) {
                self.lose(id, submission.run);
                return self.start_claimed(id, submit).await;
            }
            let request = RequestId(self.ids.request(id::now()));
            let changes = vec![submit, self.offer(1)];
            self.decide(id, submission.run, &request, changes)
                .await
                .map(drop)
        };
        let decided = submission.decided.get_or_init(|| alone).await.clone();
        drop(starter);
        decided
    }

    /// Submits a workflow with what its run writes first; nothing, if that is done.
    pub(super) async fn write_early(
        &self,
        claim: &Claim,
        what: &str,
        changes: &[Change],
    ) -> Option<Result<(), Refused>> {
        let submission = self.early.of(claim.id)?;
        let mut written = None;
        let first = async {
            let changes = [submission.submit.clone(), self.offer(1)]
                .into_iter()
                .chain(changes.iter().cloned());
            // Not as an owner's: if this run is lost, another one begins with the same token.
            let request = RequestId(format!("{}-early-{what}", claim.id));
            let decided = self
                .decide(claim.id, claim.run, &request, changes.collect())
                .await;
            let (decided, rest) = match decided {
                Ok(Some(rest)) => (Ok(()), rest),
                Ok(None) => (Ok(()), Err(Refused::Lost { id: claim.id })),
                Err(refused) => (Err(refused), Err(Refused::Lost { id: claim.id })),
            };
            written = Some(rest);
            decided
        };
        submission.decided.get_or_init(|| first).await;
        submission.news.notify_one();
        written
    }

    /// Asks for a submission, and what is to follow it. Returns what became of what followed the claim, if the run that
    /// began early is the job's owner.
    async fn decide(
        &self,
        id: ExecutionId,
        run: u64,
        request: &RequestId,
        changes: Vec<Change>,
    ) -> Result<Option<Result<(), Refused>>, Refused> {
        let (rest, claims) = self
            .submit(id, request, changes)
            .await
            .inspect_err(|_| self.lose(id, run))?;
        let (own, others): (Vec<_>, Vec<_>) = claims
            .into_iter()
            .partition(|claim| claim.job == job_id(id) && claim.token == FIRST);
        self.free.set_queued(own.is_empty());
        self.free.hand_over(others);
        self.ready.notify_one();
        if own.is_empty() {
            self.lose(id, run);
            return Ok(None);
        }
        Ok(Some(rest))
    }

    /// Submits a workflow, and claims something for the slot that is reserved.
    pub(super) async fn start_claimed(
        &self,
        id: ExecutionId,
        submit: Change,
    ) -> Result<(), Refused> {
        let request = RequestId(self.ids.request(id::now()));
        let submitted = self.submit(id, &request, vec![submit, self.offer(1)]).await;
        let claims = submitted.as_ref().map_or(&[][..], |(_, claims)| claims);
        if claims.is_empty() {
            self.free.give_back();
        }
        let (_, claims) = submitted?;
        self.free.hand_over(claims);
        self.ready.notify_one();
        Ok(())
    }

    /// Asks for a submission and what is to follow it. Returns what became of what follows its claim, and what was claimed.
    async fn submit(
        &self,
        id: ExecutionId,
        request: &RequestId,
        changes: Vec<Change>,
    ) -> Result<(Result<(), Refused>, Vec<mvm_queue::Claim>), Refused> {
        let refused = |refusal| words::refused(id, refusal);
        let outcomes = match self.ask_as(request, Change::All { changes }).await? {
            Ok(Effect::All { outcomes }) => outcomes,
            outcome => vec![outcome],
        };
        let mut claimed = Vec::new();
        let mut outcomes = outcomes.into_iter();
        outcomes.next().transpose().map_err(refused)?;
        let mut rest = Ok(());
        for outcome in outcomes {
            match outcome {
                Ok(Effect::Claimed { claims }) => claimed = claims,
                Ok(_) => {}
                Err(refusal) => rest = Err(refused(refusal)),
            }
        }
        Ok((rest, claimed))
    }

    /// The run that began early, or would have, is nobody's.
    fn lose(&self, id: ExecutionId, run: u64) {
        self.leases.drop(id, run);
        self.hub.touch(id);
    }
}
