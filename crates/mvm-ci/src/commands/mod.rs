//! What the commands do.

mod doctor;
mod image;
mod serve;
mod test;

use std::{io::IsTerminal, process::ExitCode, time::Duration};

use mvm_lab::verdict::Verdict;
use mvm_node::{ServeError, config::ConfigError};
use tracing_subscriber::EnvFilter;

use self::test::UnknownScenario;
use crate::cli::{Cli, Command};

/// The same as clap's.
const USAGE: u8 = 2;

/// After a verdict nothing may hold the program up: work on other threads is given this long.
const SHUTDOWN_ALLOWED: Duration = Duration::from_millis(500);

/// Does what the command line says; errors are printed with their causes.
pub fn run(cli: Cli) -> ExitCode {
    // Who runs a node wants to know what it does; who runs a scenario has the report.
    let default = match cli.command {
        Command::Serve(_) => "warn,mvm_node=info",
        Command::Test(_) | Command::Image(_) | Command::Doctor(_) => "warn",
    };
    let filter = EnvFilter::try_from_env("MVM_CI_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !no_colour())
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
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
            Command::Test(arguments) => test::test(arguments).await,
            Command::Image(command) => image::image(&command),
            Command::Doctor(arguments) => doctor::doctor(arguments).await,
        }
    });
    runtime.shutdown_timeout(SHUTDOWN_ALLOWED);
    done.unwrap_or_else(|error| failed(&error))
}

fn failed(error: &anyhow::Error) -> ExitCode {
    #[expect(
        clippy::print_stderr,
        reason = "the end of the program tells its user why"
    )]
    {
        eprintln!("mvm-ci: {error:#}");
    }
    ExitCode::from(code(error))
}

/// The table of [`mvm_lab::verdict::EXIT_CODES`] for commands that come to no verdict.
fn code(error: &anyhow::Error) -> u8 {
    if error.is::<ConfigError>() || error.is::<UnknownScenario>() {
        return USAGE;
    }
    match error.downcast_ref() {
        Some(
            ServeError::DataDirectory { .. }
            | ServeError::DataDirectoryInUse { .. }
            | ServeError::Directory(_)
            | ServeError::Restore(_)
            | ServeError::DataDirectoryName { .. }
            | ServeError::Listen { .. }
            | ServeError::Worker { .. },
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
