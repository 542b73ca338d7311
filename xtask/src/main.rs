//! All automation of the project: `cargo xtask TASK`. This file starts a task and turns its end into an exit
//! code; each task has a file of its own, and the words of the command line are in `cli`.

mod apt;
mod bench;
mod cargo;
mod cli;
mod demo;
mod fuzz;
mod guests;
mod lint;
mod peer;
mod runner;
mod samples;
mod setup;
mod soak;
mod stop;
mod talk;
mod test;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Task};
use runner::Runner;
use stop::{FAILED, Stop};

fn main() -> ExitCode {
    let task = Cli::parse().task;
    match perform(task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            talk::say(format_args!("error: {error:#}"));
            let code = error.downcast_ref::<Stop>().map_or(FAILED, Stop::exit_code);
            ExitCode::from(code)
        }
    }
}

/// One thread is enough: a task waits for one child at a time, and for signals.
fn perform(task: Task) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let mut runner = Runner::new()?;
        match task {
            Task::Setup => setup::setup(&mut runner).await,
            Task::Demo(options) => demo::demo(&mut runner, options).await,
            Task::Test(options) => test::test(&mut runner, options).await,
            Task::Bench(options) => bench::bench(&mut runner, options).await,
            Task::Soak(options) => soak::soak(&mut runner, options).await,
            Task::Fuzz(options) => fuzz::fuzz(&mut runner, options).await,
            Task::Guests(options) => guests::guests(&mut runner, options).await,
            Task::Lint => lint::lint(&mut runner).await,
        }
    });
    // A download that was interrupted is not awaited; the cache shows nothing of it.
    runtime.shutdown_background();
    result
}
