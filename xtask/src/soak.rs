//! `cargo xtask soak`: runs scenarios again and again, each run in its own process, and counts how they end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;

use crate::cargo::{cargo, root};
use crate::cli::SoakOptions;
use crate::runner::Runner;
use crate::samples::{Summary, table};
use crate::{setup, talk};

/// How the runs of one scenario ended.
#[derive(Debug, Default)]
struct Tally {
    /// How often each ending was seen.
    endings: BTreeMap<String, u32>,
    /// How long the passed ones took.
    passed_seconds: Vec<f64>,
}

pub(crate) async fn soak(runner: &mut Runner, options: SoakOptions) -> anyhow::Result<()> {
    setup::setup(runner).await?;
    runner
        .run("build", cargo(["build", "--package", "mvm-ci"]))
        .await?;
    let folder = root().join("runs/soak");
    fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    let mut tallies = Vec::new();
    for scenario in &options.scenarios {
        let mut tally = Tally::default();
        for number in 1..=options.count.get() {
            let log = folder.join(format!("{scenario}-{number:04}.log"));
            let (status, elapsed) = run_once(runner, scenario, &log).await?;
            report(scenario, number, options.count.get(), status, elapsed, &log);
            tally.add(status, elapsed);
        }
        tallies.push((scenario.clone(), tally));
    }
    talk::data(&render(&tallies))?;
    let bad: u32 = tallies.iter().map(|(_, tally)| tally.not_passed()).sum();
    anyhow::ensure!(
        bad == 0,
        "{bad} runs did not pass; their output is in {}",
        folder.display()
    );
    Ok(())
}

async fn run_once(
    runner: &mut Runner,
    scenario: &str,
    log: &PathBuf,
) -> anyhow::Result<(ExitStatus, Duration)> {
    let output = File::create(log).with_context(|| format!("could not write {}", log.display()))?;
    let mut command = cargo([
        "run",
        "--quiet",
        "--package",
        "mvm-ci",
        "--",
        "test",
        scenario,
    ]);
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    runner.status(&format!("soak {scenario}"), command).await
}

fn report(
    scenario: &str,
    number: u32,
    count: u32,
    status: ExitStatus,
    elapsed: Duration,
    log: &Path,
) {
    let evidence = if status.success() {
        String::new()
    } else {
        format!("; see {}", log.display())
    };
    let ending = ending(status);
    talk::say(format_args!(
        "xtask: soak: {scenario} {number} of {count}: {ending} in {:.1} s{evidence}",
        elapsed.as_secs_f64()
    ));
}

/// The words of `mvm-ci`'s exit codes; anything else is shown as it is.
fn ending(status: ExitStatus) -> String {
    match status.code() {
        Some(0) => "passed".to_owned(),
        Some(1) => "failed".to_owned(),
        Some(3) => "unknown".to_owned(),
        Some(4) => "environment unfit".to_owned(),
        _ => status.to_string(),
    }
}

impl Tally {
    fn add(&mut self, status: ExitStatus, elapsed: Duration) {
        *self.endings.entry(ending(status)).or_default() += 1;
        if status.success() {
            self.passed_seconds.push(elapsed.as_secs_f64());
        }
    }

    fn passed(&self) -> u32 {
        self.endings.get("passed").copied().unwrap_or(0)
    }

    fn not_passed(&self) -> u32 {
        self.endings.values().sum::<u32>() - self.passed()
    }

    fn others(&self) -> String {
        let others = self
            .endings
            .iter()
            .filter(|(ending, _)| *ending != "passed");
        others
            .map(|(ending, count)| format!("{count} {ending}"))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

fn render(tallies: &[(String, Tally)]) -> String {
    let heading = ["scenario", "passed", "median", "min", "max", "others"].map(str::to_owned);
    let rows = tallies.iter().map(|(scenario, tally)| {
        let passed = format!(
            "{} of {}",
            tally.passed(),
            tally.passed() + tally.not_passed()
        );
        let times = match Summary::of(&tally.passed_seconds) {
            Some(Summary { median, min, max }) => {
                [median, min, max].map(|seconds| format!("{seconds:.1} s"))
            }
            None => ["-", "-", "-"].map(str::to_owned),
        };
        let [median, min, max] = times;
        [scenario.clone(), passed, median, min, max, tally.others()]
    });
    table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;
    use std::time::Duration;

    use expect_test::expect;

    use super::{Tally, render};

    fn tally(ends: &[(i32, u64)]) -> Tally {
        let mut tally = Tally::default();
        for (wait_status, seconds) in ends {
            tally.add(
                ExitStatus::from_raw(*wait_status),
                Duration::from_secs(*seconds),
            );
        }
        tally
    }

    #[test]
    fn endings_are_counted_and_only_passed_runs_are_timed() {
        let mixed = tally(&[(0, 40), (0, 50), (1 << 8, 3), (3 << 8, 90), (9, 1), (0, 44)]);
        assert_eq!(mixed.not_passed(), 3);
        let tallies = [
            ("cluster".to_owned(), mixed),
            ("pair".to_owned(), tally(&[(1 << 8, 1)])),
        ];
        expect![[r#"
            scenario  passed  median     min     max                                      others
            cluster   3 of 6  44.0 s  40.0 s  50.0 s  1 failed, 1 signal: 9 (SIGKILL), 1 unknown
            pair      0 of 1       -       -       -                                    1 failed
        "#]]
        .assert_eq(&render(&tallies));
    }
}
