//! A store in the memory of one process.
//!
//! It needs no consensus, so it is quick; it runs the queue's own core, so tests of the HTTP layer mean something.
//! Faults can be planted in it. Nobody keeps time for it: leases do not end by themselves.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mvm_queue::{Answer, Command, Query, Queue, UnixMillis};
use tokio::sync::watch;

use super::{
    Backup, BackupContents, BackupMade, BackupsUnread, Deadline, Glance, MemberStatus, RaftGlance,
    Status, Store, applied::above, noted,
};
use crate::{
    consensus::{Barrier, Proposal, Reading, Unavailable},
    join::{Phase, Standing},
    metrics::Metrics,
};

/// The number of the only node.
const NODE: u64 = 1;

/// What its backups contain.
const BACKUP: &[u8] = b"SQLite format 3\0";

/// A store for tests.
#[derive(Debug, Default)]
pub struct MemoryStore {
    contents: Mutex<Contents>,
    applied: watch::Sender<u64>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Contents {
    queue: Queue,
    backups: Vec<Backup>,
    outage: Option<Outage>,
}

/// What a [`MemoryStore`] is to suffer from.
#[derive(Clone, Debug)]
pub enum Outage {
    /// Nothing can be handed to the log.
    Unavailable(Unavailable),
    /// Commands are applied, and their answers get lost.
    AnswersLost,
    /// There is no room for a backup.
    DiskFull,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Plants a fault, or takes it away.
    pub fn set_outage(&self, outage: Option<Outage>) {
        self.lock().outage = outage;
    }

    /// Applies a command as every replica would.
    pub fn apply(&self, command: &Command) -> Proposal {
        let outcome = self.lock().queue.apply(command);
        noted::note(&self.metrics, NODE, command, &outcome);
        self.applied.send_modify(|index| *index += 1);
        Proposal::from(outcome)
    }

    /// Reads without a barrier.
    pub fn answer(&self, query: &Query) -> Answer {
        self.lock().queue.answer(query)
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unavailable(&self) -> Option<Unavailable> {
        match &self.lock().outage {
            Some(Outage::Unavailable(cause)) => Some(cause.clone()),
            Some(Outage::AnswersLost | Outage::DiskFull) | None => None,
        }
    }
}

impl Store for MemoryStore {
    async fn propose(&self, command: Command, _deadline: Deadline) -> Proposal {
        let outage = self.lock().outage.clone();
        match outage {
            Some(Outage::Unavailable(cause)) => Proposal::Unavailable { cause },
            Some(Outage::AnswersLost) => {
                self.apply(&command);
                Proposal::Unknown
            }
            Some(Outage::DiskFull) | None => self.apply(&command),
        }
    }

    async fn read(&self, barrier: Barrier, query: Query, _deadline: Deadline) -> Reading {
        match (barrier, self.unavailable()) {
            (Barrier::Linearizable, Some(cause))
            | (
                Barrier::Local,
                Some(cause @ (Unavailable::Forming | Unavailable::Waiting { .. })),
            ) => Reading::Unavailable { cause },
            (Barrier::Linearizable | Barrier::Local, _) => {
                // Taken before the read: the answer reflects at least this much.
                let log_index = *self.applied.borrow();
                Reading::Done {
                    answer: self.answer(&query),
                    log_index,
                }
            }
        }
    }

    async fn status(&self) -> Status {
        let unavailable = self.unavailable();
        let applied = *self.applied.borrow();
        Status {
            node: NODE,
            members: vec![MemberStatus {
                id: NODE,
                http: "127.0.0.1:3020".into(),
                raft: "127.0.0.1:9000".into(),
                store: "127.0.0.1:9001".into(),
                voter: true,
            }],
            leader: unavailable.is_none().then_some(NODE),
            term: 1,
            last_log_index: applied,
            applied_index: applied,
            unavailable,
        }
    }

    async fn glance(&self) -> Glance {
        let unavailable = self.unavailable();
        let applied = *self.applied.borrow();
        let leads = unavailable.is_none();
        let closed = unavailable.filter(|cause| match cause {
            Unavailable::Forming | Unavailable::Waiting { .. } | Unavailable::ShuttingDown => true,
            Unavailable::NoLeader
            | Unavailable::NoQuorum { .. }
            | Unavailable::LeaderUnreachable { .. }
            | Unavailable::NotLeader { .. } => false,
        });
        let raft = RaftGlance {
            leader: leads.then_some(NODE),
            leads,
            term: 1,
            last_log_index: applied,
            applied_index: applied,
            voters: 1,
            quorum_age: leads.then_some(Duration::ZERO),
        };
        Glance {
            raft: (closed != Some(Unavailable::Forming)).then_some(raft),
            closed,
        }
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    async fn propose_forwarded(&self, command: Command, deadline: Deadline) -> Proposal {
        self.propose(command, deadline).await
    }

    async fn read_forwarded(&self, query: Query, deadline: Deadline) -> Reading {
        self.read(Barrier::Linearizable, query, deadline).await
    }

    async fn applied(&self, beyond: u64) -> u64 {
        above(self.applied.subscribe(), beyond).await
    }

    async fn lead(&self) -> Result<(), Unavailable> {
        self.unavailable().map_or(Ok(()), Err)
    }

    async fn back_up(&self) -> BackupMade {
        let outage = self.lock().outage.clone();
        match outage {
            Some(Outage::Unavailable(cause)) => return BackupMade::Unavailable { cause },
            Some(Outage::AnswersLost) => {
                let detail = "no answer from the leader".into();
                return BackupMade::Unknown { detail };
            }
            Some(Outage::DiskFull) => {
                let detail = "database or disk is full".into();
                return BackupMade::Failed { node: NODE, detail };
            }
            None => {}
        }
        let made = Backup {
            name: "backup_node_1_1764028800.sqlite".into(),
            created_at_ms: UnixMillis(1_764_028_800_000),
            bytes: BACKUP.len() as u64,
        };
        let backups = &mut self.lock().backups;
        let is_new = backups.is_empty();
        *backups = vec![made.clone()];
        BackupMade::Done { made, is_new }
    }

    async fn back_up_forwarded(&self) -> BackupMade {
        self.back_up().await
    }

    async fn backups(&self) -> Result<Vec<Backup>, BackupsUnread> {
        self.unavailable().map_or(Ok(()), Err)?;
        Ok(self.lock().backups.clone())
    }

    async fn open_backup(&self, name: &str) -> Result<Option<BackupContents>, BackupsUnread> {
        self.unavailable().map_or(Ok(()), Err)?;
        let known = self.lock().backups.iter().any(|backup| backup.name == name);
        Ok(known.then(|| BackupContents {
            bytes: BACKUP.len() as u64,
            reader: Box::pin(BACKUP),
        }))
    }

    fn standing(&self) -> Standing {
        Standing {
            node: 1,
            phase: Phase::Member,
            cluster: None,
        }
    }
}
