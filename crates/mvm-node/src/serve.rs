//! Runs a node: checks the host, opens the ports, joins the cluster, and takes it all down again.
//!
//! ```text
//!  check data directory and ports ──▶ open HTTP ──▶ [`join`] ──▶ hiqlite joins (seconds) ──▶ serve
//!                                       /health 200, /ready 503                             /ready 200
//!  shutdown: clients get 503 ──▶ hiqlite closes (other nodes are still served) ──▶ close HTTP
//! ```

mod doors;

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

use hiqlite::{NodeConfig, tls::ServerTlsConfig};
use mvm_exec::Isolation;
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinSet,
};

use self::doors::Doors;
use crate::{
    auth::TokenFileError,
    config::Config,
    disk,
    flow::{self, FlowConfig, FlowError},
    http::{self, App, HEAD_TIMEOUT, Host, Limits},
    id,
    join::{self, Directory, DirectoryError, Phase, Standing},
    restore::{self, RestoreError},
    sqlite,
    store::{ClusterStore, Store, WAL_BYTES},
    tls::TlsError,
    worker::{self, Control, Outputs, WorkerConfig},
};

/// Log entries between two snapshots; hiqlite's default.
const LOGS_UNTIL_SNAPSHOT: u64 = 10_000;

/// Connections for local reads. They are short, and a page of jobs is the longest.
const READ_POOL_SIZE: usize = 4;

/// Requests still under way get so long after everything else has stopped.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(4);

/// What stopping jobs and giving them back may take.
const GIVE_BACK_TIMEOUT: Duration = Duration::from_secs(4);

/// How long workflows may take to come to their next command, at least.
const FLOW_GRACE_MIN: Duration = Duration::from_secs(2);

/// In the data directory; where compiled modules are.
const FLOW_CACHE: &str = "flow-modules";

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
    /// The data directory is not this node's, or not whole.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A backup is not restored, or would be by mistake.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The path of the data directory cannot be passed on.
    #[error("could not use the data directory {path:?}: its name is not UTF-8")]
    DataDirectoryName {
        /// Which directory.
        path: PathBuf,
    },
    /// The tokens cannot be read.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
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
    /// Workflows cannot be run.
    #[error("could not run workflows on this host: {0}; with flow_slots = 0 the node runs none")]
    Flow(#[from] FlowError),
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
    run(config, None, shutdown).await
}

/// Founds a cluster with the contents of a backup, and then does as [`serve`].
///
/// For node 1 with an empty data directory only; the other nodes are started without data, as for a new cluster. The
/// environment must have what [`restore::variable`] says. Fails before anything is written if the backup is not whole.
pub async fn serve_restored(
    config: Config,
    backup: &Path,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    run(config, Some(backup), shutdown).await
}

async fn run(
    config: Config,
    backup: Option<&Path>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    sqlite::keep_undo_in_memory();
    restore::check_environment(backup, |name| std::env::var_os(name))?;
    if let Some(backup) = backup {
        restore::validate(backup)?;
    }
    let _lock = prepare_data_directory(&config.data_dir)?;
    let mut directory = Directory::open(&config.data_dir, config.node_id)?;
    if backup.is_some() {
        restore::check_target(directory.standing(), &config.data_dir)?;
    }
    let doors = Doors::open(&config.access)?;
    check_cluster_ports(&config).await?;
    let listener = listen(config.listen, "HTTP", "listen").await?;
    let flow_listener = match config.flow_listen.filter(|_| config.flow_slots > 0) {
        Some(address) => Some(listen(address, "workflows", "flow_listen").await?),
        None => None,
    };
    tracing::info!(
        node = config.node_id,
        listen = %config.listen,
        data_dir = %config.data_dir.display(),
        members = config.members.len(),
        "node starting"
    );
    doors::warn(&config, config.listen);

    let store = ClusterStore::new(&config, directory.standing().clone(), doors.client.clone());
    let control = Arc::new(Control::new(config.slots));
    let outputs = Arc::new(Outputs::new(&config.data_dir));
    let members = config.members.iter();
    let flow_limits = flow::limits(config.flow_limits.as_deref())?;
    let host = Host {
        control: Arc::clone(&control),
        labels: config.labels.clone(),
        outputs: Arc::clone(&outputs),
        addresses: members.map(|member| (member.id, member.http())).collect(),
        speaks_tls: doors.server.is_some(),
        flow_limits: flow_limits.clone(),
    };
    let app = App::on_host(
        Arc::clone(&store),
        config.node_id,
        config.secret_store.expose(),
        doors.guard(&config.access),
        host,
    );
    let limits = Limits {
        connections_max: config.access.connections_max,
        head_timeout: HEAD_TIMEOUT,
    };
    let tls = doors.server.clone();
    let (close_http, http_closing) = oneshot::channel::<()>();
    let mut http = JoinSet::new();
    let router = Arc::clone(&app).router();
    http.spawn(async move {
        let closing = async {
            // A dropped sender closes as well.
            let _ = http_closing.await;
        };
        http::serve(listener, router, tls, limits, closing).await;
    });
    let mut keeper = JoinSet::new();
    keeper.spawn({
        let store = Arc::clone(&store);
        async move { store.keep().await }
    });
    keeper.spawn({
        let (data_dir, metrics) = (config.data_dir.clone(), Arc::clone(store.metrics()));
        async move { disk::probe(data_dir, &metrics).await }
    });
    let (tokens, flow_tls) = (doors.tokens.clone(), doors.server.clone());
    keeper.spawn(doors.keep());

    let mut worker = JoinSet::new();
    if config.slots > 0 {
        let isolation = Isolation::probe().map_err(|error| ServeError::Worker {
            detail: error.to_string(),
        })?;
        tracing::info!(slots = config.slots, %isolation, "this node runs jobs");
        let worker_config = WorkerConfig {
            node: config.node_id,
            slots: config.slots,
            labels: config.labels.iter().cloned().collect(),
            lease: config.lease,
        };
        let (store, control) = (Arc::clone(&store), Arc::clone(&control));
        worker.spawn(worker::work(
            store,
            worker_config,
            isolation,
            outputs,
            control,
        ));
    }

    let mut workflows = JoinSet::new();
    let (stop_workflows, workflows_stop) = watch::channel(false);
    if config.flow_slots > 0 {
        let flow_config = FlowConfig {
            node: config.node_id,
            slots: config.flow_slots,
            labels: config.labels.iter().cloned().collect(),
            lease: config.lease,
            cache: config.data_dir.join(FLOW_CACHE),
            secrets: config.flow_secrets.clone(),
            limits: flow_limits,
            stop_grace: config.stop_grace.max(FLOW_GRACE_MIN),
        };
        let engine = Arc::new(flow::engine(
            Arc::clone(&store),
            flow_config,
            Arc::clone(&control),
        )?);
        let journal = Arc::clone(engine.journal());
        keeper.spawn(async move {
            journal.keep().await;
        });
        if let Some(listener) = flow_listener {
            let router = mvm_flow::api::router(Arc::clone(&engine));
            let router = flow::guarded(router, tokens);
            // Cut off with the node: what is under way is waited for by clients that ask again.
            keeper.spawn(http::serve(
                listener,
                router,
                flow_tls,
                limits,
                std::future::pending(),
            ));
        }
        workflows.spawn(async move { engine.run(workflows_stop).await });
    }

    let mut shutdown = pin!(shutdown);
    let outcome = tokio::select! {
        outcome = join(&config, &store, &mut directory, backup.is_some()) => match outcome {
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
    if config.slots > 0 {
        control.stop(config.stop_grace).await;
        // What it could not give back ends with it, and is free for others with its lease.
        let _ = tokio::time::timeout(GIVE_BACK_TIMEOUT, worker.join_next()).await;
    }
    worker.shutdown().await;
    stop_workflows.send_replace(true);
    // The engine cuts off itself what goes on for too long.
    workflows.join_next().await;
    store.refuse_clients();
    app.end_streams();
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

/// Starts hiqlite, once it may be. Returns once this node is a voting member and knows a leader; on a node
/// that cannot reach a majority that may be never.
async fn join(
    config: &Config,
    store: &Arc<ClusterStore>,
    directory: &mut Directory,
    restores: bool,
) -> Result<(), ServeError> {
    let failed = |detail: String| ServeError::Store {
        path: config.data_dir.clone(),
        detail,
    };
    if directory.standing().phase == Phase::New {
        let mut standing = join::admission(store).await;
        if restores {
            if standing.phase != Phase::Founding {
                return Err(RestoreError::ClusterExists.into());
            }
            standing.phase = Phase::Restoring;
        }
        directory.note(standing)?;
        store.stands(directory.standing().clone());
    } else if let Some(peer) = join::stranger(store).await {
        return Err(ServeError::Directory(DirectoryError::OtherCluster {
            path: config.data_dir.clone(),
            peer,
        }));
    } else {
        join::let_others_lead(store, config.election_max * ELECTIONS_LEFT_TO_OTHERS).await;
    }
    let node_config = node_config(config, directory.standing().phase)?;
    // hiqlite panics on some damaged files; in a task of its own that becomes an error here.
    let mut starting = JoinSet::new();
    starting.spawn(hiqlite::start_node(node_config));
    let client = match starting.join_next().await {
        Some(Ok(Ok(client))) => client,
        Some(Ok(Err(error))) => return Err(failed(error.to_string())),
        Some(Err(error)) => return Err(failed(error.to_string())),
        None => return Err(failed("it vanished".into())),
    };
    directory.note(Standing {
        phase: Phase::Member,
        ..directory.standing().clone()
    })?;
    store.stands(directory.standing().clone());
    store.joined(client, config);
    tracing::info!(node = config.node_id, "joined the cluster");
    Ok(())
}

/// A node that is back leaves so many of the longest election times to the others: they notice its absence after at most
/// two, and may have to vote twice.
const ELECTIONS_LEFT_TO_OTHERS: u32 = 4;

/// hiqlite's node 1 founds a cluster when as many others as half of the list are new, or when the first one does not
/// answer. With a list of thrice the members that is more than there are; nothing else counts them.
const COPIES_THAT_NEVER_FOUND: usize = 3;

/// Every field is given: what is not said here must not come from hiqlite's environment variables.
fn node_config(config: &Config, phase: Phase) -> Result<NodeConfig, ServeError> {
    let founds = matches!(phase, Phase::Founding | Phase::Restoring);
    let copies = if founds || config.members.len() == 1 {
        1
    } else {
        COPIES_THAT_NEVER_FOUND
    };
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
    let defaults = NodeConfig::default();
    let mut enc_keys = defaults.enc_keys;
    enc_keys.enc_key_active = "unused".into();
    enc_keys.enc_keys = vec![("unused".into(), id::random_secret().into_bytes())];
    Ok(NodeConfig {
        node_id: config.node_id,
        nodes: std::iter::repeat_n(&config.members, copies)
            .flatten()
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
        // hiqlite makes certificates and checks none: the secrets are what nodes know each other by. Given ones
        // it would check against the authorities of the public web only.
        tls_raft: config
            .cluster_tls
            .then_some(ServerTlsConfig::TlsAutoCertificates),
        tls_api: config
            .cluster_tls
            .then_some(ServerTlsConfig::TlsAutoCertificates),
        secret_raft: config.secret_raft.expose().to_owned(),
        secret_api: config.secret_store.expose().to_owned(),
        // hiqlite encrypts what it sends to S3, which it is not told of; it still asks for keys.
        enc_keys,
        backup_config: defaults.backup_config,
        backup_keep_for_local: config.backup_keep,
        s3_config: None,
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

fn http_ended(ended: Option<Result<(), tokio::task::JoinError>>) -> ServeError {
    let detail = match ended {
        Some(Ok(())) | None => "it ended without an error".to_owned(),
        Some(Err(error)) => error.to_string(),
    };
    ServeError::Http { detail }
}
