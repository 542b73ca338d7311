//! `mvm-ci repl`: a cluster by hand.

use std::{io::Write, process::ExitCode};

use mvm_lab::{
    report::{self, Sent},
    runner,
    script::Prompt,
};

use super::run;
use crate::{cli::ReplArgs, scenarios::bring_program};

pub(super) async fn repl(arguments: ReplArgs) -> anyhow::Result<ExitCode> {
    let mut prompt = Prompt::load(&arguments.topology)?;
    bring_program(&mut prompt.topology, &std::env::current_exe()?);
    let (lines, shown) = Sent::new();
    let listener = report::terminal(lines, run::colours(), None);
    let command = vec![
        "repl".to_owned(),
        arguments.topology.to_string_lossy().into_owned(),
    ];
    let options = run::options(&arguments.run, command, listener);
    let report = runner::run(&prompt.scenario(shown), options).await?;
    run::tell_folder(false, &report)?;
    if let Some(message) = &report.message {
        writeln!(std::io::stderr(), "mvm-ci: {message}")?;
    }
    Ok(ExitCode::from(report.verdict.exit_code()))
}
