//! `mvm-ci flow replay`: a workflow's journal and module are fetched, and run here.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use mvm_flow::{
    guest::Limits,
    journal::State,
    module::{NotAModule, describe},
    replay::{Recording, Replayed},
    secrets::Secrets,
};
use serde_json::json;

use super::client::Client;
use crate::{
    cli::ReplayArgs,
    commands::{
        connect,
        output::{self, printable},
    },
    exit_codes::FAILED,
};

/// The patched module cannot stand in for the one that ran.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CannotReplay {
    #[error("could not use {}: {error}", path.display())]
    Module { path: PathBuf, error: NotAModule },
    #[error("could not use {}: it has no workflow {workflow:?}", path.display())]
    Workflow { path: PathBuf, workflow: String },
}

pub(super) async fn replay(arguments: ReplayArgs) -> anyhow::Result<ExitCode> {
    let secrets = arguments.secrets.as_deref().map(Secrets::read);
    let secrets = secrets.transpose()?.unwrap_or_default();
    let patched = arguments.patch_module.as_deref();
    let patched = patched.map(|path| connect::file("the module", path));
    let patched = patched.transpose()?;
    let client = Client::new(&arguments.engine)?;
    let shown = client.show(arguments.id).await?;
    let module = match (patched, arguments.patch_module) {
        (Some(bytes), Some(path)) => {
            check(&bytes, &shown.workflow, path)?;
            bytes
        }
        _ => client.module(&shown.hash).await?,
    };
    let entries = client.journal(arguments.id).await?;
    let recording = Recording {
        id: shown.id,
        workflow: shown.workflow,
        input: shown.input,
        records: entries.into_iter().map(|entry| entry.record).collect(),
    };
    let json = arguments.engine.json;
    // Where nobody reads, the replay goes on for its exit code.
    let print = move |text: &str| drop(debug(text, json));
    let limits = Limits::default();
    let replayed = mvm_flow::replay::replay(module, recording, secrets, limits, print).await?;
    let faithful = is_faithful(&replayed, shown.state);
    let how = sentence(&replayed, shown.state);
    if json {
        let event = json!({ "event": "end", "faithful": faithful, "how": how });
        output::json_line(&mut io::stdout().lock(), &event)?;
    } else {
        output::say(&printable(&how))?;
    }
    Ok(match faithful {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FAILED),
    })
}

fn check(bytes: &[u8], workflow: &str, path: PathBuf) -> Result<(), CannotReplay> {
    match describe(bytes) {
        Ok(description) if description.workflows.contains(workflow) => Ok(()),
        Ok(_) => Err(CannotReplay::Workflow {
            path,
            workflow: workflow.to_owned(),
        }),
        Err(error) => Err(CannotReplay::Module { path, error }),
    }
}

/// A line for whoever debugs.
fn debug(text: &str, json: bool) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match json {
        true => output::json_line(&mut output, &json!({ "event": "debug", "text": text })),
        false => writeln!(output, "{}", printable(text)),
    }
}

/// Whether a workflow in that state may have run so.
const fn is_faithful(replayed: &Replayed, state: State) -> bool {
    let completed = matches!(state, State::Completed);
    match replayed {
        Replayed::Returned => true,
        Replayed::Trapped { ahead, .. } => *ahead == 0 && !completed,
        // All others ended, or stand, where their engine stopped them.
        Replayed::JournalEnded { .. } => !completed,
        Replayed::Diverged(_) => false,
    }
}

fn sentence(replayed: &Replayed, state: State) -> String {
    match replayed {
        Replayed::Returned => "the module returned where the journal ends".into(),
        Replayed::Trapped { reason, ahead: 0 } => {
            format!("the module trapped where the journal ends: {reason}")
        }
        Replayed::Trapped { reason, ahead } => {
            format!("the module trapped {ahead} records before the end of the journal: {reason}")
        }
        Replayed::JournalEnded { asked } if state == State::Completed => format!(
            "the module diverged from its journal at its end: it asked for `{asked}`, and the workflow had returned"
        ),
        Replayed::JournalEnded { asked } => {
            format!("the journal ends, and the module goes on with `{asked}`")
        }
        Replayed::Diverged(how) => how.clone(),
    }
}
