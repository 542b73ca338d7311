//! Runs a node: checks the host, opens the ports, joins the cluster, and takes it all down again.
//!
//! ```text
//!  check data directory and ports ──▶ open HTTP ──▶ hiqlite joins (seconds) ──▶ serve
//!                                       /health 200, /ready 503                /ready 200
//!  shutdown: clients get 503 ──▶ hiqlite closes (other nodes are still served) ──▶ close HTTP
//! ```

use std::{
    fs::{File, TryLockError},
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use hiqlite::NodeConfig;
use mvm_exec::Isolation;
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet};

use crate::{
    config::Config,
    http::App,
    sqlite,
    store::{ClusterStore, WAL_BYTES},
    worker::{self, WorkerConfig},
};

/// Log entries between two snapshots; hiqlite's default.
const LOGS_UNTIL_SNAPSHOT: u64 = 10_000;

/// Connections for local reads. They are short, and a page of jobs is the longest.
const READ_POOL_SIZE: usize = 4;

/// Requests still under way get so long after everything else has stopped.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(4);

/// In the data directory; locked while a node uses it.
const LOCK_FILE: &str = "node.lock";

/// Why a node could not start or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory cannot be used.
    #[error("could not write to the data directory {path}: {source}")]
    DataDirectory {
        /// Which directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another node uses the data directory.
    #[error("could not lock the data directory {path}: another node is using it")]
    DataDirectoryInUse {
        /// Which directory.
        path: PathBuf,
    },
    /// The path of the data directory cannot be passed on.
    #[error("could not use the data directory {path:?}: its name is not UTF-8")]
    DataDirectoryName {
        /// Which directory.
        path: PathBuf,
    },
    /// A port cannot be opened.
    #[error(
        "could not listen on {address} for {purpose}: {source}{}",
        port_hint(source, key)
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the port is for.
        purpose: &'static str,
        /// The setting that moves it.
        key: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// hiqlite did not start.
    #[error("could not start the replicated store in {path}: {detail}")]
    Store {
        /// The data directory.
        path: PathBuf,
        /// What it said.
        detail: String,
    },
    /// The host gives jobs no supervisor.
    #[error("could not run jobs on this host: {detail}; with slots = 0 the node runs none")]
    Worker {
        /// What is missing.
        detail: String,
    },
    /// The HTTP server ended by itself.
    #[error("could not go on serving HTTP: {detail}")]
    Http {
        /// What it said.
        detail: String,
    },
}

fn port_hint(source: &io::Error, key: &str) -> String {
    if source.kind() == io::ErrorKind::AddrInUse {
        format!("; stop what uses the port, or set {key} to another")
    } else {
        String::new()
    }
}

/// Runs a node until `shutdown` completes, then closes it in order.
///
/// Fails within a second or so if the host is unfit: the data directory cannot be written or is in
/// use, or a port is taken. Forming a cluster takes as long as it takes; the HTTP interface says so.
///
/// Closing a node that has others takes 10 to 24 s: hiqlite waits 9.5 s on purpose, so that the others
/// notice, and at most 20 s in all. A caller may stop waiting for it: nothing acknowledged is lost, but
/// the next start rebuilds the database from the log. A node that has not joined yet stops at once.
///
/// Must be called in a multi-threaded Tokio runtime with I/O and time. hiqlite keeps some tasks in the
/// runtime after this returns; end the process, or drop the runtime, before serving again.
pub async fn serve(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
    sqlite::keep_undo_in_memory();
    let _lock = prepare_data_directory(&config.data_dir)?;
    check_cluster_ports(&config).await?;
    let listener = listen(config.listen, "HTTP", "listen").await?;
    tracing::info!(
        node = config.node_id,
        listen = %config.listen,
        data_dir = %config.data_dir.display(),
        members = config.members.len(),
        "node starting"
    );

    let store = ClusterStore::new(&config);
    let app = App::new(Arc::clone(&store), config.node_id, &config.secret_store);
    let (close_http, http_closing) = oneshot::channel::<()>();
    let mut http = JoinSet::new();
    http.spawn(async move {
        let closing = async {
            // A dropped sender closes as well.
            let _ = http_closing.await;
        };
        axum::serve(listener, app.router())
            .with_graceful_shutdown(closing)
            .await
    });
    let mut keeper = JoinSet::new();
    keeper.spawn({
        let store = Arc::clone(&store);
        async move { store.keep().await }
    });

    let mut worker = JoinSet::new();
    if config.slots > 0 {
        let isolation = Isolation::probe().map_err(|error| ServeError::Worker {
            detail: error.to_string(),
        })?;
        tracing::info!(slots = config.slots, %isolation, "this node runs jobs");
        if !config.listen.ip().is_loopback() {
            tracing::warn!(
                listen = %config.listen,
                "whoever reaches this address can run commands on this host: there is no authentication yet"
            );
        }
        let worker_config = WorkerConfig {
            node: config.node_id,
            slots: config.slots,
            labels: config.labels.iter().cloned().collect(),
            lease: config.lease,
        };
        worker.spawn(worker::work(Arc::clone(&store), worker_config, isolation));
    }

    let mut shutdown = pin!(shutdown);
    let outcome = tokio::select! {
        outcome = join(&config, &store) => match outcome {
            Err(error) => Err(error),
            Ok(()) => tokio::select! {
                () = &mut shutdown => Ok(()),
                ended = http.join_next() => Err(http_ended(ended)),
            },
        },
        () = &mut shutdown => Ok(()),
        ended = http.join_next() => Err(http_ended(ended)),
    };

    tracing::info!(node = config.node_id, "node stopping");
    // Its jobs end with it, and with their leases they are free for others.
    worker.shutdown().await;
    store.refuse_clients();
    store.shut_down().await;
    keeper.shutdown().await;
    // Fails if the server has ended already.
    let _ = close_http.send(());
    if tokio::time::timeout(DRAIN_TIMEOUT, http.join_next())
        .await
        .is_err()
    {
        tracing::warn!("connections were still busy and are cut off");
    }
    tracing::info!(node = config.node_id, "node stopped");
    outcome
}

/// Starts hiqlite. Returns once this node is a voting member and knows a leader; on a node that has
/// data and cannot reach a majority that may be never.
async fn join(config: &Config, store: &ClusterStore) -> Result<(), ServeError> {
    let failed = |detail: String| ServeError::Store {
        path: config.data_dir.clone(),
        detail,
    };
    let node_config = node_config(config)?;
    // hiqlite panics on some damaged files; in a task of its own that becomes an error here.
    let mut starting = JoinSet::new();
    starting.spawn(hiqlite::start_node(node_config));
    let client = match starting.join_next().await {
        Some(Ok(Ok(client))) => client,
        Some(Ok(Err(error))) => return Err(failed(error.to_string())),
        Some(Err(error)) => return Err(failed(error.to_string())),
        None => return Err(failed("it vanished".into())),
    };
    store.joined(client, config);
    tracing::info!(node = config.node_id, "joined the cluster");
    Ok(())
}

/// Every field is given: what is not said here must not come from hiqlite's environment variables.
fn node_config(config: &Config) -> Result<NodeConfig, ServeError> {
    let data_dir = config
        .data_dir
        .to_str()
        .ok_or_else(|| ServeError::DataDirectoryName {
            path: config.data_dir.clone(),
        })?;
    let mut raft_config = NodeConfig::default_raft_config(LOGS_UNTIL_SNAPSHOT);
    raft_config.heartbeat_interval = millis(config.heartbeat);
    raft_config.election_timeout_min = millis(config.election_min);
    raft_config.election_timeout_max = millis(config.election_max);
    let address = bracketed(config.cluster_listen);
    Ok(NodeConfig {
        node_id: config.node_id,
        nodes: config
            .members
            .iter()
            .map(|member| hiqlite::Node {
                id: member.id,
                addr_raft: member.raft(),
                addr_api: member.store(),
            })
            .collect(),
        listen_addr_api: address.clone().into(),
        listen_addr_raft: address.into(),
        data_dir: data_dir.to_owned().into(),
        filename_db: "queue.db".into(),
        log_statements: false,
        prepared_statement_cache_capacity: 64,
        read_pool_size: READ_POOL_SIZE,
        // Acknowledged means on the disks of a majority.
        wal_sync: hiqlite::LogSync::Immediate,
        wal_size: WAL_BYTES,
        raft_config,
        tls_raft: None,
        tls_api: None,
        secret_raft: config.secret_raft.clone(),
        secret_api: config.secret_store.clone(),
        health_check_delay: Duration::ZERO,
        learner_only: false,
        rate_limit_db: None,
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// hiqlite appends a colon and the port.
fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Creates the directory, proves that files can be written in it, and keeps other nodes out.
fn prepare_data_directory(path: &Path) -> Result<File, ServeError> {
    let failed = |source| ServeError::DataDirectory {
        path: path.to_owned(),
        source,
    };
    std::fs::create_dir_all(path).map_err(failed)?;
    let lock = File::create(path.join(LOCK_FILE)).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(ServeError::DataDirectoryInUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Tries the ports that hiqlite will open. It does so late, possibly after minutes of waiting for peers.
async fn check_cluster_ports(config: &Config) -> Result<(), ServeError> {
    let own = config.this_member();
    let ports = [
        (own.raft_port, "Raft", "raft_port"),
        (own.store_port, "the store", "store_port"),
    ];
    for (port, purpose, key) in ports {
        drop(listen(SocketAddr::new(config.cluster_listen, port), purpose, key).await?);
    }
    Ok(())
}

async fn listen(
    address: SocketAddr,
    purpose: &'static str,
    key: &'static str,
) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Listen {
            address,
            purpose,
            key,
            source,
        })
}

fn http_ended(ended: Option<Result<io::Result<()>, tokio::task::JoinError>>) -> ServeError {
    let detail = match ended {
        Some(Ok(Ok(()))) | None => "it ended without an error".to_owned(),
        Some(Ok(Err(error))) => error.to_string(),
        Some(Err(error)) => error.to_string(),
    };
    ServeError::Http { detail }
}
