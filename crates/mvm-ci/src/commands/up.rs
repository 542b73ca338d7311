//! `mvm-ci up`: brings the machines of a topology up and keeps them.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use mvm_lab::{
    report,
    runner::{self, Stay},
    scenario::Scenario,
    topology::Topology,
};

use super::run;
use crate::cli::UpArgs;

/// The topology in a folder.
const TOPOLOGY_FILE: &str = "topology.toml";

pub(super) async fn up(arguments: UpArgs) -> anyhow::Result<ExitCode> {
    let file = topology_file(&arguments.topology);
    let scenario = Scenario {
        name: "up",
        about: "brings machines up and keeps them",
        topology: Topology::read(&file)?,
        prepare: None,
        run: |run| Box::pin(async { Ok(run.lab.start_all().await?) }),
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

fn topology_file(path: &Path) -> PathBuf {
    match path.is_dir() {
        true => path.join(TOPOLOGY_FILE),
        false => path.to_owned(),
    }
}
