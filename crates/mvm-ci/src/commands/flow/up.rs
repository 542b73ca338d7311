//! `mvm-ci flow up`: an engine with its interface, until it is asked to stop.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::bail;
use mvm_client::Token;
use mvm_flow::{
    Engine, Settings, SqliteJournal, api, guest,
    limits::{Limits, ModuleLimits},
    secrets::Secrets,
};
use mvm_lab::verdict::Verdict;
use mvm_node::http::{self, HEAD_TIMEOUT};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
    task::JoinSet,
};

use super::TOKEN_VARIABLE;
use crate::{cli::FlowUpArgs, commands::connect, exit_codes::USAGE};

/// As many as a node takes unless told otherwise. Whoever waits for a response holds one.
const CONNECTIONS_MAX: usize = 512;
/// How long answers that are under way may take when the engine has stopped. Who waits for a response then waits for the next
/// engine.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// How often is looked for workflows that ended long ago.
const PRUNE_PERIOD: Duration = Duration::from_secs(60);

/// An engine cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpError {
    /// Everybody could come in.
    #[error(
        "others reach {bind}, and nothing says who may come in: give --token-file FILE, or say --no-token to let everybody in"
    )]
    Open { bind: SocketAddr },
    /// The port is taken, or the address is not this host's.
    #[error("could not listen on {bind}: {error}")]
    Listen { bind: SocketAddr, error: io::Error },
}

impl UpError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Open { .. } => USAGE,
            Self::Listen { .. } => Verdict::Unfit.exit_code(),
        }
    }
}

pub(super) async fn up(arguments: FlowUpArgs) -> anyhow::Result<ExitCode> {
    let token = token(&arguments)?;
    let secrets = arguments.secrets.as_deref().map(Secrets::read);
    let secrets = secrets.transpose()?.unwrap_or_default();
    let limits = ModuleLimits {
        guest: guest::Limits {
            memory_bytes: usize::try_from(arguments.memory).unwrap_or(usize::MAX),
            instructions: arguments.instructions,
        },
        ..ModuleLimits::default()
    };
    let limits = match &arguments.limits {
        Some(file) => Limits::read(file, limits)?,
        None => Limits::all(limits),
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let bind = arguments.bind;
    let listener = TcpListener::bind(bind).await;
    let listener = listener.map_err(|error| UpError::Listen { bind, error })?;
    let directory = arguments.working_dir.unwrap_or_else(default_directory);
    let journal = SqliteJournal::open(&directory)?;
    let settings = Settings {
        name: host_name(),
        slots: arguments.slots.get(),
        limits,
        cache: Some(compiled(&directory)?),
        secrets,
        ..Settings::default()
    };
    let engine = Arc::new(Engine::new(Arc::new(journal), settings)?);
    let connections = http::Limits {
        connections_max: CONNECTIONS_MAX,
        head_timeout: HEAD_TIMEOUT,
    };
    tracing::info!(
        address = %listener.local_addr()?,
        directory = %directory.display(),
        token = token.is_some(),
        "running workflows"
    );

    let (close, closing) = oneshot::channel::<()>();
    let closing = async {
        // A dropped sender closes as well.
        let _ = closing.await;
    };
    let router = api::guarded(Arc::clone(&engine), token);
    let mut serving = JoinSet::new();
    serving.spawn(http::serve(listener, router, None, connections, closing));
    let (stop, stopped) = watch::channel(false);
    let mut running = JoinSet::new();
    let journal = Arc::clone(engine.journal());
    running.spawn(async move { engine.run(stopped).await });
    let mut pruning = JoinSet::new();
    pruning.spawn(async move { prune(&journal, arguments.retain).await });

    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = running.join_next() => bail!("the engine ended by itself"),
        _ = serving.join_next() => bail!("the interface ended by itself"),
    }
    tracing::info!("stopping");
    stop.send_replace(true);
    running.join_next().await;
    drop(close);
    // Dropped after that, they are cut off.
    let _ = tokio::time::timeout(CLOSE_GRACE, serving.join_next()).await;
    serving.shutdown().await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Removes what ended long ago. Runs until dropped.
async fn prune(journal: &SqliteJournal, retain: u64) {
    let mut rounds = tokio::time::interval(PRUNE_PERIOD);
    loop {
        rounds.tick().await;
        if let Err(error) = journal.prune(retain).await {
            tracing::warn!(%error, "workflows that have ended are not removed");
        }
    }
}

/// What clients must show. Where others than this host reach the engine, somebody has to say that they may.
fn token(arguments: &FlowUpArgs) -> anyhow::Result<Option<api::Token>> {
    let bind = arguments.bind;
    if arguments.no_token {
        return Ok(None);
    }
    match connect::secret(arguments.token_file.as_deref(), TOKEN_VARIABLE)? {
        Some(secret) => {
            // One that clients cannot send is none.
            Token::new(&secret)?;
            Ok(Some(api::Token::new(secret.trim())))
        }
        None if bind.ip().to_canonical().is_loopback() => Ok(None),
        None => Err(UpError::Open { bind }.into()),
    }
}

fn default_directory() -> PathBuf {
    std::env::home_dir().map_or_else(
        || PathBuf::from("mvm-ci-flow"),
        |home| home.join(".local/state/mvm-ci-flow"),
    )
}

/// Where compiled modules are. Its path must be absolute.
fn compiled(directory: &Path) -> io::Result<PathBuf> {
    Ok(std::path::absolute(directory)?.join("compiled"))
}

/// What journals call this engine.
fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}
