//! `mvm-ci serve`: a node, until it is asked to stop.

use mvm_node::config::{Config, Overrides};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::ServeArgs;

pub(super) async fn serve(arguments: ServeArgs) -> anyhow::Result<()> {
    let overrides = Overrides {
        node_id: arguments.node_id,
        peers: arguments.peers,
        listen: arguments.listen,
        data_dir: arguments.data_dir,
        ..Overrides::default()
    };
    let config = Config::load(arguments.config.as_deref(), overrides)?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let asked = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    Ok(mvm_node::serve(config, asked).await?)
}
