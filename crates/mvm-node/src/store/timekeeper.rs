//! What the leader's clock brings about: leases that end, pauses that are over, times that have come.
//!
//! What is counted and proposed is [`mvm_queue::Keeper`]'s. Here it is told what was applied, and asked what to propose.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mvm_queue::{Answer, Command, Keeper, KeeperConfig, KeeperFact, Query, RequestId, Retention};
use tokio::{sync::mpsc, task::JoinSet};

use super::{GIVE_UP_AFTER, noted, raft::LocalRaft, writes::Applied};
use crate::{
    config::Config,
    id::{self, IdMaker},
    metrics::Metrics,
};

/// How long beyond its timeout an attempt may go on before the lease is ended for it.
const TIMEOUT_GRACE: Duration = Duration::from_secs(15);
/// How long a worker may take to stop a job that is cancelled.
const CANCEL_GRACE: Duration = Duration::from_secs(30);
/// How often it is looked for finished jobs that are to go.
const PRUNE_EVERY: Duration = Duration::from_secs(10);
/// How often it is looked at who leads.
const LOOK: Duration = Duration::from_millis(250);

/// The timekeeper of a node; it does something while the node leads.
pub(super) struct Timekeeper {
    keeper: Keeper,
    node: u64,
    ids: IdMaker,
    /// The term in which this node leads and its keeper knows what there is.
    led: Option<u64>,
    applied: mpsc::UnboundedReceiver<Applied>,
    began: Instant,
    proposals: JoinSet<()>,
    metrics: Arc<Metrics>,
}

impl Timekeeper {
    /// The timekeeper of a node so configured.
    pub(super) fn new(
        config: &Config,
        applied: mpsc::UnboundedReceiver<Applied>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let node = config.node_id;
        let config = KeeperConfig {
            node,
            lease: config.lease,
            timeout_grace: TIMEOUT_GRACE,
            cancel_grace: CANCEL_GRACE,
            // A batch without an answer is given up after this.
            repeat: GIVE_UP_AFTER,
            retention: Some(Retention {
                keep: config.retain_jobs,
                age: config.retain_for,
                every: PRUNE_EVERY,
            }),
        };
        Self {
            keeper: Keeper::new(config),
            node,
            ids: IdMaker::new(u16::try_from(node).unwrap_or(u16::MAX)),
            led: None,
            applied,
            began: Instant::now(),
            proposals: JoinSet::new(),
            metrics,
        }
    }

    /// Works until dropped.
    pub(super) async fn keep(mut self, local: &Arc<LocalRaft>) {
        loop {
            self.follow_the_lead(local).await;
            while self.proposals.try_join_next().is_some() {}
            let (now, wall) = (self.now(), id::now());
            let ids = &self.ids;
            let changes = self
                .keeper
                .poll(now, wall, &mut |spec| ids.job_of(spec, wall));
            for change in changes {
                let command = Command {
                    request: RequestId(self.ids.request(wall)),
                    at: wall,
                    change,
                };
                let local = Arc::clone(local);
                self.proposals.spawn(async move {
                    // The keeper hears what comes of it like of any other command.
                    local.propose(command, Instant::now() + GIVE_UP_AFTER).await;
                });
            }
            let wait = self
                .keeper
                .wake(now, wall)
                .map_or(LOOK, |wake| wake.min(LOOK));
            tokio::select! {
                applied = self.applied.recv() => match applied {
                    Some(applied) => self.hear(applied),
                    // Nobody writes any more.
                    None => return,
                },
                () = tokio::time::sleep(wait) => {}
            }
            self.hear_all();
        }
    }

    /// Learns what there is when this node becomes the leader, and again when something was or may have been missed.
    async fn follow_the_lead(&mut self, local: &LocalRaft) {
        let view = local.view().await;
        if view.leader != Some(self.node) || local.holds_lease(&view).is_err() {
            if self.led.take().is_some() {
                self.keeper.deposed();
            }
            return;
        }
        let new = self.led != Some(view.term);
        if !new && !self.keeper.wants_sync(self.now()) {
            return;
        }
        self.hear_all();
        let under_way = new || self.keeper.doubts();
        if under_way && local.barrier(Instant::now() + GIVE_UP_AFTER).await.is_err() {
            return;
        }
        let Some(facts) = facts(local).await else {
            return;
        };
        let now = self.now();
        if new {
            self.keeper.elected(&facts, now);
            self.led = Some(view.term);
        } else {
            self.keeper.sync(&facts, now);
        }
    }

    fn hear_all(&mut self) {
        while let Ok(applied) = self.applied.try_recv() {
            self.hear(applied);
        }
    }

    fn hear(&mut self, applied: Applied) {
        let now = self.now();
        match applied {
            Applied::Known(command, outcome) => {
                self.keeper.applied(&command, &outcome, now);
                noted::note(&self.metrics, self.node, &command, &outcome);
            }
            Applied::Unknown => self.keeper.doubt(),
        }
    }

    /// This process's monotonic clock.
    fn now(&self) -> Duration {
        self.began.elapsed()
    }
}

/// What the store knows of leases, pauses and times; nothing if it cannot be read now.
async fn facts(local: &LocalRaft) -> Option<Vec<KeeperFact>> {
    match local.query(&Query::Keeper).await {
        Ok(Answer::Keeper { facts }) => Some(facts),
        Ok(other) => {
            tracing::error!(?other, "the store answered another question");
            None
        }
        Err(error) => {
            tracing::warn!(error, "could not read what the leader must look after");
            None
        }
    }
}
