//! `mvm-ci flow cancel`, `pause`, `resume` and `retry`.

use std::io::{self, Write as _};

use mvm_flow::journal::Shown;

use super::client::Client;
use crate::{
    cli::{CancelFlowArgs, EngineArgs, OneFlowArgs, RetryFlowArgs},
    commands::output,
};

pub(super) async fn cancel(arguments: CancelFlowArgs) -> anyhow::Result<()> {
    let CancelFlowArgs { id, reason, engine } = arguments;
    let shown = Client::new(&engine)?.cancel(id, reason).await?;
    tell(&shown, &engine)?;
    if !shown.state.is_finished() {
        output::say("its engine was asked to end it")?;
    }
    Ok(())
}

pub(super) async fn pause(arguments: &OneFlowArgs) -> anyhow::Result<()> {
    let shown = Client::new(&arguments.engine)?.pause(arguments.id).await?;
    Ok(tell(&shown, &arguments.engine)?)
}

pub(super) async fn resume(arguments: &OneFlowArgs) -> anyhow::Result<()> {
    let shown = Client::new(&arguments.engine)?.resume(arguments.id).await?;
    Ok(tell(&shown, &arguments.engine)?)
}

pub(super) async fn retry(arguments: &RetryFlowArgs) -> anyhow::Result<()> {
    let client = Client::new(&arguments.engine)?;
    let shown = client.retry(arguments.id, arguments.from).await?;
    Ok(tell(&shown, &arguments.engine)?)
}

fn tell(shown: &Shown, engine: &EngineArgs) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match engine.json {
        true => output::json_line(&mut output, shown),
        false => writeln!(output, "{} {}", shown.id, shown.state.as_str()),
    }
}
