//! How this node comes by its workflows: claims of the queue's, and what the engine needs to run them.

use futures_util::{StreamExt, stream};
use mvm_flow::{
    id::{Epoch, ExecutionId},
    journal::{Claim, Refused},
};
use mvm_queue::{Answer, Change, Effect, FencingToken, JobId, Query, Report};

use super::{ABREAST, FlowJournal, REPEATS, RETRY, kinds, mismatch};
use crate::{
    consensus::{Barrier, Reading},
    flow::payload::Payload,
    store::{Deadline, Store},
};

impl<S: Store> FlowJournal<S> {
    /// Whether this node's replica has a workflow for it, and how far the replica had come.
    pub(super) async fn is_ready(&self) -> (bool, u64) {
        let query = Query::Ready {
            labels: self.labels.clone(),
            kinds: kinds(),
        };
        let reading = self
            .store
            .read(Barrier::Local, query, Deadline::starting_now());
        match reading.await {
            Reading::Done {
                answer: Answer::Ready { count },
                log_index,
            } => (count > 0, log_index),
            // A store that is not open yet has applied nothing.
            _ => (false, 0),
        }
    }

    /// Asks for work.
    pub(super) fn offer(&self, slots: usize) -> Change {
        Change::Claim {
            node: self.node,
            worker: format!("node{}", self.node),
            slots: u32::try_from(slots)
                .unwrap_or(u32::MAX)
                .min(mvm_queue::SLOTS_MAX),
            labels: self.labels.clone(),
            kinds: kinds(),
        }
    }

    /// Takes what is ready; nothing, if that is not possible now.
    pub(super) async fn take(&self, slots: usize) -> Result<Vec<Claim>, Refused> {
        match self.ask(self.offer(slots)).await? {
            Ok(Effect::Claimed { claims }) => Ok(self.begin_all(claims).await),
            Ok(effect) => Err(mismatch(&effect)),
            Err(refusal) => Err(Refused::Invalid {
                why: refusal.to_string(),
            }),
        }
    }

    pub(super) async fn begin_all(&self, claims: Vec<mvm_queue::Claim>) -> Vec<Claim> {
        let began = stream::iter(claims).map(|claim| self.begin(claim));
        let began: Vec<_> = began.buffer_unordered(ABREAST).collect().await;
        began.into_iter().flatten().collect()
    }

    /// Makes a claim of the queue's one of the engine's. One that cannot be is ended.
    pub(super) async fn begin(&self, claim: mvm_queue::Claim) -> Option<Claim> {
        let given_up = async |error: &str| {
            let change = Change::Finish {
                job: claim.job.clone(),
                token: claim.token,
                report: Report::failed(error, true),
            };
            if let Err(refused) = self.ask(change).await {
                tracing::warn!(job = claim.job.0, %refused, "a workflow that cannot be run is not ended");
            }
            None
        };
        let Ok(id) = claim.job.0.parse::<ExecutionId>() else {
            return given_up(
                "a job of kind flow has an id as wkf_0h3k7c9pqrstv, which the node gives it",
            )
            .await;
        };
        let payload = match Payload::of(&claim.spec) {
            Ok(payload) => payload,
            Err(error) => return given_up(&error).await,
        };
        let (Some(version), Some(hash)) = (payload.version.clone(), payload.hash.clone()) else {
            return given_up("it is not pinned to a module; submit it to a node's HTTP interface")
                .await;
        };
        let run = self.leases.hold(id, claim.job.clone(), claim.token);
        self.hub.order(id, None);
        let mut begun = Claim {
            id,
            epoch: Epoch(u64::try_from(claim.token.0).unwrap_or(0)),
            input: payload.input(),
            module: payload.module,
            version,
            hash,
            workflow: payload.workflow,
            frames: 0,
            run,
        };
        // The first owner finds an empty journal.
        let frames = match claim.token {
            FencingToken(1) => Ok(0),
            _ => self.frames_of(claim.job.clone()).await,
        };
        match frames {
            Ok(frames) => {
                begun.frames = frames;
                Some(begun)
            }
            Err(refused) => {
                // Its lease ends, and it is tried again.
                tracing::info!(workflow = %id, %refused, "claimed and not begun");
                self.leases.drop(id, run);
                None
            }
        }
    }

    /// How many frames a journal has, by the cluster's word. This node's replica may not have them all.
    pub(super) async fn frames_of(&self, job: JobId) -> Result<u64, Refused> {
        let mut unavailable = 0;
        loop {
            match self
                .read(Barrier::Linearizable, Query::Execution { job: job.clone() })
                .await
            {
                Ok(Answer::Execution { execution }) => {
                    return Ok(execution.map_or(0, |execution| execution.frames));
                }
                Ok(other) => return Err(mismatch(&other)),
                Err(Refused::Unavailable { .. }) if unavailable < REPEATS => {
                    unavailable += 1;
                    tokio::time::sleep(RETRY).await;
                }
                Err(refused) => return Err(refused),
            }
        }
    }
}
