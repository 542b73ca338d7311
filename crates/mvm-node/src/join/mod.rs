//! How a node without data gets into its cluster, so that there is never a second one and nothing acknowledged is lost.
//!
//! An empty disk looks the same on the first start of all and after a loss. Two things must not happen in the second
//! case: node 1 founding a cluster beside the one it was in, and a node with an empty log voting while acknowledged
//! entries need its vote to survive. So a node without data opens no Raft port before it knows better:
//!
//! ```text
//!  no data ──▶ ask all others, again and again ──▶ all are new, and this is node 1 ───────────▶ found
//!     ▲               │                            a read through another is linearizable ────▶ join
//!     │               └── neither: wait, and       node 1 is founding, the rest have no data ─▶ join
//!     │                    GET /ready says why
//!  phases of a directory: new ──▶ founding, restoring or joining ──▶ member
//! ```
//!
//! The second rule is the one for a lost disk. The read commits a mark in the log while this node has no part in any
//! majority; so a majority of the others has all that was acknowledged before, and an empty log here cannot lose it.
//! The third rule lets nodes join while node 1 is still busy founding; then nobody has acknowledged anything yet.
//!
//! What lives elsewhere: hiqlite does the joining, removing a lost member first; [`crate::serve`] starts it.

mod decision;
mod directory;

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};

use self::decision::{Heard, Step, decide};
pub(crate) use self::directory::Directory;
pub use self::directory::{DirectoryError, Phase, Standing};
use crate::{
    id,
    store::{ClusterStore, Role, Store as _},
};

/// Between two rounds of questions.
const ROUND_PAUSE: Duration = Duration::from_millis(200);

/// While others elect, they are asked so often.
const ELECTION_PAUSE: Duration = Duration::from_millis(50);

/// A wait is told in the log when it begins, and then so seldom.
const LOG_PERIOD: Duration = Duration::from_secs(30);

/// Waits until a node without data may start its Raft, and says in which phase and which cluster it then is.
///
/// That may be never. Nothing is lost by dropping the future.
pub(crate) async fn admission(store: &Arc<ClusterStore>) -> Standing {
    let node = store.standing().node;
    let mut logged: Option<Instant> = None;
    loop {
        let heard = ask_all(store).await;
        let cluster = heard.iter().find_map(|(_, _, cluster)| cluster.clone());
        let others: Vec<_> = heard
            .into_iter()
            .map(|(peer, heard, _)| (peer, heard))
            .collect();
        let (phase, cluster) = match decide(node, &others) {
            Step::Found => (Phase::Founding, Some(id::random_cluster())),
            Step::Join => (Phase::Joining, cluster),
            Step::Wait(reason) => {
                if logged.is_none_or(|logged| logged.elapsed() >= LOG_PERIOD) {
                    tracing::warn!(node, %reason, "this node has no data, and waits with joining");
                    logged = Some(Instant::now());
                }
                store.wait_for(reason);
                tokio::time::sleep(ROUND_PAUSE).await;
                continue;
            }
        };
        return Standing {
            node,
            phase,
            cluster,
        };
    }
}

/// Looks for another node that belongs to another cluster than this node's data. Who does not answer at once is
/// taken to belong to the same.
pub(crate) async fn stranger(store: &Arc<ClusterStore>) -> Option<u64> {
    let own = store.standing().cluster?;
    let heard = ask_all(store).await;
    heard
        .into_iter()
        .find(|(_, _, theirs)| theirs.as_ref().is_some_and(|theirs| *theirs != own))
        .map(|(peer, ..)| peer)
}

/// Lets the others elect a leader before this node takes part again, if they are a majority; `patience` at most.
///
/// A leader that is back before its absence is noticed would lead on, and hiqlite then keeps it from serving for 6 s.
pub(crate) async fn let_others_lead(store: &Arc<ClusterStore>, patience: Duration) {
    let deadline = Instant::now() + patience;
    loop {
        let mut asking = JoinSet::new();
        for peer in store.others() {
            let store = Arc::clone(store);
            asking.spawn(async move { store.role_of(peer).await });
        }
        let roles = asking.join_all().await;
        let present = roles.iter().filter(|role| **role != Role::Absent).count();
        let members = roles.len() + 1;
        let majority = members / 2 + 1;
        if roles.contains(&Role::Commits) || present < majority || Instant::now() >= deadline {
            return;
        }
        tokio::time::sleep(ELECTION_PAUSE).await;
    }
}

/// One question to each other node, all at once; two to those that have data.
async fn ask_all(store: &Arc<ClusterStore>) -> Vec<(u64, Heard, Option<String>)> {
    let mut asking = JoinSet::new();
    for peer in store.others() {
        let store = Arc::clone(store);
        asking.spawn(async move {
            let standing = store.standing_of(peer).await;
            let (heard, cluster) = match standing {
                Ok(Standing {
                    phase: Phase::New, ..
                }) => (Heard::Says(Phase::New), None),
                // A node of an earlier build does not know the question, and serves the read.
                _ if store.standing().phase == Phase::New
                    && store.role_of(peer).await == Role::Commits =>
                {
                    (
                        Heard::Commits,
                        standing.ok().and_then(|known| known.cluster),
                    )
                }
                Ok(Standing { phase, cluster, .. }) => (Heard::Says(phase), cluster),
                Err(detail) => (Heard::Silent(detail), None),
            };
            (peer, heard, cluster)
        });
    }
    let mut heard = asking.join_all().await;
    heard.sort_by_key(|(peer, ..)| *peer);
    heard
}
