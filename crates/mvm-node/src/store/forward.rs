//! A follower's way to its leader: commands that come at the same time share one request.
//!
//! ```text
//!   propose ──▶ waiting ──▶ lane of the peer: two requests at a time ──▶ peers ──▶ proposals ──▶ answers
//!      └── its time is over: still waiting? then it is taken back, and was not handed over
//! ```
//!
//! While requests are on their way to the leader and back the next one gathers, so that a request costs the less the more
//! there is to do.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use mvm_queue::Command;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    Deadline,
    handing::{Waiting, handing},
    peers::{Exchange, Peers, until},
};
use crate::{
    consensus::{Proposal, Unavailable},
    http::internal,
    request,
};

/// Commands in one request.
pub(crate) const FORWARDED_MAX: usize = 32;
/// Requests under way to a peer.
const UNDER_WAY_MAX: usize = 2;
/// Commands that may wait for the next request; more than that wait before the queue.
const WAITING_MAX: usize = 4_096;

/// A command on its way to another node.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ForwardedCommand {
    pub(crate) command: Command,
    /// The request on whose behalf, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) request: Option<String>,
}

struct Forward {
    forwarded: ForwardedCommand,
    give_up_at: Instant,
    waiting: Waiting,
    answer: oneshot::Sender<Proposal>,
}

/// The ways to all peers.
pub(super) struct Forwarder {
    peers: Arc<Peers>,
    lanes: Mutex<HashMap<u64, mpsc::Sender<Forward>>>,
    /// Drops, and so ends, the lanes with this.
    tasks: Mutex<JoinSet<()>>,
}

impl Forwarder {
    pub(super) fn new(peers: Arc<Peers>) -> Self {
        Self {
            peers,
            lanes: Mutex::default(),
            tasks: Mutex::default(),
        }
    }

    /// Hands a command to a peer, with others that come at the same time.
    pub(super) async fn propose(
        &self,
        peer: u64,
        command: &Command,
        deadline: Deadline,
    ) -> Proposal {
        let (handing, waiting) = handing();
        let (answer, answered) = oneshot::channel();
        let forward = Forward {
            forwarded: ForwardedCommand {
                command: command.clone(),
                request: request::current(),
            },
            give_up_at: deadline.give_up_at,
            waiting,
            answer,
        };
        let lane = self.lane(peer);
        let answered = async {
            lane.send(forward).await.ok()?;
            answered.await.ok()
        };
        tokio::pin!(answered);
        let proposal = match until(deadline.refuse_at, &mut answered).await {
            Some(proposal) => proposal,
            // The peer may be about to answer others.
            None if handing.take_back() => {
                return unreachable(peer, "its turn did not come".into());
            }
            None => until(deadline.give_up_at, answered).await.flatten(),
        };
        match proposal {
            Some(proposal) => proposal,
            None if handing.take_back() => unreachable(peer, "the way to it is closed".into()),
            None => Proposal::Unknown,
        }
    }

    fn lane(&self, peer: u64) -> mpsc::Sender<Forward> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = lanes.entry(peer).or_insert_with(|| {
            let (lane, waiting) = mpsc::channel(WAITING_MAX);
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.spawn(forward(Arc::clone(&self.peers), peer, waiting));
            lane
        });
        lane.clone()
    }
}

/// Sends request after request.
async fn forward(peers: Arc<Peers>, peer: u64, mut waiting: mpsc::Receiver<Forward>) {
    let mut gathered = Vec::new();
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            count = waiting.recv_many(&mut gathered, FORWARDED_MAX),
                if under_way.len() < UNDER_WAY_MAX =>
            {
                if count == 0 {
                    return;
                }
                let mut batch = std::mem::take(&mut gathered);
                batch.retain(|forward| forward.waiting.hand_over());
                if !batch.is_empty() {
                    under_way.push(exchange(&peers, peer, batch));
                }
            }
            Some(()) = under_way.next() => {}
        }
    }
}

async fn exchange(peers: &Peers, peer: u64, batch: Vec<Forward>) {
    let Some(give_up_at) = batch.iter().map(|forward| forward.give_up_at).max() else {
        return;
    };
    let (commands, answers): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .map(|forward| (forward.forwarded, forward.answer))
        .unzip();
    let exchanged = peers.call(peer, internal::PROPOSE, &commands, give_up_at);
    let proposals = match exchanged.await {
        Exchange::Answered(proposals) => proposals,
        Exchange::NotSent { detail } => vec![unreachable(peer, detail); answers.len()],
        Exchange::Lost => Vec::new(),
    };
    // Without an answer nobody knows.
    let proposals = proposals
        .into_iter()
        .chain(std::iter::repeat(Proposal::Unknown));
    for (answer, proposal) in answers.into_iter().zip(proposals) {
        // Whoever waited for it may be gone.
        let _ = answer.send(proposal);
    }
}

const fn unreachable(leader: u64, detail: String) -> Proposal {
    Proposal::Unavailable {
        cause: Unavailable::LeaderUnreachable { leader, detail },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::{Json, Router, routing::post};
    use mvm_queue::{Change, JobId, RequestId, UnixMillis, Versioned};
    use tokio::{net::TcpListener, sync::Semaphore};

    use super::*;

    const PEER: u64 = 2;
    const LONG: Duration = Duration::from_secs(60);

    fn command(name: &str) -> Command {
        Command {
            request: RequestId(name.into()),
            at: UnixMillis(1),
            change: Change::Resume {
                job: JobId("job".into()),
            },
        }
    }

    fn forwarder(port: u16) -> Arc<Forwarder> {
        let addresses = HashMap::from([(PEER, ("127.0.0.1".to_owned(), port))]);
        let peers = Peers::new(addresses, "secret".to_owned().into(), None, Arc::default());
        Arc::new(Forwarder::new(Arc::new(peers)))
    }

    /// A peer that answers as many requests as it is allowed, and tells what was in each that it heard.
    async fn peer(
        allowed: Arc<Semaphore>,
        answers: usize,
    ) -> (u16, mpsc::UnboundedReceiver<Vec<String>>) {
        let (tell, heard) = mpsc::unbounded_channel();
        let propose = async move |Json(asked): Json<Versioned<Vec<ForwardedCommand>>>| {
            let names = asked.body.iter().map(|asked| {
                let request = asked.request.as_deref().unwrap_or("nobody");
                format!("{} for {request}", asked.command.request.0)
            });
            tell.send(names.collect()).unwrap();
            allowed.acquire().await.unwrap().forget();
            let proposals: Vec<_> = asked
                .body
                .iter()
                .take(answers)
                .map(|asked| Proposal::Broken {
                    detail: asked.command.request.0.clone(),
                })
                .collect();
            Json(Versioned::new(proposals))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().route(internal::PROPOSE, post(propose));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (port, heard)
    }

    fn propose(
        forwarder: &Arc<Forwarder>,
        name: &str,
        allowed: Duration,
    ) -> tokio::task::JoinHandle<Proposal> {
        let (forwarder, command) = (Arc::clone(forwarder), command(name));
        let refuse_at = Instant::now() + allowed;
        let deadline = Deadline {
            refuse_at,
            give_up_at: refuse_at + allowed,
        };
        let request = format!("request-{name}");
        tokio::spawn(request::within(request, async move {
            forwarder.propose(PEER, &command, deadline).await
        }))
    }

    fn decided(name: &str) -> Proposal {
        Proposal::Broken {
            detail: name.into(),
        }
    }

    #[tokio::test]
    async fn what_comes_while_requests_are_under_way_shares_the_next_one() {
        let allowed = Arc::new(Semaphore::new(0));
        let (port, mut heard) = peer(Arc::clone(&allowed), usize::MAX).await;
        let forwarder = forwarder(port);
        let mut under_way = Vec::new();
        for name in ["a", "b"] {
            under_way.push((name, propose(&forwarder, name, LONG)));
            assert_eq!(
                heard.recv().await.unwrap(),
                [format!("{name} for request-{name}")]
            );
        }
        let names: Vec<_> = (0..FORWARDED_MAX + 1).map(|n| n.to_string()).collect();
        for name in &names {
            under_way.push((name, propose(&forwarder, name, LONG)));
            tokio::task::yield_now().await;
        }
        assert!(heard.try_recv().is_err());
        allowed.add_permits(4);
        // Both are under way at once, and are heard in either order.
        let mut counts = [0; 2];
        for count in &mut counts {
            *count = heard.recv().await.unwrap().len();
        }
        counts.sort_unstable();
        assert_eq!(counts, [1, FORWARDED_MAX]);
        for (name, proposal) in under_way {
            assert_eq!(proposal.await.unwrap(), decided(name));
        }
    }

    #[tokio::test]
    async fn what_nobody_was_handed_is_not_applied() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let proposal = propose(&forwarder(port), "a", LONG).await.unwrap();
        assert!(
            matches!(
                proposal,
                Proposal::Unavailable {
                    cause: Unavailable::LeaderUnreachable { leader: PEER, .. }
                }
            ),
            "{proposal:?}"
        );
    }

    #[tokio::test]
    async fn what_is_too_late_is_unknown_if_it_was_handed_over_and_else_was_not() {
        let (port, mut heard) = peer(Arc::new(Semaphore::new(0)), usize::MAX).await;
        let forwarder = forwarder(port);
        let mut under_way = Vec::new();
        for name in ["a", "b"] {
            under_way.push(propose(&forwarder, name, Duration::from_millis(500)));
            heard.recv().await.unwrap();
        }
        let late = propose(&forwarder, "c", Duration::from_millis(10));
        assert!(matches!(late.await.unwrap(), Proposal::Unavailable { .. }));
        let dropped = propose(&forwarder, "d", LONG);
        tokio::task::yield_now().await;
        dropped.abort();
        for proposal in under_way {
            assert_eq!(proposal.await.unwrap(), Proposal::Unknown);
        }
        // The two that were taken back are not sent when there is room.
        let next = propose(&forwarder, "e", LONG);
        assert_eq!(heard.recv().await.unwrap(), ["e for request-e"]);
        next.abort();
    }

    #[tokio::test]
    async fn who_is_not_in_the_answer_knows_nothing() {
        let allowed = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let (port, _heard) = peer(allowed, 0).await;
        let proposal = propose(&forwarder(port), "a", LONG).await.unwrap();
        assert_eq!(proposal, Proposal::Unknown);
    }
}
