//! Three nodes as processes on loopback.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{
    http::Http,
    processes::{folder, stop},
};

const SIZE: usize = 3;
/// hiqlite waits for seconds at several points while it forms.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
const POLL_PERIOD: Duration = Duration::from_millis(50);

struct Node {
    port: u16,
    process: Child,
}

impl Node {
    async fn wait_until_ready(&mut self) {
        let start = Instant::now();
        loop {
            if let Some(mut http) = Http::connect(self.port).await
                && http.get("/ready").await.0.is_success()
            {
                return;
            }
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("a node ended: {status}");
            }
            assert!(start.elapsed() < READY_TIMEOUT, "a node is not ready");
            tokio::time::sleep(POLL_PERIOD).await;
        }
    }
}

/// The nodes. They are killed when this is dropped, and their data goes.
pub(crate) struct Nodes {
    members: String,
    nodes: Vec<Node>,
    folder: TempDir,
}

impl Nodes {
    /// Starts three nodes, and waits until each serves.
    pub(crate) async fn form() -> Self {
        let folder = folder("nodes");
        let ports = free_ports(3 * SIZE);
        let member = |(index, ports): (usize, &[u16])| {
            let [http, raft, store] = ports else {
                unreachable!("three ports a node")
            };
            format!("{}=127.0.0.1:{http}:{raft}:{store}", index + 1)
        };
        let members: Vec<String> = ports.chunks(3).enumerate().map(member).collect();
        let members = members.join(",");
        let node = |(index, ports): (usize, &[u16])| Node {
            port: ports[0],
            process: start(index, &members, folder.path()),
        };
        let mut nodes: Vec<Node> = ports.chunks(3).enumerate().map(node).collect();
        for node in &mut nodes {
            node.wait_until_ready().await;
        }
        Self {
            members,
            nodes,
            folder,
        }
    }

    /// The HTTP ports of the leader and of the others.
    pub(crate) async fn roles(&self) -> (u16, Vec<u16>) {
        let mut http = Http::connect(self.nodes[0].port).await.unwrap();
        let (_, body) = http.get("/cluster").await;
        let cluster: Value = serde_json::from_slice(&body).unwrap();
        let leader = cluster["leader"].as_u64().expect("there is no leader");
        let leader = self.nodes[usize::try_from(leader).unwrap() - 1].port;
        let ports = self.nodes.iter().map(|node| node.port);
        (leader, ports.filter(|port| *port != leader).collect())
    }

    /// The resident set of a node, and the part of it that is not mapped files, in MiB.
    pub(crate) fn memory(&self, port: u16) -> (f64, f64) {
        let node = self.nodes.iter().find(|node| node.port == port).unwrap();
        let pid = node.process.id().unwrap();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
            kib / 1024.0
        };
        (field("VmRSS:"), field("RssAnon:"))
    }

    /// Stops a follower in order and starts it again: how long it took to end, and then to serve.
    pub(crate) async fn restart_follower(&mut self) -> (Duration, Duration) {
        let (leader, _) = self.roles().await;
        let index = self.nodes.iter().position(|node| node.port != leader);
        let index = index.unwrap();
        let start_of_stop = Instant::now();
        stop(&mut self.nodes[index].process, Signal::TERM).await;
        let stopped = start_of_stop.elapsed();
        let start_of_start = Instant::now();
        self.nodes[index].process = start(index, &self.members, self.folder.path());
        self.nodes[index].wait_until_ready().await;
        (stopped, start_of_start.elapsed())
    }
}

fn start(index: usize, members: &str, folder: &Path) -> Child {
    let id = (index + 1).to_string();
    Command::new(env!("CARGO_BIN_EXE_mvm-ci"))
        .args([
            "serve",
            "--members",
            members,
            "--node-id",
            &id,
            "--data-dir",
        ])
        .arg(folder.join(&id))
        .env("MVM_CI_SECRET_RAFT", "raft-secret-of-the-bench")
        .env("MVM_CI_SECRET_STORE", "store-secret-of-the-bench")
        .env("RUST_LOG", "warn")
        // Where no configuration file is.
        .current_dir(folder)
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

fn free_ports(count: usize) -> Vec<u16> {
    // All are held until all are known.
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
        .collect();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    listeners.iter().map(port).collect()
}
