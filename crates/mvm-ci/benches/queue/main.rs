//! The queue of three real nodes beside PostgreSQL: jobs per second and the latency of each step, what a long queue
//! costs, memory, and how long nodes take to form, restart and stop.
//!
//! Prints one line of JSON per measurement; `cargo xtask bench queue` repeats it and prints the medians. The
//! processors are shared by the nodes, or the peer, and the clients that load them.
//!
//! # Method
//!
//! - The nodes are `mvm-ci serve` in its default configuration, so an acknowledged write is synced to the disks of two
//!   of them, here one disk: data is in `/var/tmp`, which is no memory file system. They talk over loopback.
//! - A client is one connection that is kept, and a closed loop: submit a job, claim one (any), start it, finish it, each
//!   an HTTP request and a replicated write. Clients are spread over the nodes, the leader first, or all at one follower.
//! - The peer is one PostgreSQL with `fsync` and `synchronous_commit`, and else as Debian ships it: *not replicated*,
//!   and asked over a Unix socket in its own protocol, not HTTP. Its jobs carry the same payload and take three
//!   writes, since claiming starts them: `INSERT`, `UPDATE ... FOR UPDATE SKIP LOCKED`, `UPDATE`.
//! - A rate counts the jobs that ended within the window; the first moments are left out.
//! - The long queue is filled over HTTP, by many clients that only submit, with jobs that go before all others and
//!   that the claiming worker may not take. One client then measures, each claim a job of its own.
//!   Up to 100,000 jobs, or with `--large` up to a million. What a claim costs the database alone, in more cases, is
//!   measured by the bench `claim` of `mvm-queue`.
//! - Memory is the resident set of each node's process, mapped files included, and the part of it that is its own.

// The lines are this program's output, and a measurement that cannot be made ends it.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

#[path = "../shared/http.rs"]
mod http;
#[path = "../shared/load.rs"]
mod load;
mod long;
mod node_client;
#[path = "../shared/nodes.rs"]
mod nodes;
mod postgres;
#[path = "../shared/print.rs"]
mod print;
#[path = "../shared/processes.rs"]
mod processes;
mod restart;

use std::time::Instant;

use load::Load;
use node_client::NodeClient;
use nodes::{Node, Nodes};
use postgres::Postgres;
use print::{millis, print, print_at_least, say};

const CLIENTS: [usize; 3] = [1, 16, 64];
/// What hiqlite's own client reached with 64 writers here, one command an entry.
const UNBATCHED_WRITES: f64 = 1_300.0;
const WRITES_PER_JOB: f64 = 4.0;

fn main() {
    let large = std::env::args().any(|argument| argument == "--large");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let start = Instant::now();
        let mut nodes = Nodes::form().await;
        print("three nodes form", "s", start.elapsed().as_secs_f64());
        let ours = node_rates(&nodes).await;
        let theirs = postgres_rates().await;
        for ((clients, ours), theirs) in CLIENTS.iter().zip(ours).zip(theirs) {
            print(
                &format!(
                    "jobs, three nodes over HTTP to one PostgreSQL, {}",
                    say(*clients)
                ),
                "x",
                ours / theirs,
            );
        }
        long::measure(&nodes, large).await;
        let (stop, restart) = restart::follower(&mut nodes).await;
        print("a follower stops in order", "s", stop.as_secs_f64());
        print("a follower starts again", "s", restart.as_secs_f64());
    });
}

async fn node_rates(nodes: &Nodes) -> Vec<f64> {
    let (leader, followers) = nodes.roles().await;
    let ports = |nodes: &[&Node]| nodes.iter().map(|node| node.port).collect();
    let followers: Vec<u16> = ports(&followers);
    let all: Vec<u16> = [&[leader.port], &followers[..]].concat();
    let mut rates = Vec::new();
    for clients in CLIENTS {
        let load = run_nodes(&all, clients).await;
        let what = format!("nodes, {}", say(clients));
        let writes = load.rate() * WRITES_PER_JOB;
        print(&format!("{what}: jobs"), "1/s", load.rate());
        if clients == 64 {
            print_at_least(&format!("{what}: writes"), "1/s", writes, UNBATCHED_WRITES);
        } else {
            print(&format!("{what}: writes"), "1/s", writes);
        }
        print_steps(&what, &load);
        rates.push(load.rate());
    }
    for clients in CLIENTS {
        let load = run_nodes(&followers[..1], clients).await;
        let what = format!("nodes, {} at a follower", say(clients));
        print(&format!("{what}: jobs"), "1/s", load.rate());
    }
    rates
}

async fn run_nodes(ports: &[u16], clients: usize) -> Load {
    let mut connected = Vec::new();
    for number in 0..clients {
        connected.push(NodeClient::connect(ports[number % ports.len()], number).await);
    }
    load::run(connected).await
}

async fn postgres_rates() -> Vec<f64> {
    let mut postgres = Postgres::start().await;
    eprintln!("peer: PostgreSQL {}", postgres.version().await);
    let mut rates = Vec::new();
    for clients in CLIENTS {
        let mut connected = Vec::new();
        for _ in 0..clients {
            connected.push(postgres.connect().await);
        }
        let load = load::run(connected).await;
        let what = format!("PostgreSQL, {}", say(clients));
        print(&format!("{what}: jobs"), "1/s", load.rate());
        print_steps(&what, &load);
        rates.push(load.rate());
    }
    postgres.stop().await;
    rates
}

fn print_steps(what: &str, load: &Load) {
    for (step, sorted) in load.steps() {
        print(&format!("{what}: {step}, p50"), "ms", millis(sorted.at(50)));
        print(&format!("{what}: {step}, p99"), "ms", millis(sorted.at(99)));
    }
}
