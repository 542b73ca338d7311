//! `mvm-ci test`: chooses what to run, and tells what became of it.
//!
//! Running several is `suite`'s.

mod suite;

use std::{io::Write, path::Path, process::ExitCode, sync::Arc};

use anyhow::Context;
use mvm_lab::{
    report::Junit, runner::Report, scenario::Scenario, script::ScriptTest, verdict::Verdict, warm,
};

use self::suite::{Done, Suite};
use crate::{cli::TestArgs, scenarios};

/// Nothing can be run under this name.
#[derive(Debug, thiserror::Error)]
#[error("could not find the scenario or test {name:?}; there is no such path, and the scenarios are {}", known.join(", "))]
pub(super) struct UnknownScenario {
    name: String,
    known: Vec<String>,
}

/// Nothing is left to be run.
#[derive(Debug, thiserror::Error)]
#[error("could not find a test whose name has {filter:?} in it")]
pub(super) struct NothingLeft {
    filter: String,
}

pub(super) async fn test(arguments: TestArgs) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("could not find this program's own file")?;
    let chosen = chosen(&program, &arguments)?;
    if arguments.list {
        return list(&chosen);
    }
    let pool = match arguments.warm {
        0 => None,
        machines => Some(warm::pool(machines)?),
    };
    let junit = arguments.junit.as_ref().map(|_| Junit::default());
    let suite = Suite {
        arguments: &arguments,
        pool: pool.clone(),
        junit: junit.clone(),
    };
    let done = suite.run(chosen).await;
    drop(suite);
    // No run has it any more.
    if let Some(pool) = pool.and_then(Arc::into_inner) {
        pool.close().await;
    }
    if let (Some(junit), Some(path)) = (junit, &arguments.junit) {
        let written = std::fs::write(path, junit.xml()?);
        written.with_context(|| format!("could not write {}", path.display()))?;
    }
    if done.len() > 1 {
        summarize(&arguments, &done)?;
    }
    let worst = done
        .iter()
        .map(Done::verdict)
        .max_by_key(|verdict| gravity(*verdict));
    Ok(ExitCode::from(worst.unwrap_or(Verdict::Passed).exit_code()))
}

/// What the command line names, by the name it has there; every scenario where it names none.
fn chosen(program: &Path, arguments: &TestArgs) -> anyhow::Result<Vec<(String, Scenario)>> {
    let named = arguments.scenarios.iter();
    let mut chosen = named
        .map(|name| Ok((name.clone(), choose(program, name)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    if chosen.is_empty() {
        let all = scenarios::all(program).into_iter();
        chosen = all
            .map(|scenario| (scenario.name.to_string(), scenario))
            .collect();
    }
    if let Some(filter) = &arguments.filter {
        chosen.retain(|(name, _)| name.contains(filter.as_str()));
        if chosen.is_empty() {
            let filter = filter.clone();
            return Err(NothingLeft { filter }.into());
        }
    }
    Ok(chosen)
}

/// Finds a scenario by its name, or a test by its path.
fn choose(program: &Path, name: &str) -> anyhow::Result<Scenario> {
    let mut known = scenarios::all(program);
    if let Some(position) = known.iter().position(|scenario| scenario.name == name) {
        return Ok(known.swap_remove(position));
    }
    let path = Path::new(name);
    if path.exists() || path.with_extension("toml").is_file() {
        let mut test = ScriptTest::load(path)?;
        scenarios::bring_program(&mut test.topology, program);
        return Ok(test.scenario());
    }
    let known = known.iter().map(|scenario| scenario.name.to_string());
    Err(UnknownScenario {
        name: name.to_owned(),
        known: known.collect(),
    }
    .into())
}

fn list(chosen: &[(String, Scenario)]) -> anyhow::Result<ExitCode> {
    let mut output = std::io::stdout().lock();
    for (name, scenario) in chosen {
        writeln!(output, "{name:<16} {}", scenario.about)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One line per run, those that did not pass last; beside JSON that is talk, for standard error.
fn summarize(arguments: &TestArgs, done: &[Done]) -> anyhow::Result<()> {
    let mut lines = String::from("\n");
    let mut sorted: Vec<&Done> = done.iter().collect();
    sorted.sort_by_key(|done| gravity(done.verdict()));
    for done in sorted {
        let folder = done
            .report
            .as_ref()
            .map(|report: &Report| report.folder.display());
        let tail = match (&done.report, done.verdict()) {
            (Err(error), _) => format!("  {error:#}"),
            (Ok(_), Verdict::Passed) => String::new(),
            (Ok(_), _) => folder
                .map(|folder| format!("  {folder}"))
                .unwrap_or_default(),
        };
        lines += &format!(
            "{:>8.1} s  {:<12} {}{tail}\n",
            done.took.as_secs_f64(),
            done.verdict().word(),
            done.name
        );
    }
    let passed = done
        .iter()
        .filter(|done| done.verdict() == Verdict::Passed)
        .count();
    lines += &format!("{passed} of {} passed\n", done.len());
    let written = match arguments.json {
        true => std::io::stderr().write_all(lines.as_bytes()),
        false => std::io::stdout().write_all(lines.as_bytes()),
    };
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Which verdict counts for several: a broken promise more than what is not known.
fn gravity(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Passed => 0,
        Verdict::Unfit => 1,
        Verdict::Unknown => 2,
        Verdict::Failed => 3,
        Verdict::Interrupted => 4,
    }
}
