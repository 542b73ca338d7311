//! Runs one command as a job, from the command line: for trying the crate by hand, and the node and supervisor
//! of its tests.
//!
//! `mvm-exec-run [--subreaper] COMMAND [ARGUMENT...]` passes the output on and ends as the job did.

use std::io::Write;
use std::process::ExitCode;

use mvm_exec::{Event, Isolation, Job, Outcome, Spec, Stream};

fn main() -> ExitCode {
    mvm_exec::supervise_if_asked();
    match run() {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "mvm-exec-run: {error}");
            ExitCode::from(125)
        }
    }
}

fn run() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let mut isolation = Isolation::probe()?;
    if arguments.next_if(|word| word == "--subreaper").is_some() {
        isolation = isolation.without_namespace("asked for");
    }
    let program = arguments.next().ok_or("no command was named")?;
    let spec = Spec::program(program).arguments(arguments);
    let runtime = tokio::runtime::Runtime::new()?;
    Ok(runtime.block_on(pass_on(&isolation, spec))?)
}

async fn pass_on(isolation: &Isolation, spec: Spec) -> Result<ExitCode, std::io::Error> {
    let mut job = Job::start(isolation, spec).map_err(std::io::Error::other)?;
    loop {
        match job.next_event().await {
            Event::Started { .. } => {}
            Event::Output(output) => match output.stream {
                Stream::Stdout => {
                    std::io::stdout().write_all(&output.bytes)?;
                    std::io::stdout().flush()?;
                }
                Stream::Stderr => std::io::stderr().write_all(&output.bytes)?,
            },
            Event::Omitted { bytes, .. } => {
                writeln!(std::io::stderr(), "[{bytes} bytes left out]")?;
            }
            Event::Ended(Outcome::Exited(code)) => {
                return Ok(ExitCode::from(u8::try_from(code).unwrap_or(125)));
            }
            Event::Ended(outcome) => {
                writeln!(std::io::stderr(), "mvm-exec-run: {outcome}")?;
                return Ok(ExitCode::from(125));
            }
        }
    }
}
