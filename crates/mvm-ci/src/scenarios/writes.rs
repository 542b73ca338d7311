//! Clients that write to every node while something happens to the network, and what they were told by second.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use mvm_lab::{
    node::Node,
    scenario::{Failure, Outcome},
};

use super::{api::Submitted, cluster_nodes::Cluster};

/// A client waits this long after an answer.
const PACE: Duration = Duration::from_millis(300);
/// How often the agents are asked whether their machines live.
const PULSE: Duration = Duration::from_millis(100);
/// An agent that answers nothing for so long is gone.
const PULSE_ALLOWED: Duration = Duration::from_secs(30);

/// What clients were told, by the second in which it was.
#[derive(Debug, Default)]
pub(super) struct Writes {
    seconds: Vec<[usize; 3]>,
    /// The longest time in which a machine did not answer its agent channel, which the network has no part in.
    pub(super) longest_silence: Duration,
}

impl Writes {
    fn count(&mut self, second: u64, submitted: &Submitted) {
        let second = usize::try_from(second).unwrap_or(usize::MAX - 1);
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, [0; 3]);
        }
        let kind = match submitted {
            Submitted::Accepted => 0,
            Submitted::Refused => 1,
            Submitted::Unknown => 2,
        };
        self.seconds[second][kind] += 1;
    }

    fn line(&self, kind: usize) -> String {
        let counts = self.seconds.iter().map(|second| second[kind].to_string());
        counts.collect::<Vec<_>>().join(" ")
    }

    pub(super) fn accepted(&self) -> usize {
        self.seconds.iter().map(|second| second[0]).sum()
    }
}

impl fmt::Display for Writes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "writes by second: accepted {}; refused {}; outcome unknown {}; longest silence of a machine {:.2} s",
            self.line(0),
            self.line(1),
            self.line(2),
            self.longest_silence.as_secs_f64()
        )
    }
}

/// Does `work` while a client of each node submits jobs under `prefix`, one after the other, and every agent is asked
/// whether its machine lives.
pub(super) async fn during<T>(
    cluster: &Cluster<'_>,
    prefix: &str,
    work: impl Future<Output = Outcome<T>>,
) -> Outcome<(T, Writes)> {
    let began = Instant::now();
    let done = AtomicBool::new(false);
    let going = || !done.load(Ordering::Relaxed);
    let writes = Mutex::new(Writes::default());
    let lock = || writes.lock().unwrap_or_else(PoisonError::into_inner);
    let clients = cluster.names().into_iter().map(|name| async move {
        let mut number = 0;
        while going() {
            number += 1;
            let url = format!("https://example.org/{prefix}/{name}/{number}");
            let (submitted, _) = cluster.submit(name, &url).await?;
            lock().count(began.elapsed().as_secs(), &submitted);
            tokio::time::sleep(PACE).await;
        }
        Ok::<_, Failure>(())
    });
    let pulses = cluster.names().into_iter().map(|name| async move {
        while going() {
            let silence = pulse(cluster.node(name)).await?;
            let mut writes = lock();
            writes.longest_silence = writes.longest_silence.max(silence);
        }
        Ok::<_, Failure>(())
    });
    let worked = async {
        let worked = work.await;
        done.store(true, Ordering::Relaxed);
        worked
    };
    let (worked, clients, pulses) =
        tokio::join!(worked, try_join_all(clients), try_join_all(pulses));
    let worked = worked?;
    clients?;
    pulses?;
    let writes = std::mem::take(&mut *lock());
    Ok((worked, writes))
}

/// Asks a machine's agent for a sign of life; returns how long it took.
async fn pulse(node: &Node) -> Outcome<Duration> {
    tokio::time::sleep(PULSE).await;
    let asked = Instant::now();
    let answered = node.agent()?.ping(PULSE_ALLOWED).await;
    answered.map_err(|error| Failure::trouble(&error))?;
    Ok(asked.elapsed())
}
