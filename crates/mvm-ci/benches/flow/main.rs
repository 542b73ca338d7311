//! Workflows of ten journalled requests beside Restate: per second and how long each takes, on one engine with its SQLite
//! journal and on three nodes with the replicated one; how soon a workflow starts; what a replay and a sleeper cost.
//!
//! Prints one line of JSON per measurement; `cargo xtask bench flow` repeats it and prints the medians. The
//! processors are shared by the engines, or the peer, the server that workflows ask, and the clients.
//!
//! By hand, `cargo bench -p mvm-ci --bench flow -- engine` measures one part only: `engine`, `nodes` or `peer`.
//!
//! # Method
//!
//! - The workflow asks a server of this program for ten paths, one after the other, over a connection that is kept. Each
//!   request is journalled before it is sent and after its answer: it may not be sent twice. A journal's entry is on the
//!   disk, of two of three nodes in the replicated case, before what comes after it happens; data is in `/var/tmp`,
//!   which is no memory file system.
//! - A client is one connection that is kept, and a closed loop: start a workflow and wait for its response, in one HTTP
//!   request. Clients of nodes are spread over them, the leader first.
//! - The peer is Restate's server as it is shipped, which syncs its log to the disk: *one node, not replicated*. Its
//!   service is a Node.js process, `peer/service.mjs`, since the server runs no code of workflows; each of its steps is
//!   journalled once, after the answer, and may so be sent twice.
//! - Each place has run the workflow once before: a module is compiled where it first runs.
//! - A rate counts the workflows that ended within the window; the first moments are left out.
//! - A replay is `mvm-ci flow replay`, process and all, of a workflow of so many entries.
//! - Sleepers sleep for a day. What they cost is the resident set of the engine's process when all sleep, and the part of it
//!   that is its own and not mapped files.

// The lines are this program's output, and a measurement that cannot be made ends it.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod asked;
mod caller;
mod engine;
#[path = "../shared/http.rs"]
#[allow(dead_code, reason = "the bench of the queue uses all of it")]
mod http;
#[path = "../shared/load.rs"]
mod load;
#[path = "../shared/nodes.rs"]
#[allow(dead_code, reason = "the bench of the queue uses all of it")]
mod nodes;
#[path = "../shared/print.rs"]
mod print;
#[path = "../shared/processes.rs"]
#[allow(dead_code, reason = "the bench of the queue uses all of it")]
mod processes;
mod replay;
mod restate;
mod sleepers;

use asked::Asked;
use caller::{Caller, deploy, echo_of_engine, steps_of_engine};
use engine::Engine;
use nodes::Nodes;
use print::{millis, print, print_at_least, say};
use restate::Restate;

const CLIENTS: [usize; 2] = [1, 64];
/// What one engine should do at least, to what the peer does.
const STANDALONE_MIN: f64 = 3.0;
/// The same for three nodes, which do it twice.
const REPLICATED_MIN: f64 = 1.0;

/// Workflows per second, for each number of clients.
type Rates = Vec<f64>;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let asked = Asked::start().await;
        match std::env::args()
            .skip(1)
            .find(|word| !word.starts_with('-'))
            .as_deref()
        {
            Some("engine") => drop(of_an_engine(&asked).await),
            Some("nodes") => drop(of_nodes(&asked).await),
            Some("peer") => drop(of_restate(&asked).await),
            Some(other) => panic!("there is no part {other}"),
            None => all(&asked).await,
        }
    });
}

async fn all(asked: &Asked) {
    let standalone = of_an_engine(asked).await;
    let replicated = of_nodes(asked).await;
    let Some(theirs) = of_restate(asked).await else {
        return;
    };
    for (place, clients) in CLIENTS.iter().enumerate() {
        let clients = say(*clients);
        print_at_least(
            &format!("one engine to Restate, {clients}"),
            "x",
            standalone[place] / theirs[place],
            STANDALONE_MIN,
        );
        print_at_least(
            &format!("three nodes to one Restate, {clients}"),
            "x",
            replicated[place] / theirs[place],
            REPLICATED_MIN,
        );
    }
}

async fn of_an_engine(asked: &Asked) -> Rates {
    let engine = Engine::start().await;
    deploy(engine.port).await;
    let rates = rates("one engine", &[engine.port], &steps_of_engine(asked)).await;
    latency("one engine", &[engine.port], &echo_of_engine()).await;
    replay::measure(&engine).await;
    sleepers::measure(&engine).await;
    rates
}

async fn of_nodes(asked: &Asked) -> Rates {
    let nodes = Nodes::form().await;
    let (leader, followers) = nodes.roles().await;
    let all = std::iter::once(leader).chain(followers);
    let ports: Vec<u16> = all.map(|node| node.workflows).collect();
    deploy(ports[0]).await;
    let rates = rates("three nodes", &ports, &steps_of_engine(asked)).await;
    latency("three nodes", &ports, &echo_of_engine()).await;
    rates
}

async fn of_restate(asked: &Asked) -> Option<Rates> {
    let restate = Restate::start().await?;
    let ports = [restate.port];
    let rates = rates("Restate", &ports, &restate::steps(asked)).await;
    latency("Restate", &ports, &restate::echo()).await;
    Some(rates)
}

async fn rates(what: &str, ports: &[u16], caller: &Caller) -> Rates {
    caller.warm_up(ports).await;
    let mut rates = Vec::new();
    for clients in CLIENTS {
        let load = load::run(caller.connected(ports, clients).await).await;
        let what = format!("{what}, {}: ten steps", say(clients));
        print(&what, "1/s", load.rate());
        for (_, sorted) in load.steps() {
            print(&format!("{what}, p50"), "ms", millis(sorted.at(50)));
            print(&format!("{what}, p99"), "ms", millis(sorted.at(99)));
        }
        rates.push(load.rate());
    }
    rates
}

/// How soon a workflow that does nothing has answered.
async fn latency(what: &str, ports: &[u16], caller: &Caller) {
    let load = load::run(caller.connected(ports, 1).await).await;
    for (_, sorted) in load.steps() {
        print(
            &format!("{what}: start to response, p50"),
            "ms",
            millis(sorted.at(50)),
        );
        print(
            &format!("{what}: start to response, p99"),
            "ms",
            millis(sorted.at(99)),
        );
    }
}
