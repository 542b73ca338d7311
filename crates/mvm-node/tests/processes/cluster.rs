//! Nodes as child processes on loopback, on free ports, with their data in a temporary directory.
//!
//! A child is this test binary again, told by its environment to run a node instead of tests; see
//! [`run_node_if_child`]. It dies with the thread that started it, and is killed when dropped.

use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use mvm_node::config::{Config, Settings, Sources};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde_json::Value;

use crate::{
    ports::free_ports,
    support::{Answer, get},
};

const CHILD: &str = "MVM_NODE_TEST_CHILD";

/// Tells a child to restore this file.
const RESTORE: &str = "MVM_NODE_TEST_RESTORE";

/// No wait in these tests is expected to take a third of this.
const HANG: Duration = Duration::from_secs(40);

/// To be called by the test that children run.
pub(crate) fn run_node_if_child() {
    let Ok(parent) = std::env::var(CHILD) else {
        return;
    };
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    // The parent may have died before the line above.
    let alive =
        rustix::process::getppid().is_some_and(|pid| pid.as_raw_nonzero().to_string() == parent);
    assert!(alive, "orphaned");
    let sources = Sources {
        file: None,
        environment: std::env::vars_os().collect(),
        flags: Settings::default(),
    };
    let config = Config::load(sources).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let outcome = runtime.block_on(async {
        let mut stop =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        let stopped = async move {
            stop.recv().await;
        };
        match std::env::var_os(RESTORE) {
            Some(backup) => mvm_node::serve_restored(config, Path::new(&backup), stopped).await,
            None => mvm_node::serve(config, stopped).await,
        }
    });
    if let Err(error) = outcome {
        eprintln!("NODE FAILED: {error}");
        std::process::exit(3);
    }
    std::process::exit(0);
}

pub(crate) struct Cluster {
    nodes: Vec<Node>,
    directory: tempfile::TempDir,
    /// Settings beside those that every cluster has.
    environment: Vec<(&'static str, PathBuf)>,
}

struct Node {
    address: SocketAddr,
    workflows: SocketAddr,
    process: Option<Child>,
    paused: bool,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for id in 1..=self.nodes.len() {
            self.kill(id);
        }
        if std::thread::panicking() {
            for id in 1..=self.nodes.len() {
                let log = std::fs::read_to_string(self.log_path(id)).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(15).collect();
                eprintln!("--- last lines of node {id}");
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

impl Cluster {
    /// Reserves ports for so many nodes; starts none.
    pub(crate) fn new(size: usize) -> Self {
        let ports = free_ports(4 * size);
        let addresses = ports.chunks(4).map(|ports| ports.to_vec());
        let nodes = addresses.map(|ports| Node {
            address: SocketAddr::from(([127, 0, 0, 1], ports[0])),
            workflows: SocketAddr::from(([127, 0, 0, 1], ports[3])),
            process: None,
            paused: false,
        });
        let nodes: Vec<Node> = nodes.collect();
        let directory = tempfile::tempdir().unwrap();
        let members: Vec<String> = ports
            .chunks(4)
            .zip(1..)
            .map(|(ports, id)| format!("{id}=127.0.0.1:{}:{}:{}", ports[0], ports[1], ports[2]))
            .collect();
        std::fs::write(directory.path().join("members"), members.join(",")).unwrap();
        Self {
            nodes,
            directory,
            environment: Vec::new(),
        }
    }

    /// Sets a variable of all nodes.
    pub(crate) fn set(&mut self, variable: &'static str, value: impl Into<PathBuf>) {
        self.environment.push((variable, value.into()));
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts them all and waits until each serves linearizable requests.
    pub(crate) fn formed(size: usize) -> Self {
        let mut cluster = Self::new(size);
        (1..=size).for_each(|id| cluster.start(id));
        (1..=size).for_each(|id| cluster.wait_ready(id));
        cluster
    }

    pub(crate) fn start(&mut self, id: usize) {
        self.start_with(id, &[]);
    }

    /// Starts a node from a backup, as the command line does.
    pub(crate) fn start_restored(&mut self, id: usize, backup: &Path) {
        let (name, value) = mvm_node::restore::variable(backup).unwrap();
        self.start_with(id, &[(RESTORE, backup.to_str().unwrap()), (name, &value)]);
    }

    pub(crate) fn start_with(&mut self, id: usize, environment: &[(&str, &str)]) {
        let members = std::fs::read_to_string(self.directory.path().join("members")).unwrap();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path(id))
            .unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "node_process", "--nocapture"])
            .env(CHILD, std::process::id().to_string())
            .env("MVM_CI_NODE_ID", id.to_string())
            .env("MVM_CI_MEMBERS", members)
            .env("MVM_CI_DATA_DIR", self.data_dir(id))
            .env("MVM_CI_FLOW_LISTEN", self.workflows(id).to_string())
            .env("MVM_CI_SECRET_RAFT", "raft-secret-for-tests")
            .env("MVM_CI_SECRET_STORE", "store-secret-for-tests")
            // Faster than the default: nothing stalls here as an emulated machine does.
            .env("MVM_CI_HEARTBEAT_MS", "100")
            .env("MVM_CI_ELECTION_MIN_MS", "400")
            .env("MVM_CI_ELECTION_MAX_MS", "800")
            .env("MVM_CI_LEASE_MS", "2000")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .envs(environment.iter().copied())
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.nodes[id - 1].process = Some(child);
    }

    /// Takes a killed node's disk away.
    pub(crate) fn wipe(&self, id: usize) {
        assert!(self.nodes[id - 1].process.is_none(), "node {id} runs");
        std::fs::remove_dir_all(self.data_dir(id)).unwrap();
    }

    /// Waits until a node that was started ends by itself; gives the last lines of its log.
    #[track_caller]
    pub(crate) fn wait_refused(&mut self, id: usize) -> String {
        let mut process = self.nodes[id - 1].process.take().unwrap();
        let status = wait("the node ends", || {
            let ended = process.try_wait().unwrap();
            ended.ok_or_else(|| "it runs".to_owned())
        });
        assert!(!status.success(), "node {id} ended well");
        let log = std::fs::read_to_string(self.log_path(id)).unwrap();
        let tail: Vec<&str> = log.lines().rev().take(3).collect();
        tail.join("\n")
    }

    pub(crate) fn data_dir(&self, id: usize) -> PathBuf {
        self.directory.path().join(format!("node{id}"))
    }

    fn log_path(&self, id: usize) -> PathBuf {
        log_path(self.directory.path(), id)
    }

    pub(crate) fn address(&self, id: usize) -> SocketAddr {
        self.nodes[id - 1].address
    }

    /// Where a node's interface for workflows is.
    pub(crate) fn workflows(&self, id: usize) -> SocketAddr {
        self.nodes[id - 1].workflows
    }

    pub(crate) fn kill(&mut self, id: usize) {
        if let Some(mut process) = self.nodes[id - 1].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        self.nodes[id - 1].paused = false;
    }

    /// Asks a node to stop, and waits until it has.
    pub(crate) fn stop(&mut self, id: usize) {
        self.signal(id, Signal::TERM);
        let mut process = self.nodes[id - 1].process.take().unwrap();
        let status = wait("the node stops", || {
            let ended = process.try_wait().unwrap();
            ended.ok_or_else(|| "it runs".to_owned())
        });
        assert!(status.success(), "node {id}: {status}");
    }

    /// Freezes the node, so that its connections stay open and nobody answers.
    pub(crate) fn pause(&mut self, id: usize) {
        self.signal(id, Signal::STOP);
        self.nodes[id - 1].paused = true;
    }

    pub(crate) fn resume(&mut self, id: usize) {
        self.signal(id, Signal::CONT);
        self.nodes[id - 1].paused = false;
    }

    fn signal(&self, id: usize, signal: Signal) {
        let process = self.nodes[id - 1].process.as_ref().unwrap();
        kill_process(Pid::from_child(process), signal).unwrap();
    }

    /// The nodes that run.
    pub(crate) fn up(&self) -> Vec<usize> {
        (1..=self.nodes.len())
            .filter(|id| self.nodes[id - 1].process.is_some() && !self.nodes[id - 1].paused)
            .collect()
    }

    #[track_caller]
    pub(crate) fn wait_ready(&self, id: usize) {
        wait("the node is ready", || {
            match get(self.address(id), "/ready") {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(format!("node {id}: {other:?}")),
            }
        });
    }

    /// The leader that a running node knows and confirms.
    #[track_caller]
    pub(crate) fn leader(&self) -> usize {
        let up = self.up();
        wait("there is a leader", || {
            let cluster = get(self.address(up[0]), "/cluster")
                .map_err(|error| error.to_string())?
                .json();
            match (cluster["quorum"].as_bool(), cluster["leader"].as_u64()) {
                (Some(true), Some(leader)) if up.contains(&(leader as usize)) => {
                    Ok(leader as usize)
                }
                _ => Err(cluster.to_string()),
            }
        })
    }

    /// The ids of all jobs as a node lists them.
    pub(crate) fn ids(&self, id: usize, consistency: &str) -> Result<Vec<String>, Answer> {
        let answer = get(
            self.address(id),
            &format!("/queue/list?limit=500&consistency={consistency}"),
        )
        .unwrap();
        if answer.status != 200 {
            return Err(answer);
        }
        let jobs = answer.json()["jobs"].as_array().unwrap().clone();
        Ok(jobs
            .iter()
            .map(|job| job["id"].as_str().unwrap().to_owned())
            .collect())
    }

    /// The URLs of all jobs as a node lists them, linearizably.
    #[track_caller]
    pub(crate) fn urls(&self, id: usize) -> Vec<String> {
        let answer = get(self.address(id), "/queue/list?limit=500").unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        let jobs: Vec<Value> = answer.json()["jobs"].as_array().unwrap().clone();
        jobs.iter()
            .map(|job| job["payload"]["url"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn log_path(directory: &Path, id: usize) -> PathBuf {
    directory.join(format!("node{id}.log"))
}

/// Polls until there is a result; says what was seen last if there is none.
#[track_caller]
pub(crate) fn wait<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if start.elapsed() > HANG => {
                panic!("not within {HANG:?}: {what}; last: {seen}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(30)),
        }
    }
}
