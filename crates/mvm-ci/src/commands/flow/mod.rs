//! `mvm-ci flow`: an engine for workflows, and what is asked of one.

mod change;
mod client;
mod journal;
mod list;
mod replay;
mod show;
mod start;
mod up;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use mvm_flow::{
    OpenError, SetupError, id::UnixMillis, journal::State, limits::BadLimits, secrets::BadSecrets,
};
use mvm_lab::verdict::Verdict;

use self::{
    client::{Client, FlowError},
    replay::CannotReplay,
    up::UpError,
};
use super::{
    connect,
    output::{self, Cell, Meaning},
};
use crate::{
    cli::{DeployArgs, FlowArgs, FlowCommand, SendArgs},
    exit_codes::USAGE,
};

/// An engine's token, if no file is named.
const TOKEN_VARIABLE: &str = "MVM_CI_FLOW_TOKEN";

pub(super) async fn flow(arguments: FlowArgs) -> anyhow::Result<ExitCode> {
    match arguments.command {
        FlowCommand::Up(arguments) => return up::up(*arguments).await,
        FlowCommand::Deploy(arguments) => deploy(&arguments).await?,
        FlowCommand::Modules(arguments) => list::modules(&arguments).await?,
        FlowCommand::Start(arguments) => {
            return start::start(&arguments.what, arguments.wait).await;
        }
        FlowCommand::Run(arguments) => return start::start(&arguments, true).await,
        FlowCommand::Send(arguments) => send(arguments).await?,
        FlowCommand::List(arguments) => list::workflows(arguments).await?,
        FlowCommand::Show(arguments) => show::show(&arguments).await?,
        FlowCommand::Journal(arguments) => journal::journal(&arguments).await?,
        FlowCommand::Logs(arguments) => journal::logs(&arguments).await?,
        FlowCommand::Response(arguments) => return start::response(&arguments).await,
        FlowCommand::Cancel(arguments) => change::cancel(arguments).await?,
        FlowCommand::Pause(arguments) => change::pause(&arguments).await?,
        FlowCommand::Resume(arguments) => change::resume(&arguments).await?,
        FlowCommand::Retry(arguments) => change::retry(&arguments).await?,
        FlowCommand::Replay(arguments) => return replay::replay(arguments).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// The exit code of an error of these commands, by [`crate::exit_codes::FLOW_EXIT_CODES`].
pub(super) fn code(error: &anyhow::Error) -> Option<u8> {
    if let Some(error) = error.downcast_ref::<FlowError>() {
        return Some(error.exit_code());
    }
    if let Some(error) = error.downcast_ref::<UpError>() {
        return Some(error.exit_code());
    }
    if error.is::<BadSecrets>() || error.is::<BadLimits>() || error.is::<CannotReplay>() {
        return Some(USAGE);
    }
    (error.is::<OpenError>() || error.is::<SetupError>()).then(|| Verdict::Unfit.exit_code())
}

async fn deploy(arguments: &DeployArgs) -> anyhow::Result<()> {
    let module = connect::file("the module", &arguments.module)?;
    let deployed = Client::new(&arguments.engine)?.deploy(&module).await?;
    let mut output = io::stdout().lock();
    match arguments.engine.json {
        true => output::json_line(&mut output, &deployed)?,
        false => writeln!(output, "{}:{}", deployed.name, deployed.version)?,
    }
    Ok(())
}

async fn send(arguments: SendArgs) -> anyhow::Result<()> {
    let data = connect::json("the message", &arguments.data)?;
    let client = Client::new(&arguments.engine)?;
    Ok(client.send(arguments.id, arguments.kind, &data).await?)
}

/// A state's word.
fn state(state: State) -> Cell {
    let meaning = match state {
        State::Completed => Meaning::Good,
        State::Failed => Meaning::Bad,
        State::Cancelled | State::Paused => Meaning::Doubtful,
        State::Running => Meaning::Moving,
        State::Ready | State::Waiting => Meaning::Plain,
    };
    Cell::new(state.as_str(), meaning)
}

/// A time, as other commands write it.
const fn at(time: UnixMillis) -> mvm_queue::UnixMillis {
    mvm_queue::UnixMillis(time.0)
}
