//! The `mvm-agent` program: the guest's daemon, and the host's watcher.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use mvm_agent::daemon;

const USAGE: &str = "usage:
  mvm-agent             as PID 1: makes the machine usable and serves its agent port
  mvm-agent service     serves the agent port of a machine with another PID 1
  mvm-agent --fd N      serves the inherited descriptor N
  mvm-agent greet PORT MILLISECONDS
                        greets all hosts and tells who was heard, as lines of orders say
  mvm-agent watch --fd N  cleans up what it is told of over the pipe N, once that closes";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // The kernel hands PID 1 the words of its command line that it does not know.
    if std::process::id() == 1 {
        daemon::run_as_init();
    }
    let done = match words.as_slice() {
        ["service"] => daemon::run_as_service(),
        ["--fd", number] => number
            .parse()
            .map_or_else(|_| usage(), daemon::run_on_descriptor),
        ["greet", port, milliseconds] => match (port.parse(), milliseconds.parse()) {
            (Ok(port), Ok(milliseconds)) => daemon::greet(
                port,
                Duration::from_millis(milliseconds),
                &mut std::io::stdin().lock(),
                &mut std::io::stdout().lock(),
            ),
            _ => usage(),
        },
        ["watch", "--fd", number] => number.parse().map_or_else(|_| usage(), daemon::watch),
        _ => usage(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed standard error leaves the exit code to tell.
            let _ = writeln!(std::io::stderr(), "mvm-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> std::io::Result<()> {
    Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, USAGE))
}
