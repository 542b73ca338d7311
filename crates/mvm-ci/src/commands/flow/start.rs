//! `mvm-ci flow start`, `run` and `response`.

use std::{
    io::{self, Write as _},
    pin::pin,
    process::ExitCode,
    time::{Duration, Instant},
};

use mvm_flow::{
    api::{ResponseReply, StartRequest, StartedReply},
    id::ExecutionId,
};
use serde_json::Value;

use super::client::{Client, FlowError};
use crate::{
    cli::{OneFlowArgs, StartWhat},
    commands::{connect, output},
    exit_codes::INTERRUPTED,
};

/// How long an engine may be away while somebody waits for a response: so long a restart may take.
const AWAY_MAX: Duration = Duration::from_secs(30);
/// The pause before it is asked again.
const PAUSE: Duration = Duration::from_millis(300);

pub(super) async fn start(what: &StartWhat, wait: bool) -> anyhow::Result<ExitCode> {
    let request = StartRequest {
        module: what.module.name.clone(),
        version: what.module.version.clone(),
        workflow: what.workflow.clone(),
        input: connect::json("the input", &what.input)?,
    };
    let client = Client::new(&what.engine)?;
    let id = client.start(&request).await?;
    if wait {
        output::say(&format!("workflow {id}"))?;
        return answer(&client, id, what.engine.json).await;
    }
    let mut output = io::stdout().lock();
    match what.engine.json {
        true => output::json_line(&mut output, &StartedReply { id })?,
        false => writeln!(output, "{id}")?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn response(arguments: &OneFlowArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&arguments.engine)?;
    answer(&client, arguments.id, arguments.engine.json).await
}

/// Waits for the response and prints it; or until Ctrl-C.
async fn answer(client: &Client, id: ExecutionId, json: bool) -> anyhow::Result<ExitCode> {
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let response = tokio::select! {
        response = awaited(client, id) => response?,
        _ = &mut interrupt => {
            output::say(&format!(
                "workflow {id} goes on; wait for it by `mvm-ci flow response {id}`, end it by `mvm-ci flow cancel {id}`"
            ))?;
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    let mut output = io::stdout().lock();
    match json {
        true => output::json_line(&mut output, &ResponseReply { id, response })?,
        false => writeln!(output, "{response}")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks again after an engine that went away, since the workflow outlives it.
async fn awaited(client: &Client, id: ExecutionId) -> Result<Value, FlowError> {
    let mut seen = Instant::now();
    loop {
        match client.response(id).await {
            // There was somebody until now.
            Err(FlowError::Lost { .. }) => seen = Instant::now(),
            Err(FlowError::Unreachable { .. } | FlowError::Unavailable { .. })
                if seen.elapsed() < AWAY_MAX => {}
            ended => return ended,
        }
        tokio::time::sleep(PAUSE).await;
    }
}
