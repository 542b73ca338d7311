//! The node's own worker: takes jobs of the kinds it can do, holds their leases, and says what became of them.
//!
//! ```text
//!  look (local read) ── something is ready ──▶ claim ──▶ one task per job: hold ──▶ process, fetch
//!    ▲                                                     renew, log, finish          └──▶ outputs (disk)
//!    └── the replica applied something, or a slot is free again
//! ```
//!
//! Every change it asks for has a name made from job and token, so that it may be repeated. What it cannot say any more,
//! because its lease has ended, nobody needs to hear: another worker has the job.

mod control;
mod fetch;
mod hold;
mod log;
mod outputs;
mod process;
mod work;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use mvm_exec::Isolation;
use mvm_queue::{Answer, Change, Claim, Command, Effect, FETCH_KIND, Query, RequestId};
use tokio::task::JoinSet;

pub(crate) use self::{
    control::Control,
    outputs::Outputs,
    process::{PROCESS_KIND, Process},
};
use self::{control::Order, hold::Holder};
use crate::{
    consensus::{Barrier, Proposal, Reading},
    id::{self, IdMaker},
    store::{Deadline, Store},
};

/// The shortest time between two looks at the replica. One costs no write, but a busy cluster applies thousands of
/// commands in a second.
const LOOK: Duration = Duration::from_millis(20);

/// The pause after a claim that could not be made.
const RETRY: Duration = Duration::from_millis(500);

/// How often a claim of unknown outcome is asked for again; its lease is over then.
const REPEATS: usize = 4;

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

/// The kinds of job that a node's worker does.
pub(crate) fn kinds() -> BTreeSet<String> {
    [PROCESS_KIND, FETCH_KIND].map(str::to_owned).into()
}

/// Takes and runs jobs, as `control` says, until it is dropped, which ends them all, or has given all back.
pub(crate) async fn work<S: Store>(
    store: Arc<S>,
    config: WorkerConfig,
    isolation: Isolation,
    outputs: Arc<Outputs>,
    control: Arc<Control>,
) {
    let ids = IdMaker::new(u16::try_from(config.node).unwrap_or(u16::MAX));
    let offer = Change::Claim {
        node: config.node,
        worker: format!("node{}", config.node),
        slots: 0,
        labels: config.labels.clone(),
        kinds: kinds(),
    };
    let holder = Arc::new(Holder {
        store: Arc::clone(&store),
        isolation,
        lease: config.lease,
        outputs,
        orders: control.orders(),
    });
    let mut orders = control.orders();
    let mut running = JoinSet::new();
    store.metrics().worker.set_slots(config.slots);
    // How far the replica had come when there was nothing to do.
    let mut seen = 0;
    loop {
        while running.try_join_next().is_some() {}
        let busy = u32::try_from(running.len()).unwrap_or(u32::MAX);
        control.tell_busy(busy);
        let order = *orders.borrow_and_update();
        if order == Order::GiveBack && running.is_empty() {
            return;
        }
        let free = config.slots.saturating_sub(busy).min(mvm_queue::SLOTS_MAX);
        let looks = order == Order::Work && free > 0;
        let looked = Instant::now();
        if looks {
            let (ready, index) = ready(&*store, &config).await;
            seen = index;
            if ready {
                let claims = claim(&*store, &ids, with_slots(&offer, free)).await;
                let Some(claims) = claims else {
                    tokio::time::sleep(RETRY).await;
                    seen = 0;
                    continue;
                };
                for claim in claims {
                    let holder = Arc::clone(&holder);
                    let busy = store.metrics().worker.busy();
                    running.spawn(async move {
                        let _busy = busy;
                        holder.hold(claim).await;
                    });
                }
                control.tell_busy(u32::try_from(running.len()).unwrap_or(u32::MAX));
            }
        }
        let news = async {
            store.applied(seen).await;
            tokio::time::sleep_until((looked + LOOK).into()).await;
        };
        tokio::select! {
            Some(_) = running.join_next() => {}
            () = news, if looks => {}
            // The one who gives orders is ours.
            _ = orders.changed() => {}
        }
    }
}

/// Whether this node's replica has a job that the worker can do, and how far the replica had come.
async fn ready<S: Store>(store: &S, config: &WorkerConfig) -> (bool, u64) {
    let query = Query::Ready {
        labels: config.labels.clone(),
        kinds: kinds(),
    };
    let reading = store
        .read(Barrier::Local, query, Deadline::starting_now())
        .await;
    match reading {
        Reading::Done {
            answer: Answer::Ready { count },
            log_index,
        } => (count > 0, log_index),
        // A store that is not open yet has applied nothing.
        _ => (false, 0),
    }
}

fn with_slots(offer: &Change, free: u32) -> Change {
    let mut change = offer.clone();
    if let Change::Claim { slots, .. } = &mut change {
        *slots = free;
    }
    change
}

/// Claims jobs; nothing if that is not possible now. Where the answer is lost, the same request is asked again: what it
/// claimed must not wait for its lease.
async fn claim<S: Store>(store: &S, ids: &IdMaker, change: Change) -> Option<Vec<Claim>> {
    let request = RequestId(ids.request(id::now()));
    for _ in 0..REPEATS {
        match propose(store, &request, change.clone()).await {
            Proposal::Committed {
                effect: Effect::Claimed { claims },
            } => return Some(claims),
            Proposal::Unknown => {}
            other => {
                tracing::debug!(?other, "no job was claimed");
                return None;
            }
        }
    }
    None
}

async fn propose<S: Store>(store: &S, request: &RequestId, change: Change) -> Proposal {
    let command = Command {
        request: request.clone(),
        at: id::now(),
        change,
    };
    let proposing = store.propose(command, Deadline::starting_now());
    store.metrics().store.proposal(proposing).await
}
