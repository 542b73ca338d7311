//! `mvm-ci serve`: a node, until it is asked to stop.

use std::process::ExitCode;

use mvm_node::config::{Config, Settings, Sources};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::ServeArgs;

pub(super) async fn serve(arguments: ServeArgs) -> anyhow::Result<ExitCode> {
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
    mvm_node::serve(config, asked).await?;
    Ok(ExitCode::SUCCESS)
}
