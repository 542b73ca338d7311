//! A follower that stops in order and starts again.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{nodes::Nodes, processes::stop};

/// How long it took to end, and then to serve.
pub(crate) async fn follower(nodes: &mut Nodes) -> (Duration, Duration) {
    let (leader, _) = nodes.roles().await;
    let leader = leader.port;
    let index = nodes.nodes.iter().position(|node| node.port != leader);
    let index = index.unwrap();
    let start_of_stop = Instant::now();
    stop(&mut nodes.nodes[index].process, Signal::TERM).await;
    let stopped = start_of_stop.elapsed();
    let start_of_start = Instant::now();
    nodes.start(index);
    nodes.nodes[index].wait_until_ready().await;
    (stopped, start_of_start.elapsed())
}
