//! Three nodes as processes on loopback.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{
    http::Http,
    processes::{folder, free_ports, wait_until_ready},
};

const SIZE: usize = 3;
const PORTS: usize = 4;

pub(crate) struct Node {
    /// Of the HTTP interface.
    pub(crate) port: u16,
    /// Of the workflows'.
    pub(crate) workflows: u16,
    pub(crate) process: Child,
}

impl Node {
    pub(crate) async fn wait_until_ready(&mut self) {
        wait_until_ready(&mut self.process, self.port, "/ready").await;
    }
}

/// The nodes. They are killed when this is dropped, and their data goes.
pub(crate) struct Nodes {
    members: String,
    pub(crate) nodes: Vec<Node>,
    folder: TempDir,
}

impl Nodes {
    /// Starts three nodes, and waits until each serves.
    pub(crate) async fn form() -> Self {
        let folder = folder("nodes");
        let ports = free_ports(PORTS * SIZE);
        let member = |(index, ports): (usize, &[u16])| {
            let [http, raft, store, _] = ports else {
                unreachable!("four ports a node")
            };
            format!("{}=127.0.0.1:{http}:{raft}:{store}", index + 1)
        };
        let members: Vec<String> = ports.chunks(PORTS).enumerate().map(member).collect();
        let members = members.join(",");
        let node = |(index, ports): (usize, &[u16])| Node {
            port: ports[0],
            workflows: ports[PORTS - 1],
            process: start(index, &members, ports[PORTS - 1], folder.path()),
        };
        let mut nodes: Vec<Node> = ports.chunks(PORTS).enumerate().map(node).collect();
        for node in &mut nodes {
            node.wait_until_ready().await;
        }
        Self {
            members,
            nodes,
            folder,
        }
    }

    /// The leader, and the others.
    pub(crate) async fn roles(&self) -> (&Node, Vec<&Node>) {
        let mut http = Http::connect(self.nodes[0].port).await.unwrap();
        let (_, body) = http.get("/cluster").await;
        let cluster: Value = serde_json::from_slice(&body).unwrap();
        let leader = cluster["leader"].as_u64().expect("there is no leader");
        let leader = &self.nodes[usize::try_from(leader).unwrap() - 1];
        let others = self.nodes.iter().filter(|node| node.port != leader.port);
        (leader, others.collect())
    }

    /// Starts a node again that has ended.
    pub(crate) fn start(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.process = start(index, &self.members, node.workflows, self.folder.path());
    }
}

fn start(index: usize, members: &str, workflows: u16, folder: &Path) -> Child {
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
        .env("MVM_CI_FLOW_LISTEN", format!("127.0.0.1:{workflows}"))
        .env("MVM_CI_SECRET_RAFT", "raft-secret-of-the-bench")
        .env("MVM_CI_SECRET_STORE", "store-secret-of-the-bench")
        .env("MVM_CI_LOG", "warn")
        // Where no configuration file is.
        .current_dir(folder)
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}
