//! Three processes of `mvm-ci serve` on loopback, which can be killed, paused and started again, and a target that speaks
//! HTTP with them.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use mvm_check::{Ask, At, History, NodeId, Target, Told, http};
use mvm_ci::exchange::{Call, exchange};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::ports::free_ports;

/// Longer than any deadline a node promises; a paused node answers nothing for as long as it likes.
const ANSWER_ALLOWED: Duration = Duration::from_secs(5);
/// Only a hang takes this long.
const HANG: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(30);
const NODES: usize = 3;

pub(crate) struct Cluster {
    processes: Vec<Option<Child>>,
    addresses: Vec<SocketAddr>,
    members: String,
    lease: Duration,
    began: Instant,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Starts three nodes and waits until each serves linearizable requests.
    pub(crate) async fn formed(lease: Duration) -> Cluster {
        let ports = free_ports(3 * NODES);
        let members: Vec<String> = ports
            .chunks(3)
            .zip(1..)
            .map(|(ports, id)| format!("{id}=127.0.0.1:{}:{}:{}", ports[0], ports[1], ports[2]))
            .collect();
        let http = ports.iter().step_by(3);
        let mut cluster = Cluster {
            processes: (0..NODES).map(|_| None).collect(),
            addresses: http
                .map(|port| (Ipv4Addr::LOCALHOST, *port).into())
                .collect(),
            members: members.join(","),
            lease,
            began: Instant::now(),
            folder: tempfile::tempdir().unwrap(),
        };
        for node in cluster.nodes() {
            cluster.start(node);
        }
        for node in cluster.nodes() {
            cluster.ready(node).await;
        }
        cluster.began = Instant::now();
        cluster
    }

    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        (1..=self.processes.len() as u64).map(NodeId).collect()
    }

    pub(crate) fn others(&self, node: NodeId) -> Vec<NodeId> {
        self.nodes()
            .into_iter()
            .filter(|other| *other != node)
            .collect()
    }

    pub(crate) fn target(&self) -> Loopback {
        Loopback {
            addresses: self.addresses.clone(),
            began: self.began,
        }
    }

    pub(crate) fn start(&mut self, node: NodeId) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log(node))
            .unwrap();
        let milliseconds = |duration: Duration| duration.as_millis().to_string();
        let child = Command::new(env!("CARGO_BIN_EXE_mvm-ci"))
            .args(["serve", "--node-id", &node.0.to_string()])
            .args(["--members", &self.members])
            .arg("--data-dir")
            .arg(self.folder.path().join(format!("node{}", node.0)))
            .env("MVM_CI_SECRET_RAFT", "raft-secret-for-tests")
            .env("MVM_CI_SECRET_STORE", "store-secret-for-tests")
            // Faster than the default: nothing stalls here as an emulated machine does.
            .env("MVM_CI_HEARTBEAT_MS", "100")
            .env("MVM_CI_ELECTION_MIN_MS", "400")
            .env("MVM_CI_ELECTION_MAX_MS", "800")
            .env("MVM_CI_LEASE_MS", milliseconds(self.lease))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.processes[place(node)] = Some(child);
    }

    /// As `kill -9` does.
    pub(crate) fn kill(&mut self, node: NodeId) {
        if let Some(mut process) = self.processes[place(node)].take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Freezes a node: its connections stay open and nobody answers.
    pub(crate) fn pause(&self, node: NodeId) {
        self.signal(node, "-STOP");
    }

    pub(crate) fn resume(&self, node: NodeId) {
        self.signal(node, "-CONT");
    }

    fn signal(&self, node: NodeId, signal: &str) {
        let process = self.processes[place(node)].as_ref().unwrap();
        let sent = Command::new("kill")
            .args([signal, &process.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    pub(crate) async fn ready(&self, node: NodeId) {
        self.wait(&format!("{node} is ready"), async || {
            let answer = self.get(node, "/ready").await?;
            match answer.0 {
                200 => Ok(()),
                _ => Err(format!("{answer:?}")),
            }
        })
        .await;
    }

    /// The leader that a running node knows and confirms.
    pub(crate) async fn leader(&self) -> NodeId {
        self.wait("there is a leader", async || {
            let mut seen = String::new();
            for node in self.nodes() {
                let (_, cluster) = self.get(node, "/cluster").await.unwrap_or_default();
                match (cluster["quorum"].as_bool(), cluster["leader"].as_u64()) {
                    (Some(true), Some(leader)) => return Ok(NodeId(leader)),
                    _ => seen += &cluster.to_string(),
                }
            }
            Err(seen)
        })
        .await
    }

    async fn get(&self, node: NodeId, path: &str) -> Result<(u16, Value), String> {
        let request = http::Request {
            method: "GET",
            path: path.to_owned(),
            body: None,
        };
        send(self.addresses[place(node)], request, None).await
    }

    async fn wait<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
        let began = Instant::now();
        loop {
            let seen = match look().await {
                Ok(found) => return found,
                Err(seen) => seen,
            };
            assert!(began.elapsed() < HANG, "{what}: {seen}\n{}", self.logs());
            tokio::time::sleep(LOOK).await;
        }
    }

    fn log(&self, node: NodeId) -> PathBuf {
        self.folder.path().join(format!("node{}.log", node.0))
    }

    fn logs(&self) -> String {
        let read = |node| fs::read_to_string(self.log(node)).unwrap_or_default();
        self.nodes().into_iter().map(read).collect()
    }

    /// Writes a history where it outlives the test, with the nodes' logs beside it.
    pub(crate) fn keep(&self, history: &History) -> PathBuf {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("invariants");
        fs::create_dir_all(&folder).unwrap();
        for node in self.nodes() {
            let kept = folder.join(format!("node{}.log", node.0));
            fs::copy(self.log(node), kept).unwrap();
        }
        let file = folder.join("history.jsonl");
        history.write(&mut File::create(&file).unwrap()).unwrap();
        file
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in self.nodes() {
            self.kill(node);
        }
    }
}

/// The nodes as clients see them.
pub(crate) struct Loopback {
    addresses: Vec<SocketAddr>,
    began: Instant,
}

impl http::Wire for Loopback {
    async fn send(
        &self,
        node: NodeId,
        request: http::Request,
        id: Option<&str>,
    ) -> Result<(u16, Value), String> {
        send(self.addresses[place(node)], request, id).await
    }
}

impl Target for Loopback {
    async fn ask(&self, ask: &Ask) -> Told {
        http::ask(self, ask).await
    }

    fn now(&self) -> At {
        At::from(self.began.elapsed())
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

async fn send(
    address: SocketAddr,
    request: http::Request,
    key: Option<&str>,
) -> Result<(u16, Value), String> {
    let sending = async {
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let call = Call {
            host: "node",
            method: request.method,
            path: &request.path,
            body: request.body.map(Into::into),
            key,
        };
        exchange(stream, call).await
    };
    let sent = tokio::time::timeout(ANSWER_ALLOWED, sending).await;
    sent.unwrap_or_else(|_| Err(format!("no answer within {ANSWER_ALLOWED:?}")))
}

/// Node ids count from 1.
fn place(node: NodeId) -> usize {
    usize::try_from(node.0 - 1).unwrap()
}
