//! The store of a cluster's node: finds the leader, hands each request to it once, and keeps the
//! promises about time and certainty that [`super::Store`] makes.
//!
//! ```text
//!  follower                                   leader
//!   propose ── POST /internal/v1/propose ──▶ LocalRaft::propose ──▶ log
//!      │  connect failed, or turned away: not handed over; look for the leader again until refuse_at
//!      │  written, no answer: handed over; only a *new* leader is asked again, with the same request
//!      │                      id, until give_up_at; then the outcome is unknown
//! ```

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use mvm_queue::{Command, Query};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    Backup, BackupContents, BackupMade, BackupsUnread, Deadline, Glance, MemberStatus, RaftGlance,
    Status, Store,
    forward::Forwarder,
    peers::{Exchange, Peers},
    raft::{LocalRaft, View},
    timekeeper::Timekeeper,
};
use crate::{
    config::{Config, Member},
    consensus::{Barrier, Proposal, Reading, Unavailable},
    http::internal,
    join::Standing,
    metrics::Metrics,
    tls::ClientTls,
};

/// Pause between two looks for a leader.
const RETRY_PAUSE: Duration = Duration::from_millis(40);

/// How often the keeper looks at the Raft state.
const KEEPER_PERIOD: Duration = Duration::from_millis(250);

/// A quorum that has been gone for so long is not waited for: requests are refused at once.
/// An election takes less.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long a follower waits for the leader's word on whether it has a quorum.
const LEADER_CHECK_TIMEOUT: Duration = Duration::from_millis(700);

/// How long a backup may take that another node makes for us; hiqlite gives up a little earlier.
const BACKUP_TIMEOUT: Duration = Duration::from_secs(40);

/// How long another node may take to say what it is.
const STANDING_TIMEOUT: Duration = Duration::from_millis(700);

/// A node's view of, and way into, the replicated store.
pub(crate) struct ClusterStore {
    node: u64,
    members: Vec<Member>,
    peers: Arc<Peers>,
    forwarder: Forwarder,
    /// What this node is told to be, see [`crate::join`].
    standing: Mutex<Standing>,
    /// Whom it waits for before it joins.
    waits_for: Mutex<Option<String>>,
    /// Set once hiqlite has joined its cluster.
    local: OnceLock<Arc<LocalRaft>>,
    /// Set once the tables are on this replica.
    has_schema: AtomicBool,
    shutting_down: AtomicBool,
    /// When the way to a leader with a quorum was last seen to be open.
    last_good: Mutex<Instant>,
    /// Waits here from joining until the tables are there.
    timekeeper: Mutex<Option<Timekeeper>>,
    metrics: Arc<Metrics>,
}

/// What another node does in the cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    /// Nothing, as far as one can see.
    Absent,
    /// It takes part, and does not lead a majority.
    Follows,
    /// It leads, and its log takes entries.
    Commits,
}

impl ClusterStore {
    /// A store that has not joined yet. With `tls` it speaks to other nodes by that.
    pub(crate) fn new(
        config: &Config,
        standing: Standing,
        tls: Option<Arc<ClientTls>>,
    ) -> Arc<Self> {
        let addresses: HashMap<_, _> = config
            .members
            .iter()
            .map(|member| (member.id, (member.host.clone(), member.http_port)))
            .collect();
        let metrics = Arc::new(Metrics::default());
        let secret = config.secret_store.clone();
        let peers = Arc::new(Peers::new(addresses, secret, tls, Arc::clone(&metrics)));
        Arc::new(Self {
            node: config.node_id,
            members: config.members.clone(),
            forwarder: Forwarder::new(Arc::clone(&peers)),
            peers,
            standing: Mutex::new(standing),
            waits_for: Mutex::default(),
            local: OnceLock::new(),
            has_schema: AtomicBool::new(false),
            shutting_down: AtomicBool::new(false),
            last_good: Mutex::new(Instant::now()),
            timekeeper: Mutex::default(),
            metrics,
        })
    }

    /// Says from now on that this node is such; it waits for nobody.
    pub(crate) fn stands(&self, standing: Standing) {
        *lock(&self.standing) = standing;
        *lock(&self.waits_for) = None;
    }

    /// Refuses requests with this as the reason, until [`ClusterStore::stands`] is called.
    pub(crate) fn wait_for(&self, reason: String) {
        *lock(&self.waits_for) = Some(reason);
    }

    /// All members but this node.
    pub(crate) fn others(&self) -> Vec<u64> {
        let ids = self.members.iter().map(|member| member.id);
        ids.filter(|id| *id != self.node).collect()
    }

    /// Asks another node what it is. An error says why there is no answer.
    pub(crate) async fn standing_of(&self, peer: u64) -> Result<Standing, String> {
        let give_up_at = Instant::now() + STANDING_TIMEOUT;
        match self
            .peers
            .call(peer, internal::STANDING, &(), give_up_at)
            .await
        {
            Exchange::Answered(standing) => Ok(standing),
            Exchange::NotSent { detail } => Err(detail),
            Exchange::Lost => Err("no answer".into()),
        }
    }

    /// What another node does in the cluster, now.
    pub(crate) async fn role_of(&self, peer: u64) -> Role {
        let give_up_at = Instant::now() + super::REFUSE_AFTER;
        let exchange = self
            .peers
            .call(peer, internal::READ, &Query::Stats, give_up_at)
            .await;
        match exchange {
            Exchange::Answered(Reading::Done { .. }) => Role::Commits,
            Exchange::Answered(Reading::Unavailable {
                cause:
                    Unavailable::Forming | Unavailable::Waiting { .. } | Unavailable::ShuttingDown,
            })
            | Exchange::NotSent { .. }
            | Exchange::Lost => Role::Absent,
            Exchange::Answered(Reading::Unavailable { .. } | Reading::Broken { .. }) => {
                Role::Follows
            }
        }
    }

    /// Takes over a hiqlite that has joined its cluster.
    pub(crate) fn joined(&self, client: hiqlite::Client, config: &Config) {
        let (tell, applied) = mpsc::unbounded_channel();
        let local = Arc::new(LocalRaft::new(
            client,
            self.node,
            config.election_min,
            tell,
            Arc::clone(&self.metrics),
        ));
        assert!(
            self.local.set(local).is_ok(),
            "a node joins its cluster once"
        );
        *lock(&self.timekeeper) = Some(Timekeeper::new(config, applied, Arc::clone(&self.metrics)));
    }

    /// From now on every new request of a client is refused. What other nodes ask is still answered.
    pub(crate) fn refuse_clients(&self) {
        self.shutting_down.store(true, Ordering::Relaxed);
    }

    /// Closes the store, see [`LocalRaft::shut_down`]. Does nothing on a node that never joined.
    pub(crate) async fn shut_down(&self) {
        if let Some(local) = self.local.get() {
            local.shut_down().await;
        }
    }

    /// Creates the tables once, remembers when a quorum was last seen, and then keeps time. Runs until dropped.
    pub(crate) async fn keep(&self) {
        let mut keeping = JoinSet::new();
        loop {
            if let Some(local) = self.local.get() {
                if self.is_good(local, &local.view().await) {
                    self.mark_good();
                }
                if !self.has_schema.load(Ordering::Relaxed) {
                    self.settle_schema(local).await;
                } else if let Some(timekeeper) = lock(&self.timekeeper).take() {
                    let local = Arc::clone(local);
                    keeping.spawn(async move { timekeeper.keep(&local).await });
                }
            }
            tokio::time::sleep(KEEPER_PERIOD).await;
        }
    }

    async fn settle_schema(&self, local: &LocalRaft) {
        if !local.has_schema().await {
            local
                .create_schema(Instant::now() + super::GIVE_UP_AFTER)
                .await;
        }
        if local.has_schema().await {
            self.has_schema.store(true, Ordering::Relaxed);
            tracing::info!(node = self.node, "the store is ready");
        }
    }

    fn is_good(&self, local: &LocalRaft, view: &View) -> bool {
        match view.leader {
            None => false,
            Some(leader) if leader == self.node => local.holds_lease(view).is_ok(),
            Some(_) => true,
        }
    }

    fn mark_good(&self) {
        *lock(&self.last_good) = Instant::now();
    }

    fn is_hopeless(&self) -> bool {
        lock(&self.last_good).elapsed() > PATIENCE
    }

    fn local(&self) -> Result<&LocalRaft, Unavailable> {
        let ready = self.has_schema.load(Ordering::Relaxed);
        self.local
            .get()
            .map(Arc::as_ref)
            .filter(|_| ready)
            .ok_or_else(|| match lock(&self.waits_for).clone() {
                Some(detail) => Unavailable::Waiting { detail },
                None => Unavailable::Forming,
            })
    }

    /// The local part, unless clients are not served at all.
    fn open(&self) -> Result<&LocalRaft, Unavailable> {
        if self.shutting_down.load(Ordering::Relaxed) {
            return Err(Unavailable::ShuttingDown);
        }
        self.local()
    }

    /// Hands a command to the leader, which is this node or another.
    async fn propose_to(
        &self,
        local: &LocalRaft,
        leader: u64,
        command: &Command,
        deadline: Deadline,
    ) -> Proposal {
        if leader == self.node {
            return local.propose(command.clone(), deadline.give_up_at).await;
        }
        self.forwarder.propose(leader, command, deadline).await
    }

    async fn read_from(
        &self,
        local: &LocalRaft,
        leader: u64,
        query: &Query,
        give_up_at: Instant,
    ) -> Reading {
        if leader == self.node {
            return match local.barrier(give_up_at).await {
                Ok(()) => read_replica(local, query).await,
                Err(cause) => Reading::Unavailable { cause },
            };
        }
        let unreachable = |detail| Reading::Unavailable {
            cause: Unavailable::LeaderUnreachable { leader, detail },
        };
        match self
            .peers
            .call(leader, internal::READ, query, give_up_at)
            .await
        {
            Exchange::Answered(reading) => reading,
            Exchange::NotSent { detail } => unreachable(detail),
            Exchange::Lost => unreachable("no answer".into()),
        }
    }

    async fn read_linearizable(&self, query: &Query, refuse_at: Instant) -> Reading {
        loop {
            let local = match self.open() {
                Ok(local) => local,
                Err(cause) => return Reading::Unavailable { cause },
            };
            let view = local.view().await;
            let reading = match view.leader {
                None => Reading::Unavailable {
                    cause: Unavailable::NoLeader,
                },
                Some(leader) => tokio::select! {
                    reading = self.read_from(local, leader, query, refuse_at) => reading,
                    () = superseded(local, &view) => {
                        Reading::Unavailable { cause: Unavailable::NotLeader { node: leader } }
                    }
                },
            };
            let unavailable = matches!(reading, Reading::Unavailable { .. });
            if !unavailable || self.is_hopeless() || Instant::now() + RETRY_PAUSE >= refuse_at {
                return reading;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// Returns once the group has a leader or a term other than in `view`: whoever waits for the old
/// leader's answer may as well ask the new one.
async fn superseded(local: &LocalRaft, view: &View) {
    loop {
        tokio::time::sleep(RETRY_PAUSE).await;
        let now = local.view().await;
        if now.leader.is_some() && (now.leader, now.term) != (view.leader, view.term) {
            return;
        }
    }
}

async fn read_replica(local: &LocalRaft, query: &Query) -> Reading {
    // Taken before the read: the answer reflects at least this much.
    let log_index = local.view().await.applied_index;
    match local.query(query).await {
        Ok(answer) => Reading::Done { answer, log_index },
        Err(detail) => Reading::Broken { detail },
    }
}

impl Store for ClusterStore {
    async fn propose(&self, command: Command, deadline: Deadline) -> Proposal {
        // The leader and term that may have the command already.
        let mut handed_to: Option<(u64, u64)> = None;
        loop {
            let refusal = match self.open() {
                Err(cause) => cause,
                Ok(local) => {
                    let view = local.view().await;
                    match view.leader {
                        None => Unavailable::NoLeader,
                        Some(leader) if handed_to == Some((leader, view.term)) => {
                            Unavailable::NoLeader
                        }
                        Some(leader) => {
                            let proposal = tokio::select! {
                                proposal = self.propose_to(local, leader, &command, deadline) => proposal,
                                () = superseded(local, &view) => Proposal::Unknown,
                            };
                            match proposal {
                                Proposal::Unavailable { cause } => cause,
                                Proposal::Unknown => {
                                    handed_to = Some((leader, view.term));
                                    Unavailable::NoLeader
                                }
                                decided => return decided,
                            }
                        }
                    }
                }
            };
            let now = Instant::now();
            if handed_to.is_some() {
                if now + RETRY_PAUSE >= deadline.give_up_at {
                    return Proposal::Unknown;
                }
            } else if self.gives_up(&refusal) || now + RETRY_PAUSE >= deadline.refuse_at {
                return Proposal::Unavailable { cause: refusal };
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn read(&self, barrier: Barrier, query: Query, deadline: Deadline) -> Reading {
        match barrier {
            Barrier::Linearizable => self.read_linearizable(&query, deadline.refuse_at).await,
            Barrier::Local => match self.local() {
                Ok(local) => read_replica(local, &query).await,
                Err(cause) => Reading::Unavailable { cause },
            },
        }
    }

    async fn status(&self) -> Status {
        let view = match self.local.get() {
            Some(local) => Some(local.view().await),
            None => None,
        };
        let voters = view
            .as_ref()
            .map(|view| view.voters.as_slice())
            .unwrap_or_default();
        let members = self.members.iter().map(|member| MemberStatus {
            id: member.id,
            http: member.http(),
            raft: member.raft(),
            store: member.store(),
            voter: voters.contains(&member.id),
        });
        Status {
            node: self.node,
            members: members.collect(),
            leader: view.as_ref().and_then(|view| view.leader),
            term: view.as_ref().map_or(0, |view| view.term),
            last_log_index: view.as_ref().map_or(0, |view| view.last_log_index),
            applied_index: view.as_ref().map_or(0, |view| view.applied_index),
            unavailable: self.check_quorum().await.err(),
        }
    }

    async fn glance(&self) -> Glance {
        let raft = match self.local.get() {
            Some(local) => {
                let view = local.view().await;
                Some(RaftGlance {
                    leader: view.leader,
                    leads: local.holds_lease(&view).is_ok(),
                    term: view.term,
                    last_log_index: view.last_log_index,
                    applied_index: view.applied_index,
                    voters: view.voters.len() as u64,
                    quorum_age: view.quorum_age,
                })
            }
            None => None,
        };
        Glance {
            closed: self.open().err(),
            raft,
        }
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    async fn propose_forwarded(&self, command: Command, deadline: Deadline) -> Proposal {
        match self.local() {
            Ok(local) => local.propose(command, deadline.give_up_at).await,
            Err(cause) => Proposal::Unavailable { cause },
        }
    }

    async fn read_forwarded(&self, query: Query, deadline: Deadline) -> Reading {
        match self.local() {
            Ok(local) => {
                self.read_from(local, self.node, &query, deadline.give_up_at)
                    .await
            }
            Err(cause) => Reading::Unavailable { cause },
        }
    }

    async fn applied(&self, beyond: u64) -> u64 {
        loop {
            if let Ok(local) = self.local() {
                return local.applied(beyond).await;
            }
            tokio::time::sleep(KEEPER_PERIOD).await;
        }
    }

    async fn lead(&self) -> Result<(), Unavailable> {
        self.local()?.lead().await
    }

    async fn back_up(&self) -> BackupMade {
        let asked = async {
            let local = self.open()?;
            let leader = local.view().await.leader.ok_or(Unavailable::NoLeader)?;
            if leader == self.node {
                return Ok(local.back_up().await);
            }
            let give_up_at = Instant::now() + BACKUP_TIMEOUT;
            match self
                .peers
                .call(leader, internal::BACK_UP, &(), give_up_at)
                .await
            {
                Exchange::Answered(made) => Ok(made),
                Exchange::NotSent { detail } => {
                    Err(Unavailable::LeaderUnreachable { leader, detail })
                }
                Exchange::Lost => Ok(BackupMade::Unknown {
                    detail: format!("no answer from the leader, node {leader}"),
                }),
            }
        };
        asked
            .await
            .unwrap_or_else(|cause| BackupMade::Unavailable { cause })
    }

    async fn back_up_forwarded(&self) -> BackupMade {
        match self.local() {
            Ok(local) => local.back_up().await,
            Err(cause) => BackupMade::Unavailable { cause },
        }
    }

    async fn backups(&self) -> Result<Vec<Backup>, BackupsUnread> {
        Ok(self.local()?.backups().await?)
    }

    async fn open_backup(&self, name: &str) -> Result<Option<BackupContents>, BackupsUnread> {
        Ok(self.local()?.open_backup(name).await?)
    }

    fn standing(&self) -> Standing {
        lock(&self.standing).clone()
    }
}

impl ClusterStore {
    fn gives_up(&self, cause: &Unavailable) -> bool {
        match cause {
            Unavailable::Forming | Unavailable::Waiting { .. } | Unavailable::ShuttingDown => true,
            Unavailable::NoLeader
            | Unavailable::NoQuorum { .. }
            | Unavailable::LeaderUnreachable { .. }
            | Unavailable::NotLeader { .. } => self.is_hopeless(),
        }
    }

    /// Whether a linearizable request would be served now, asking the leader if that is another node.
    async fn check_quorum(&self) -> Result<(), Unavailable> {
        let local = self.open()?;
        let leader = local.view().await.leader.ok_or(Unavailable::NoLeader)?;
        if leader == self.node {
            return local.lead().await;
        }
        let give_up_at = Instant::now() + LEADER_CHECK_TIMEOUT;
        match self
            .peers
            .call::<_, Option<Unavailable>>(leader, internal::LEAD, &(), give_up_at)
            .await
        {
            Exchange::Answered(answer) => answer.map_or(Ok(()), Err),
            Exchange::NotSent { detail } => Err(Unavailable::LeaderUnreachable { leader, detail }),
            Exchange::Lost => Err(Unavailable::LeaderUnreachable {
                leader,
                detail: "no answer".into(),
            }),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
