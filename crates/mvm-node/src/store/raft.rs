//! What this node does when it leads: hiqlite, kept within our deadlines.
//!
//! hiqlite forwards by itself whatever its cached leader pointer calls for, and then an answer may take
//! 30 or 120 seconds and the write may still happen. So nothing is given to it before this node
//! is known to lead ([`LocalRaft::lead`]), and everything given to it counts as handed over.
//!
//! Its own consistent query opens a new connection to every voter each time, and fails when that
//! takes longer than a heartbeat. A read therefore waits for a mark of its own in the log instead
//! ([`LocalRaft::barrier`]); reads that come at the same time share one.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use hiqlite::{Client, Error, Param, Row};
use mvm_queue::{
    Answer, Command, Query,
    sql::{self, Statement},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    Backup, BackupContents, BackupMade,
    applied::AppliedIndex,
    backups,
    peers::until,
    rows,
    writes::{Applied, Writer},
};
use crate::{
    consensus::{Proposal, Unavailable},
    id,
    metrics::{Entry, Metrics},
};

/// Leaves a mark in the log that [`BARRIER_MARK`] finds again: ?1 node, ?2 mark.
const BARRIER: &str = "INSERT INTO barriers (node, mark) VALUES (?1, ?2)
     ON CONFLICT (node) DO UPDATE SET mark = excluded.mark";
/// The latest mark of a node that this replica has applied: ?1 node.
const BARRIER_MARK: &str = "SELECT mark AS number FROM barriers WHERE node = ?1";

/// Reads that may wait for the next mark; more than that wait before the queue.
const BARRIER_QUEUE_MAX: usize = 1_024;

/// How long a mark may take before those who wait for it are told that there is none.
const BARRIER_TIMEOUT: Duration = Duration::from_millis(1_500);

/// How long the refresh of hiqlite's leader pointer may take. It is done at its first step.
const POINTER_REFRESH_TIMEOUT: Duration = Duration::from_millis(100);

/// This node's part in the Raft group.
pub(super) struct LocalRaft {
    client: Client,
    node: u64,
    /// A leader that has not heard from a majority for so long proposes nothing.
    lease: Duration,
    barriers: mpsc::Sender<oneshot::Sender<()>>,
    writer: Writer,
    applied: AppliedIndex,
    /// Drops, and so ends, the barrier task with this.
    _tasks: JoinSet<()>,
}

/// What the Raft group looks like from here, at one moment.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) leader: Option<u64>,
    pub(super) term: u64,
    pub(super) last_log_index: u64,
    pub(super) applied_index: u64,
    pub(super) voters: Vec<u64>,
    /// Set on a leader only: how long ago a majority last answered it.
    pub(super) quorum_age: Option<Duration>,
}

impl LocalRaft {
    /// Takes over a started hiqlite. `lease` is the shortest election timeout; `applied` is told of every command that
    /// goes through here.
    pub(super) fn new(
        client: Client,
        node: u64,
        lease: Duration,
        applied: mpsc::UnboundedSender<Applied>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (barriers, waiting) = mpsc::channel(BARRIER_QUEUE_MAX);
        let writer = Writer::new(client.clone(), applied, Arc::clone(&metrics));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_barriers(client.clone(), node, waiting, metrics));
        let applied_index = AppliedIndex::new({
            let client = client.clone();
            move || {
                let client = client.clone();
                async move { view(&client).await.applied_index }
            }
        });
        Self {
            client,
            applied: applied_index,
            node,
            lease,
            barriers,
            writer,
            _tasks: tasks,
        }
    }

    /// Looks at the local Raft state. Asks nobody.
    pub(super) async fn view(&self) -> View {
        view(&self.client).await
    }

    /// Waits until this replica reflects the log beyond an index, and returns how far it does.
    pub(super) async fn applied(&self, beyond: u64) -> u64 {
        self.applied.beyond(beyond).await
    }

    /// Says whether this node leads and has a quorum, and makes sure hiqlite will act on it.
    ///
    /// The answer may be out of date when it arrives. That is harmless: it only decides between "not
    /// applied" and "unknown", never whether something is applied.
    pub(super) async fn lead(&self) -> Result<(), Unavailable> {
        self.holds_lease(&self.view().await)?;
        if !self.client.is_leader_db().await {
            // hiqlite moves its pointer only after an error, and would now send our writes to the
            // previous leader. This call looks at the metrics first and corrects the pointer.
            if let Err(error) = self
                .client
                .wait_for_cluster_sync_timeout(POINTER_REFRESH_TIMEOUT)
                .await
            {
                tracing::debug!(%error, "refreshing hiqlite's leader pointer");
            }
            if !self.client.is_leader_db().await {
                return Err(Unavailable::NotLeader { node: self.node });
            }
        }
        Ok(())
    }

    /// The part of [`LocalRaft::lead`] that only looks.
    pub(super) fn holds_lease(&self, view: &View) -> Result<(), Unavailable> {
        if view.leader != Some(self.node) {
            return Err(Unavailable::NotLeader { node: self.node });
        }
        match view.quorum_age {
            Some(age) if age <= self.lease => Ok(()),
            age => Err(Unavailable::NoQuorum {
                since_ms: age.map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            }),
        }
    }

    /// Applies a command if this node leads.
    pub(super) async fn propose(&self, command: Command, give_up_at: Instant) -> Proposal {
        match self.lead().await {
            Ok(()) => self.writer.propose(command, give_up_at).await,
            Err(cause) => Proposal::Unavailable { cause },
        }
    }

    /// Waits until this replica reflects everything that was acknowledged before the call.
    pub(super) async fn barrier(&self, give_up_at: Instant) -> Result<(), Unavailable> {
        self.lead().await?;
        let (done, passed) = oneshot::channel();
        let wait = async {
            self.barriers.send(done).await.ok()?;
            passed.await.ok()
        };
        match until(give_up_at, wait).await.flatten() {
            Some(()) => Ok(()),
            None => {
                // The lease may lapse only now; a leader that still holds it was merely too slow.
                self.lead().await?;
                Err(Unavailable::NoQuorum { since_ms: 0 })
            }
        }
    }

    /// Reads this replica; an error is a defect.
    pub(super) async fn query(&self, query: &Query) -> Result<Answer, String> {
        let rows = rows::read(&self.client, sql::select(query)).await;
        let rows = rows.map_err(|error| error.to_string())?;
        sql::answer(query, rows).map_err(|error| error.to_string())
    }

    /// Makes a backup on every node if this node leads.
    pub(super) async fn back_up(&self) -> BackupMade {
        match self.lead().await {
            Ok(()) => backups::make(&self.client, self.node).await,
            Err(cause) => BackupMade::Unavailable { cause },
        }
    }

    /// See [`backups::list`].
    pub(super) async fn backups(&self) -> io::Result<Vec<Backup>> {
        backups::list(&self.client).await.map_err(io::Error::other)
    }

    /// See [`backups::open`].
    pub(super) async fn open_backup(&self, name: &str) -> io::Result<Option<BackupContents>> {
        backups::open(&self.client, name).await
    }

    /// Whether this replica has the present tables.
    pub(super) async fn has_schema(&self) -> bool {
        self.schema_version()
            .await
            .is_some_and(|version| version >= sql::VERSION)
    }

    async fn schema_version(&self) -> Option<i64> {
        let query = Statement {
            sql: sql::VERSION_QUERY.into(),
            parameters: Vec::new(),
        };
        let rows = rows::read(&self.client, query).await.ok()?;
        rows.first()?.parse().ok()
    }

    /// Asks the log to bring the tables up to date. Harmless if they are.
    pub(super) async fn create_schema(&self, give_up_at: Instant) {
        let (Ok(()), Some(version)) = (self.lead().await, self.schema_version().await) else {
            return;
        };
        let statements: Vec<_> = sql::upgrade(version)
            .into_iter()
            .map(rows::statement)
            .collect();
        if let Some(Err(error)) = until(give_up_at, self.client.txn(statements)).await {
            tracing::warn!(%error, "could not create the tables; trying again");
        }
    }

    /// Leaves the cluster's traffic and closes the files, so that the next start need not rebuild.
    ///
    /// hiqlite sleeps 9.5 s here where there is more than one node, and takes at most 20 s.
    pub(super) async fn shut_down(&self) {
        if let Err(error) = self.client.shutdown().await {
            tracing::warn!(%error, "the store did not close cleanly; its next start rebuilds it from the log");
        }
    }
}

async fn view(client: &Client) -> View {
    let Ok(metrics) = client.metrics_db().await else {
        // Only remote clients can fail here; ours is local.
        return View::blind();
    };
    View {
        // A Raft core that has stopped on an error keeps its last metrics.
        leader: metrics
            .running_state
            .is_ok()
            .then_some(metrics.current_leader)
            .flatten(),
        term: metrics.current_term,
        last_log_index: metrics.last_log_index.unwrap_or(0),
        applied_index: metrics.last_applied.map_or(0, |log| log.index),
        voters: metrics.membership_config.voter_ids().collect(),
        quorum_age: metrics.millis_since_quorum_ack.map(Duration::from_millis),
    }
}

impl View {
    const fn blind() -> Self {
        Self {
            leader: None,
            term: 0,
            last_log_index: 0,
            applied_index: 0,
            voters: Vec::new(),
            quorum_age: None,
        }
    }
}

/// Sets one mark for all who wait, again and again. Who comes while a mark is under way waits for the
/// next one, since the current one may have been ordered before some write that he must see.
async fn serve_barriers(
    client: Client,
    node: u64,
    mut waiting: mpsc::Receiver<oneshot::Sender<()>>,
    metrics: Arc<Metrics>,
) {
    let node = Param::from(node.cast_signed());
    // Marks of an earlier life of this node must not be taken for ours.
    let mut mark = id::random_mark();
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, BARRIER_QUEUE_MAX).await > 0 {
        mark = mark.wrapping_add(1);
        let set = async {
            let handed_over = Instant::now();
            client
                .execute(BARRIER, vec![node.clone(), Param::from(mark)])
                .await?;
            metrics.store.written(Entry::Barrier, handed_over.elapsed());
            Ok::<_, Error>(number(&client, BARRIER_MARK, vec![node.clone()]).await)
        };
        match tokio::time::timeout(BARRIER_TIMEOUT, set).await {
            // Reading our own mark back proves that this replica applied it, whoever committed it.
            Ok(Ok(Some(found))) if found == mark => {
                for waiter in batch.drain(..) {
                    // A waiter whose deadline has passed is gone.
                    let _ = waiter.send(());
                }
            }
            Ok(outcome) => tracing::debug!(?outcome, "read barrier failed"),
            Err(_) => tracing::debug!("read barrier timed out"),
        }
        batch.clear();
    }
}

async fn number(
    client: &Client,
    statement: &'static str,
    parameters: hiqlite::Params,
) -> Option<i64> {
    let rows = client
        .query_try_map::<NumberRow, _>(statement, parameters)
        .await
        .ok()?;
    rows.into_iter()
        .next()?
        .ok()
        .map(|NumberRow(number)| number)
}

/// A row with one number.
struct NumberRow(i64);

impl TryFrom<&mut Row<'_>> for NumberRow {
    type Error = Error;

    fn try_from(row: &mut Row<'_>) -> Result<Self, Error> {
        Ok(Self(row.try_get("number")?))
    }
}
