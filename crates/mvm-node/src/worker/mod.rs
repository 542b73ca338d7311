//! The node's own worker: takes jobs of the kinds it can do, holds their leases, and says what became of them.
//!
//! ```text
//!  look (local read) ── something is ready ──▶ claim ──▶ one task per job: hold ──▶ process
//!    ▲                                                     renew, log, finish
//!    └── a slot is free again ◀────────────────────────────┘
//! ```
//!
//! Every change it asks for has a name made from job and token, so that it may be repeated. What it cannot say any more,
//! because its lease has ended, nobody needs to hear: another worker has the job.

mod hold;
mod process;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use mvm_exec::Isolation;
use mvm_queue::{Answer, Change, Claim, Command, Effect, Query, RequestId};
use tokio::task::JoinSet;

pub(crate) use self::process::{PROCESS_KIND, Process};
use crate::{
    consensus::{Barrier, Proposal, Reading},
    id::{self, IdMaker},
    store::{Deadline, Store},
};

/// How often the local replica is looked at for jobs while a slot is free. It costs no write.
const LOOK: Duration = Duration::from_millis(200);

/// What a node's worker is.
#[derive(Clone, Debug)]
pub(crate) struct WorkerConfig {
    /// The node.
    pub(crate) node: u64,
    /// How many jobs it runs at once.
    pub(crate) slots: u32,
    /// What it offers.
    pub(crate) labels: BTreeSet<String>,
    /// How long the cluster believes in it without a sign of life.
    pub(crate) lease: Duration,
}

/// Takes and runs jobs until dropped, which ends them all.
pub(crate) async fn work<S: Store>(store: Arc<S>, config: WorkerConfig, isolation: Isolation) {
    let ids = IdMaker::new(u16::try_from(config.node).unwrap_or(u16::MAX));
    let isolation = Arc::new(isolation);
    let kinds = BTreeSet::from([PROCESS_KIND.to_owned()]);
    let mut running = JoinSet::new();
    store.metrics().worker.set_slots(config.slots);
    loop {
        while running.try_join_next().is_some() {}
        let busy = u32::try_from(running.len()).unwrap_or(u32::MAX);
        let free = config.slots.saturating_sub(busy).min(mvm_queue::SLOTS_MAX);
        if free > 0 && ready(&*store, &config, &kinds).await {
            let change = Change::Claim {
                node: config.node,
                worker: format!("node{}", config.node),
                slots: free,
                labels: config.labels.clone(),
                kinds: kinds.clone(),
            };
            for claim in claim(&*store, &ids, change).await {
                let (store, isolation) = (Arc::clone(&store), Arc::clone(&isolation));
                let lease = config.lease;
                let busy = store.metrics().worker.busy();
                running.spawn(async move {
                    let _busy = busy;
                    hold::hold(&*store, &isolation, lease, claim).await;
                });
            }
        }
        tokio::select! {
            Some(_) = running.join_next() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Whether this node's replica has a job that the worker can do.
async fn ready<S: Store>(store: &S, config: &WorkerConfig, kinds: &BTreeSet<String>) -> bool {
    let query = Query::Ready {
        labels: config.labels.clone(),
        kinds: kinds.clone(),
    };
    let reading = store
        .read(Barrier::Local, query, Deadline::starting_now())
        .await;
    matches!(reading, Reading::Done { answer: Answer::Ready { count }, .. } if count > 0)
}

/// Claims jobs. Where the answer is lost, the same request is asked again: what it claimed must not wait for its lease.
async fn claim<S: Store>(store: &S, ids: &IdMaker, change: Change) -> Vec<Claim> {
    let request = RequestId(ids.request(id::now()));
    for _ in 0..REPEATS {
        match propose(store, &request, change.clone()).await {
            Proposal::Committed {
                effect: Effect::Claimed { claims },
            } => return claims,
            Proposal::Unknown => {}
            other => {
                tracing::debug!(?other, "no job was claimed");
                return Vec::new();
            }
        }
    }
    Vec::new()
}

/// How often a claim of unknown outcome is asked for again; its lease is over then.
const REPEATS: usize = 4;

async fn propose<S: Store>(store: &S, request: &RequestId, change: Change) -> Proposal {
    let command = Command {
        request: request.clone(),
        at: id::now(),
        change,
    };
    let proposing = store.propose(command, Deadline::starting_now());
    store.metrics().store.proposal(proposing).await
}
