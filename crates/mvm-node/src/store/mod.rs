//! The replicated store behind the node, in the words of consensus.
//!
//! ```text
//!   HTTP handler ──propose / read / status──▶ Store
//!                                              ├── MemoryStore    one process, for tests
//!                                              └── ClusterStore   finds the leader
//!                                                    ├── LocalRaft  this node leads: Writer ─▶ hiqlite
//!                                                    ├── Timekeeper this node leads: leases and times
//!                                                    └── Peers      another leads: over HTTP
//! ```
//!
//! What lives elsewhere: jobs, commands, and what they do ([`mvm_queue`]), and how answers become HTTP ([`crate::http`]).

mod applied;
mod backups;
mod cluster;
mod forward;
mod handing;
mod memory;
mod noted;
mod peers;
mod raft;
mod rows;
mod timekeeper;
mod writes;

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

pub use self::{
    backups::{Backup, BackupContents, BackupMade, BackupsUnread},
    memory::{MemoryStore, Outage},
};
pub(crate) use self::{
    cluster::{ClusterStore, Role},
    forward::{FORWARDED_MAX, ForwardedCommand},
    peers::{DEADLINE_HEADER, REQUEST_ID_HEADER, SECRET_HEADER},
};
use mvm_queue::{Command, Query};

use crate::{
    consensus::{Barrier, Proposal, Reading, Unavailable},
    join::Standing,
    metrics::Metrics,
};

/// The size of hiqlite's log files, which panics on an entry that does not fit into one. Twice the default, so that a
/// batch of commands takes a quarter of it.
pub(crate) const WAL_BYTES: u32 = 4 * 1024 * 1024;

/// After so long a request that was handed to nobody is answered as not applied (HTTP 503).
///
/// Leaves a margin below the promised two seconds.
pub const REFUSE_AFTER: Duration = Duration::from_millis(1_700);

/// After so long a request that was handed over is answered as unknown (HTTP 504).
///
/// Leaves a margin below the promised three seconds.
pub const GIVE_UP_AFTER: Duration = Duration::from_millis(2_700);

/// Until when a request is worth working on. Both instants are of this process's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// Beyond this, nothing is handed to the log any more.
    pub refuse_at: Instant,
    /// Beyond this, no answer is waited for any more.
    pub give_up_at: Instant,
}

impl Deadline {
    /// The deadline of a request that has just come in.
    pub fn starting_now() -> Self {
        let now = Instant::now();
        Self {
            refuse_at: now + REFUSE_AFTER,
            give_up_at: now + GIVE_UP_AFTER,
        }
    }

    /// The deadline of a request that another node forwarded: whatever is left of its time.
    ///
    /// Nothing is waited for before the hand-over; the other node does the waiting.
    pub fn forwarded(left: Duration) -> Self {
        let now = Instant::now();
        Self {
            refuse_at: now,
            give_up_at: now + left.min(GIVE_UP_AFTER),
        }
    }
}

/// A replicated store of jobs.
pub trait Store: Send + Sync + 'static {
    /// Asks the cluster to apply a command, and answers before the deadline, whatever happens.
    ///
    /// Dropping the future leaves the outcome unknown.
    fn propose(
        &self,
        command: Command,
        deadline: Deadline,
    ) -> impl Future<Output = Proposal> + Send;

    /// Reads, and answers before the deadline.
    fn read(
        &self,
        barrier: Barrier,
        query: Query,
        deadline: Deadline,
    ) -> impl Future<Output = Reading> + Send;

    /// What this node knows of the cluster. Answers within a second.
    fn status(&self) -> impl Future<Output = Status> + Send;

    /// What this node knows by itself: asks no other, and answers at once.
    fn glance(&self) -> impl Future<Output = Glance> + Send;

    /// What this node counts.
    fn metrics(&self) -> &Arc<Metrics>;

    /// Applies a command that another node forwarded because it takes this one for the leader.
    fn propose_forwarded(
        &self,
        command: Command,
        deadline: Deadline,
    ) -> impl Future<Output = Proposal> + Send;

    /// Serves a linearizable read that another node forwarded because it takes this one for the leader.
    fn read_forwarded(
        &self,
        query: Query,
        deadline: Deadline,
    ) -> impl Future<Output = Reading> + Send;

    /// Waits until this node's replica reflects the log beyond an index, and returns how far it does.
    ///
    /// What was applied need not have changed any job. Waits for ever on a node that applies nothing; may be dropped.
    fn applied(&self, beyond: u64) -> impl Future<Output = u64> + Send;

    /// Says whether this node leads and has a quorum, for another node that asks.
    fn lead(&self) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// Makes a backup on every node. Takes as long as copying the database twice; writes wait meanwhile.
    fn back_up(&self) -> impl Future<Output = BackupMade> + Send;

    /// The same, for another node that takes this one for the leader.
    fn back_up_forwarded(&self) -> impl Future<Output = BackupMade> + Send;

    /// This node's backups, the newest first.
    fn backups(&self) -> impl Future<Output = Result<Vec<Backup>, BackupsUnread>> + Send;

    /// Opens one of this node's backups; nothing if it has none of that name.
    fn open_backup(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Option<BackupContents>, BackupsUnread>> + Send;

    /// Says how far this node is on the way into its cluster, for another node that asks.
    fn standing(&self) -> Standing;
}

/// One node of the cluster, as configured.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct MemberStatus {
    /// Its number.
    pub id: u64,
    /// Where its HTTP interface is.
    pub http: String,
    /// Where its Raft port is.
    pub raft: String,
    /// Where its store port is.
    pub store: String,
    /// Whether the log counts it as a voter already.
    pub voter: bool,
}

/// What a node knows of its cluster.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Status {
    /// The node that speaks.
    pub node: u64,
    /// All nodes of the configuration.
    pub members: Vec<MemberStatus>,
    /// The leader, if this node knows one.
    pub leader: Option<u64>,
    /// The current term.
    pub term: u64,
    /// The last entry of this node's log.
    pub last_log_index: u64,
    /// The last entry this node's replica reflects.
    pub applied_index: u64,
    /// Why linearizable requests to this node cannot be served; nothing if they can.
    pub unavailable: Option<Unavailable>,
}

/// What a node knows by itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Glance {
    /// Why this node should get no requests at all, not even local reads: it has not joined yet, or is on its way out.
    pub closed: Option<Unavailable>,
    /// The Raft group; nothing before joining.
    pub raft: Option<RaftGlance>,
}

/// What a node knows of its Raft group without asking any other.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RaftGlance {
    /// The leader, if this node knows one.
    pub leader: Option<u64>,
    /// Whether this node leads and has lately heard from a majority.
    pub leads: bool,
    /// The current term.
    pub term: u64,
    /// The last entry of this node's log.
    pub last_log_index: u64,
    /// The last entry this node's replica reflects.
    pub applied_index: u64,
    /// How many voters the log knows.
    pub voters: u64,
    /// On a leader, how long ago a majority last answered it.
    pub quorum_age: Option<Duration>,
}
