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
    environment::EnvironmentOptions,
    event::Listener,
    lab::StartBy,
    report::{self, Colours},
    run_folder::shell_line,
    runner::{self, RunOptions},
    scenario::Scenario,
    script::ScriptTest,
    verdict::Verdict,
    warm,
};
use mvm_machine::pool::Pool;

use super::no_colour;
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
    for (name, scenario) in arguments.scenarios.iter().zip(&chosen) {
        let report = runner::run(scenario, options(&arguments, name, warm.as_ref())).await?;
        tell_folder(&arguments, &report)?;
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
    let mut command: Vec<String> = std::env::args().take(1).collect();
    command.extend(["test".to_owned(), scenario.to_owned()]);
    if arguments.cold {
        command.push("--cold".to_owned());
    }
    if arguments.capture {
        command.push("--capture".to_owned());
    }
    if arguments.warm > 0 {
        command.extend(["--warm".to_owned(), arguments.warm.to_string()]);
    }
    if let Some(kernel) = &arguments.kernel {
        command.extend(["--kernel".to_owned(), kernel.to_string_lossy().into_owned()]);
    }
    RunOptions {
        runs: arguments.runs.clone(),
        capture: arguments.capture,
        command,
        environment: EnvironmentOptions {
            accelerator: arguments.accelerator.request(),
            kernel: arguments.kernel.clone(),
            warm: warm.cloned(),
        },
        start: match arguments.cold {
            true => StartBy::ColdBoot,
            false => StartBy::Snapshot,
        },
        listeners: vec![listener(arguments)],
    }
}

fn listener(arguments: &TestArgs) -> Listener {
    if arguments.json {
        return report::json_lines(std::io::stdout());
    }
    let colours = if std::io::stdout().is_terminal() && !no_colour() {
        Colours::On
    } else {
        Colours::Off
    };
    let live = (std::io::stdout().is_terminal() && std::io::stderr().is_terminal())
        .then(MultiProgress::new);
    report::terminal(std::io::stdout(), colours, live)
}

/// Every run ends with where its files are; with `--json` that is talk, for standard error.
fn tell_folder(arguments: &TestArgs, report: &runner::Report) -> anyhow::Result<()> {
    let line = format!(
        "run folder: {}\n",
        shell_line(&[report.folder.to_string_lossy().into_owned()])
    );
    let written = match arguments.json {
        true => std::io::stderr().write_all(line.as_bytes()),
        false => std::io::stdout().write_all(line.as_bytes()),
    };
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
