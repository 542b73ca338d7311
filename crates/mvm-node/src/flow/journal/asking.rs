//! How the store is asked: for an owner's changes until they are decided, for a client's a few times, and for what is there.

use mvm_flow::{
    id::ExecutionId,
    journal::{Claim, Refused, Shown},
};
use mvm_queue::{Answer, Change, Command, Effect, Query, Refusal, RequestId};

use super::{FlowJournal, REPEATS, RETRY, job_id, mismatch, one};
use crate::{
    consensus::{Barrier, Proposal, Reading},
    flow::words,
    id,
    store::{Deadline, Store},
};

impl<S: Store> FlowJournal<S> {
    pub(super) async fn propose(&self, request: &RequestId, change: Change) -> Proposal {
        let command = Command {
            request: request.clone(),
            at: id::now(),
            change,
        };
        let proposing = self.store.propose(command, Deadline::starting_now());
        self.store.metrics().store.proposal(proposing).await
    }

    /// Asks for an owner's changes until they are decided.
    pub(super) async fn insist(
        &self,
        claim: &Claim,
        what: &str,
        changes: Vec<Change>,
    ) -> Result<(), Refused> {
        let request = RequestId(format!("{}-{}-{what}", claim.id, claim.epoch.0));
        let Some(change) = one(changes) else {
            return Ok(());
        };
        loop {
            match parted(self.propose(&request, change.clone()).await) {
                Proposal::Committed { .. } => return Ok(()),
                Proposal::Rejected { refusal } => {
                    let refused = words::refused(claim.id, refusal);
                    if matches!(refused, Refused::Lost { .. }) {
                        self.leases.drop(claim.id, claim.run);
                    }
                    return Err(refused);
                }
                Proposal::Broken { detail } => return Err(Refused::Broken { why: detail }),
                Proposal::Unknown | Proposal::Unavailable { .. } => {
                    if !self.leases.holds(claim.id, claim.run) {
                        return Err(Refused::Lost { id: claim.id });
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Asks for a client's change, a few times if nobody knows what became of it.
    pub(super) async fn ask(&self, change: Change) -> Result<Result<Effect, Refusal>, Refused> {
        let request = RequestId(self.ids.request(id::now()));
        self.ask_as(&request, change).await
    }

    /// The same, as a request of that name.
    pub(super) async fn ask_as(
        &self,
        request: &RequestId,
        change: Change,
    ) -> Result<Result<Effect, Refusal>, Refused> {
        let mut unknown = 0;
        loop {
            match self.propose(request, change.clone()).await {
                Proposal::Committed { effect } => return Ok(Ok(effect)),
                Proposal::Rejected { refusal } => return Ok(Err(refusal)),
                Proposal::Broken { detail } => return Err(Refused::Broken { why: detail }),
                Proposal::Unavailable { cause } if unknown == 0 => {
                    return Err(Refused::Unavailable {
                        why: cause.to_string(),
                    });
                }
                Proposal::Unavailable { .. } | Proposal::Unknown if unknown >= REPEATS => {
                    return Err(Refused::Unknown {
                        why: "the cluster did not answer".into(),
                    });
                }
                Proposal::Unavailable { .. } | Proposal::Unknown => {
                    unknown += 1;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// The same, about an execution.
    pub(super) async fn ask_about(
        &self,
        id: ExecutionId,
        change: Change,
    ) -> Result<Effect, Refused> {
        let answered = self.ask(change).await?;
        self.hub.touch(id);
        self.ready.notify_one();
        answered.map_err(|refusal| words::refused(id, refusal))
    }

    pub(super) async fn read(&self, barrier: Barrier, query: Query) -> Result<Answer, Refused> {
        match self
            .store
            .read(barrier, query, Deadline::starting_now())
            .await
        {
            Reading::Done { answer, .. } => Ok(answer),
            Reading::Unavailable { cause } => Err(Refused::Unavailable {
                why: cause.to_string(),
            }),
            Reading::Broken { detail } => Err(Refused::Broken { why: detail }),
        }
    }

    /// An execution, as the cluster knows it.
    pub(super) async fn job(&self, id: ExecutionId) -> Result<Shown, Refused> {
        self.shown_by(Barrier::Linearizable, id).await
    }

    pub(super) async fn shown_by(
        &self,
        barrier: Barrier,
        id: ExecutionId,
    ) -> Result<Shown, Refused> {
        let job = job_id(id);
        let unknown = || Refused::UnknownExecution(id);
        let found = match self.read(barrier, Query::Job { job: job.clone() }).await? {
            Answer::Job { job, .. } => job.ok_or_else(unknown)?,
            other => return Err(mismatch(&other)),
        };
        match self.read(barrier, Query::Execution { job }).await? {
            Answer::Execution { execution } => {
                words::shown(&found, execution.as_ref()).ok_or_else(unknown)
            }
            other => Err(mismatch(&other)),
        }
    }
}

/// What became of several changes: they were refused if one of them was.
fn parted(proposal: Proposal) -> Proposal {
    let Proposal::Committed {
        effect: Effect::All { outcomes },
    } = &proposal
    else {
        return proposal;
    };
    let refusal = outcomes.iter().find_map(|outcome| outcome.as_ref().err());
    match refusal.cloned() {
        Some(refusal) => Proposal::Rejected { refusal },
        None => proposal,
    }
}
