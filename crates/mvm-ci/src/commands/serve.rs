//! `mvm-ci serve`: a node, until it is asked to stop.

use std::{
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::Context as _;
use mvm_node::config::{Config, Settings, Sources};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::ServeArgs;

pub(super) async fn serve(arguments: ServeArgs) -> anyhow::Result<ExitCode> {
    if let Some(backup) = &arguments.restore {
        ensure_environment(backup)?;
    }
    let config = Config::load(Sources {
        file: arguments.config,
        environment: std::env::vars_os().collect(),
        flags: Settings {
            node_id: arguments.node_id,
            data_dir: arguments.data_dir,
            listen: arguments.listen,
            cluster_listen: arguments.cluster_listen,
            members: arguments.members,
            slots: arguments.slots,
            auth: arguments.auth,
            tokens: arguments.tokens,
            ..Settings::default()
        },
    })?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let asked = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    match arguments.restore {
        Some(backup) => mvm_node::serve_restored(config, &backup, asked).await?,
        None => mvm_node::serve(config, asked).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The store takes the path of a backup from the environment only, and a running program must not change its own. So this
/// program starts again in its place, with the same arguments.
fn ensure_environment(backup: &Path) -> anyhow::Result<()> {
    let (name, value) = mvm_node::restore::variable(backup)?;
    if std::env::var_os(name).is_some_and(|set| *set == *value) {
        return Ok(());
    }
    let error = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(name, value)
        .exec();
    Err(error).context("could not start again with the backup in the environment")
}
