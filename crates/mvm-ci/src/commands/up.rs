//! `mvm-ci up`: brings the machines of a topology up and keeps them.

use std::process::ExitCode;

use mvm_lab::{
    report,
    runner::{self, Stay},
    scenario::Scenario,
    script::topology_file,
    topology::Topology,
};

use super::run;
use crate::{cli::UpArgs, scenarios::bring_program};

pub(super) async fn up(arguments: UpArgs) -> anyhow::Result<ExitCode> {
    let file = topology_file(&arguments.topology);
    let mut topology = Topology::read(&file)?;
    bring_program(&mut topology, &std::env::current_exe()?);
    let scenario = Scenario {
        name: "up".into(),
        about: "brings machines up and keeps them".into(),
        topology,
        prepare: None,
        run: Box::new(|run| Box::pin(async { Ok(run.lab.start_all().await?) })),
    };
    let listener = match arguments.json {
        true => report::json_lines(std::io::stdout()),
        // For as long as this may take, nothing moves on the terminal.
        false => report::terminal(std::io::stdout(), run::colours(), None),
    };
    let command = vec![
        "up".to_owned(),
        arguments.topology.to_string_lossy().into_owned(),
    ];
    let mut options = run::options(&arguments.run, command, listener);
    options.stay = Stay::Passed;
    if !arguments.json {
        options.lines = Some(report::lines(std::io::stdout(), run::colours()));
    }
    let report = runner::run(&scenario, options).await?;
    run::tell_folder(arguments.json, &report)?;
    Ok(ExitCode::from(report.verdict.exit_code()))
}
