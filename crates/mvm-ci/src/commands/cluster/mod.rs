//! `mvm-ci cluster`: a cluster as a whole, and single nodes of it.

mod backup;
mod drain;
mod status;

use std::process::ExitCode;

use super::connect;
use crate::cli::{ClusterArgs, ClusterCommand};

pub(super) async fn cluster(arguments: ClusterArgs) -> anyhow::Result<ExitCode> {
    let client = connect::client(&arguments.node)?;
    let json = arguments.node.json;
    match arguments.command {
        ClusterCommand::Status => status::status(&client, json).await,
        ClusterCommand::Drain(arguments) => drain::drain(&client, &arguments, json).await,
        ClusterCommand::Resume(arguments) => drain::resume(&client, arguments.node, json).await,
        ClusterCommand::Backup(command) => backup::backup(&client, command, json).await,
    }
}
