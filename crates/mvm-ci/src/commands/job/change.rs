//! `mvm-ci job cancel` and `retry`.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use mvm_client::{Changed, Client};
use mvm_queue::JobId;

use crate::commands::output;

pub(super) async fn cancel(client: &Client, id: &JobId, json: bool) -> anyhow::Result<ExitCode> {
    let changed = client.cancel(id).await?;
    tell(&changed, json)?;
    if !changed.state.is_finished() {
        output::say("its worker was asked to stop it")?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn retry(client: &Client, id: &JobId, json: bool) -> anyhow::Result<ExitCode> {
    tell(&client.retry(id).await?, json)?;
    Ok(ExitCode::SUCCESS)
}

fn tell(changed: &Changed, json: bool) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match json {
        true => output::json_line(&mut output, changed),
        false => writeln!(output, "{} {}", changed.id, changed.state),
    }
}
