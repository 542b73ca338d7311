//! What the commands do.

mod attach;
mod cluster;
mod connect;
mod doctor;
mod flow;
mod image;
mod job;
mod output;
mod repl;
mod run;
mod schedule;
mod serve;
mod test;
mod token;
mod up;
mod work;

use std::{io::IsTerminal, process::ExitCode, time::Duration};

use mvm_client::{ClientError, OptionsError};
use mvm_lab::{
    script::{PythonError, ScriptError},
    topology::FileError as TopologyFileError,
    verdict::Verdict,
};
use mvm_node::{ServeError, config::ConfigError};
use tracing_subscriber::EnvFilter;

use self::{
    attach::AttachError,
    connect::InputError,
    schedule::UnknownSchedule,
    test::{NothingLeft, UnknownScenario},
};
use crate::{
    cli::{Cli, Command, FlowArgs, FlowCommand, LogArgs, LogFormat},
    exit_codes::{self, USAGE},
};

/// After a verdict nothing may hold the program up: work on other threads is given this long.
const SHUTDOWN_ALLOWED: Duration = Duration::from_millis(500);

/// Does what the command line says; errors are printed with their causes.
pub fn run(cli: Cli) -> ExitCode {
    match &cli.command {
        Command::Serve(arguments) => serve_log(&arguments.log),
        Command::Flow(FlowArgs {
            command: FlowCommand::Up(arguments),
        }) => serve_log(&arguments.log),
        // The verifier logs what the error says in any case.
        Command::Job(_) | Command::Schedule(_) | Command::Cluster(_) | Command::Flow(_) => {
            log(filter("warn,rustls_platform_verifier=off"), LogFormat::Text);
        }
        // Who runs a scenario has the report, but for the minutes in which an image is built.
        Command::Test(_)
        | Command::Repl(_)
        | Command::Up(_)
        | Command::Ssh(_)
        | Command::Console(_)
        | Command::Image(_)
        | Command::Token(_)
        | Command::Doctor(_) => {
            log(filter("warn,mvm_machine::debian=info"), LogFormat::Text);
        }
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if is_server(&cli.command) {
        runtime.worker_threads(server_threads());
    }
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return failed(
                &anyhow::Error::new(error).context("could not start the asynchronous runtime"),
            );
        }
    };
    let done = runtime.block_on(async {
        match cli.command {
            Command::Serve(arguments) => serve::serve(arguments).await,
            Command::Job(arguments) => job::job(arguments).await,
            Command::Schedule(arguments) => schedule::schedule(arguments).await,
            Command::Cluster(arguments) => cluster::cluster(arguments).await,
            Command::Flow(arguments) => flow::flow(arguments).await,
            Command::Test(arguments) => test::test(arguments).await,
            Command::Repl(arguments) => repl::repl(arguments).await,
            Command::Up(arguments) => up::up(arguments).await,
            Command::Ssh(arguments) => attach::ssh(arguments).await,
            Command::Console(arguments) => attach::console(arguments).await,
            Command::Image(command) => image::image(&command),
            Command::Token(command) => token::token(command),
            Command::Doctor(arguments) => doctor::doctor(arguments).await,
        }
    });
    runtime.shutdown_timeout(SHUTDOWN_ALLOWED);
    done.unwrap_or_else(|error| failed(&error))
}

/// Whether it is a node, or an engine alone.
const fn is_server(command: &Command) -> bool {
    let engine = matches!(
        command,
        Command::Flow(FlowArgs {
            command: FlowCommand::Up(_)
        })
    );
    engine || matches!(command, Command::Serve(_))
}

/// How many threads a server has: half as many as there are processors. The other half is for its log, its database, its jobs and
/// for workflows that compute. What it does are many small steps, each on the heels of the one before; a thread that has to
/// be woken for one takes longer than the step.
fn server_threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).max(1)
}

/// Logs what the flags of a server say.
fn serve_log(arguments: &LogArgs) {
    log(EnvFilter::new(&arguments.log), arguments.log_format);
}

/// What the environment says is to be logged, else the default.
fn filter(default: &str) -> EnvFilter {
    EnvFilter::try_from_env("MVM_CI_LOG").unwrap_or_else(|_| EnvFilter::new(default))
}

/// Begins to write what this program tells about itself to standard error.
fn log(filter: EnvFilter, format: LogFormat) {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !no_colour());
    match format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        // Who read our output has seen enough.
        return ExitCode::SUCCESS;
    }
    #[expect(
        clippy::print_stderr,
        reason = "the end of the program tells its user why"
    )]
    {
        eprintln!("mvm-ci: {}", with_causes(error));
        if let Some(hint) = hint(error) {
            eprintln!("hint: {hint}");
        }
    }
    ExitCode::from(code(error))
}

/// An error and its causes, less those that it tells of itself.
fn with_causes(error: &anyhow::Error) -> String {
    let mut told = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

/// What a node says that would help.
fn hint(error: &anyhow::Error) -> Option<&str> {
    match error.downcast_ref()? {
        ClientError::Refused { problem, .. } => problem.hint.as_deref(),
        ClientError::Unreachable { .. }
        | ClientError::OutcomeUnknown { .. }
        | ClientError::Violation { .. } => None,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The tables of [`mvm_lab::verdict::EXIT_CODES`] and [`exit_codes`] for commands that come to no verdict.
fn code(error: &anyhow::Error) -> u8 {
    if error.is::<ConfigError>()
        || error.is::<UnknownScenario>()
        || error.is::<NothingLeft>()
        || error.is::<OptionsError>()
        || error.is::<InputError>()
        || error.is::<TopologyFileError>()
    {
        return USAGE;
    }
    if let Some(error) = error.downcast_ref::<ScriptError>() {
        return match error {
            ScriptError::Python(PythonError::Missing { .. } | PythonError::Old { .. }) => {
                Verdict::Unfit.exit_code()
            }
            _ => USAGE,
        };
    }
    if error.is::<UnknownSchedule>() {
        return exit_codes::REFUSED;
    }
    if error.is::<AttachError>() {
        return exit_codes::DETACHED;
    }
    if let Some(error) = error.downcast_ref::<ClientError>() {
        return exit_codes::of_error(error);
    }
    if let Some(code) = flow::code(error) {
        return code;
    }
    match error.downcast_ref() {
        Some(
            ServeError::DataDirectory { .. }
            | ServeError::DataDirectoryInUse { .. }
            | ServeError::Directory(_)
            | ServeError::Restore(_)
            | ServeError::DataDirectoryName { .. }
            | ServeError::Tokens(_)
            | ServeError::Tls(_)
            | ServeError::Listen { .. }
            | ServeError::Worker { .. }
            | ServeError::Flow(_),
        ) => Verdict::Unfit.exit_code(),
        Some(ServeError::Store { .. } | ServeError::Http { .. }) | None => {
            Verdict::Failed.exit_code()
        }
    }
}

/// See <https://no-color.org>.
fn no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow!("no such file").context("could not read x: no such file");
        assert_eq!(with_causes(&error), "could not read x: no such file");
        let error = anyhow!("no such file").context("could not read x");
        assert_eq!(with_causes(&error), "could not read x: no such file");
    }
}
