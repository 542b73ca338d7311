//! `mvm-ci ssh` and `mvm-ci console`: a terminal, a command or a console of a machine of a running lab, here.

mod keyboard;
mod raw_mode;
mod relay;

use std::{io::IsTerminal, process::ExitCode};

use mvm_lab::control::{
    client::{Client, ClientError},
    wire::Request,
};

use self::{raw_mode::window_size, relay::Stream};
use crate::cli::{ConsoleArgs, LabArgs, SshArgs};

/// What `TERM` is where nobody said.
const TERM_DEFAULT: &str = "vt100";

/// Why nothing could be attached to, or no more.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttachError {
    /// The lab could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No run was named, and none is under way.
    #[error("{0}; start one with `mvm-ci up`, or name its run folder with --run")]
    NoLab(ClientError),
    /// The machine or its lab went away.
    #[error("could not go on: {0}")]
    Lost(String),
    /// This host's terminal could not be used.
    #[error("could not use the terminal: {0}")]
    Terminal(#[source] std::io::Error),
}

pub(super) async fn ssh(arguments: SshArgs) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.lab).await?;
    let machine = arguments.machine;
    let command = (!arguments.command.is_empty()).then(|| arguments.command.join(" "));
    let stream = stream();
    let request = match stream {
        Stream::Terminal => Request::Terminal {
            machine,
            command,
            size: window_size().map_err(AttachError::Terminal)?,
            term: std::env::var("TERM").unwrap_or_else(|_| TERM_DEFAULT.to_owned()),
        },
        Stream::Pipes => Request::Command { machine, command },
    };
    let attached = client.attach(&request).await.map_err(AttachError::from)?;
    Ok(relay::relay(attached, stream).await?)
}

pub(super) async fn console(arguments: ConsoleArgs) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.lab).await?;
    let request = Request::Console {
        machine: arguments.machine,
    };
    let attached = client.attach(&request).await.map_err(AttachError::from)?;
    Ok(relay::relay(attached, stream()).await?)
}

fn stream() -> Stream {
    match std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        true => Stream::Terminal,
        false => Stream::Pipes,
    }
}

async fn connect(lab: &LabArgs) -> Result<Client, AttachError> {
    Ok(match (&lab.control, &lab.run) {
        (_, Some(run)) => Client::of_run(run).await?,
        (Some(socket), None) => Client::connect(socket).await?,
        (None, None) => Client::newest(&lab.runs.runs)
            .await
            .map_err(AttachError::NoLab)?,
    })
}
