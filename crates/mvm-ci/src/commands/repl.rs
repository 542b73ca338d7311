//! `mvm-ci repl`: a cluster by hand.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
};

use mvm_lab::{
    environment::EnvironmentOptions,
    lab::StartBy,
    report::{self, Colours, Lines},
    run_folder::shell_line,
    runner::{self, RunOptions},
    script::Prompt,
};

use super::no_colour;
use crate::cli::ReplArgs;

pub(super) async fn repl(arguments: ReplArgs) -> anyhow::Result<ExitCode> {
    let prompt = Prompt::load(&arguments.topology)?;
    let (lines, shown) = Lines::new();
    let colours = match std::io::stdout().is_terminal() && !no_colour() {
        true => Colours::On,
        false => Colours::Off,
    };
    let options = RunOptions {
        runs: arguments.runs,
        capture: false,
        command: std::env::args().collect(),
        environment: EnvironmentOptions {
            accelerator: arguments.accelerator.request(),
            ..EnvironmentOptions::default()
        },
        start: match arguments.cold {
            true => StartBy::ColdBoot,
            false => StartBy::Snapshot,
        },
        listeners: vec![report::terminal(lines, colours, None)],
    };
    let report = runner::run(&prompt.scenario(shown), options).await?;
    let folder = shell_line(&[report.folder.to_string_lossy().into_owned()]);
    writeln!(std::io::stdout(), "run folder: {folder}")?;
    if let Some(message) = &report.message {
        writeln!(std::io::stderr(), "mvm-ci: {message}")?;
    }
    Ok(ExitCode::from(report.verdict.exit_code()))
}
