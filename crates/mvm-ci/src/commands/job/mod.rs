//! `mvm-ci job`: jobs, at any node of a cluster.

mod change;
mod end;
mod list;
mod logs;
mod show;
mod submit;

use std::process::ExitCode;

use super::connect;
use crate::cli::{JobArgs, JobCommand};

pub(super) async fn job(arguments: JobArgs) -> anyhow::Result<ExitCode> {
    let client = connect::client(&arguments.node)?;
    let json = arguments.node.json;
    match arguments.command {
        JobCommand::Submit(arguments) => submit::submit(&client, *arguments, json).await,
        JobCommand::List(arguments) => list::list(&client, arguments, json).await,
        JobCommand::Show(arguments) => show::show(&client, &arguments.id, json).await,
        JobCommand::Logs(arguments) => logs::logs(&client, &arguments, json).await,
        JobCommand::Cancel(arguments) => change::cancel(&client, &arguments.id, json).await,
        JobCommand::Retry(arguments) => change::retry(&client, &arguments.id, json).await,
        JobCommand::Wait(arguments) => end::wait(&client, &arguments.ids, json).await,
    }
}
