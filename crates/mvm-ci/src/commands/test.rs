//! `mvm-ci test`: runs scenarios and tells their verdicts.

use std::{
    io::{IsTerminal, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context;
use indicatif::MultiProgress;
use mvm_lab::{
    event::Listener,
    report,
    runner::{self, RunOptions, Stay},
    scenario::Scenario,
    script::ScriptTest,
    verdict::Verdict,
    warm,
};
use mvm_machine::pool::Pool;

use super::run;
use crate::{cli::TestArgs, scenarios};

/// Nothing can be run under this name.
#[derive(Debug, thiserror::Error)]
#[error("could not find the scenario or test {name:?}; there is no such path, and the scenarios are {}", known.join(", "))]
pub(super) struct UnknownScenario {
    name: String,
    known: Vec<String>,
}

pub(super) async fn test(arguments: TestArgs) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("could not find this program's own file")?;
    if arguments.list {
        return list(&scenarios::all(&program));
    }
    let chosen = arguments.scenarios.iter();
    let chosen = chosen
        .map(|name| choose(&program, name))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let warm = match arguments.warm {
        0 => None,
        machines => Some(warm::pool(machines)?),
    };
    let mut worst = Verdict::Passed;
    for scenario in chosen {
        let report =
            runner::run(scenario, options(&arguments, scenario.name, warm.as_ref())).await?;
        run::tell_folder(arguments.json, &report)?;
        if report.verdict != Verdict::Passed {
            worst = report.verdict;
        }
        if report.verdict == Verdict::Interrupted {
            break;
        }
    }
    // No run has it any more.
    if let Some(pool) = warm.and_then(Arc::into_inner) {
        pool.close().await;
    }
    Ok(ExitCode::from(worst.exit_code()))
}

fn list(known: &[Scenario]) -> anyhow::Result<ExitCode> {
    let mut output = std::io::stdout().lock();
    for scenario in known {
        writeln!(output, "{:<16} {}", scenario.name, scenario.about)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Finds a scenario by its name, or a test by its path.
fn choose(program: &Path, name: &str) -> anyhow::Result<Scenario> {
    let mut known = scenarios::all(program);
    if let Some(position) = known.iter().position(|scenario| scenario.name == name) {
        return Ok(known.swap_remove(position));
    }
    let path = Path::new(name);
    if path.exists() || path.with_extension("toml").is_file() {
        return Ok(ScriptTest::load(path)?.scenario());
    }
    let known = known.iter().map(|scenario| scenario.name.to_string());
    Err(UnknownScenario {
        name: name.to_owned(),
        known: known.collect(),
    }
    .into())
}

fn options(arguments: &TestArgs, scenario: &str, warm: Option<&Arc<Pool>>) -> RunOptions {
    let mut command = vec!["test".to_owned(), scenario.to_owned()];
    if arguments.warm > 0 {
        command.extend(["--warm".to_owned(), arguments.warm.to_string()]);
    }
    let mut options = run::options(&arguments.run, command, listener(arguments));
    options.environment.warm = warm.cloned();
    if arguments.pause_on_failure {
        options.stay = Stay::Unpassed;
    }
    options
}

fn listener(arguments: &TestArgs) -> Listener {
    if arguments.json {
        return report::json_lines(std::io::stdout());
    }
    let live = (std::io::stdout().is_terminal() && std::io::stderr().is_terminal())
        .then(MultiProgress::new);
    report::terminal(std::io::stdout(), run::colours(), live)
}
