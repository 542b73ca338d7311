//! `cargo xtask bench`: runs a measuring program several times and prints the medians beside their goals.
//!
//! What is measured, and the goals, are known by the measuring program: a bench target without cargo's harness,
//! which prints one line of JSON per measurement on stdout ([`Sample`]) and measures each thing once per run.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::cargo::cargo;
use crate::cli::{BenchOptions, Subject};
use crate::runner::Runner;
use crate::samples::{Summary, table};
use crate::{peer, setup, talk};

/// The version of the JSON file's layout.
const VERSION: u32 = 1;

/// One line of a measuring program.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    /// What was measured, for people; equal names are one series.
    name: String,
    /// The unit of the value, as `ms`.
    unit: String,
    value: f64,
    /// The goal, an upper bound for the median; absent for numbers that only stand beside others.
    at_most: Option<f64>,
    /// The goal, a lower bound for the median.
    at_least: Option<f64>,
}

/// The JSON file.
#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    bench: &'static str,
    measurements: Vec<Measurement>,
}

/// All samples of one name.
#[derive(Debug, Serialize)]
struct Measurement {
    name: String,
    unit: String,
    #[serde(flatten)]
    goal: Goal,
    #[serde(flatten)]
    summary: Summary,
    samples: Vec<f64>,
}

/// The bounds for a median. Most measurements have none or one.
#[derive(Clone, Copy, Debug, Serialize)]
struct Goal {
    at_most: Option<f64>,
    at_least: Option<f64>,
}

impl Goal {
    /// The bounds as people write them; empty without any.
    fn describe(self, number: impl Fn(f64) -> String) -> String {
        let upper = self.at_most.map(|bound| format!("<= {}", number(bound)));
        let lower = self.at_least.map(|bound| format!(">= {}", number(bound)));
        let bounds: Vec<String> = lower.into_iter().chain(upper).collect();
        bounds.join(", ")
    }

    /// What to say about a median; nothing without a bound.
    fn judge(self, median: f64) -> &'static str {
        let upper = self.at_most.map(|bound| median <= bound);
        let lower = self.at_least.map(|bound| median >= bound);
        match (upper, lower) {
            (None, None) => "",
            (Some(false), _) | (_, Some(false)) => "missed",
            (Some(true), _) | (_, Some(true)) => "reached",
        }
    }
}

/// Where a measuring program is found.
struct Program {
    package: &'static str,
    target: &'static str,
    profile: &'static str,
}

impl Program {
    /// Whatever is measured of a subject; the first gives the report its name.
    fn all_of(subject: Subject) -> &'static [Program] {
        match subject {
            Subject::Boot => &[Program {
                package: "mvm-lab",
                target: "boot",
                profile: "bench",
            }],
            // A release build of the node takes a quarter of an hour, and the tests' build is what users try.
            Subject::Cluster => &[Program {
                package: "mvm-ci",
                target: "cluster",
                profile: "dev",
            }],
            Subject::Fabric => &[
                Program {
                    package: "mvm-fabric",
                    target: "fabric",
                    profile: "bench",
                },
                Program {
                    package: "mvm-lab",
                    target: "guests",
                    profile: "bench",
                },
            ],
            Subject::Flow => &[Program {
                package: "mvm-ci",
                target: "flow",
                profile: "bench",
            }],
            Subject::Queue => &[
                Program {
                    package: "mvm-ci",
                    target: "queue",
                    profile: "bench",
                },
                Program {
                    package: "mvm-queue",
                    target: "claim",
                    profile: "bench",
                },
            ],
            Subject::Scripts => &[Program {
                package: "mvm-lab",
                target: "scripts",
                profile: "bench",
            }],
        }
    }

    fn command(&self) -> Command {
        let Self {
            package,
            target,
            profile,
        } = self;
        cargo([
            "bench",
            "--package",
            package,
            "--bench",
            target,
            "--profile",
            profile,
        ])
    }
}

pub(crate) async fn bench(runner: &mut Runner, options: BenchOptions) -> anyhow::Result<()> {
    let mut peer = None;
    match options.subject {
        Subject::Boot | Subject::Cluster | Subject::Scripts => setup::setup(runner).await?,
        Subject::Fabric => {
            setup::setup(runner).await?;
            setup::extra_programs(runner, &setup::OF_THE_FABRIC_BENCH).await?;
        }
        // These need no machines, so no kernel.
        Subject::Flow => {
            setup::extra_programs(runner, &setup::OF_THE_FLOW_BENCH).await?;
            peer = Some(peer::install(runner).await?);
        }
        Subject::Queue => setup::extra_programs(runner, &setup::OF_THE_QUEUE_BENCH).await?,
    }
    let programs = Program::all_of(options.subject);
    for program in programs {
        let mut build = program.command();
        build.arg("--no-run");
        runner.run("build", build).await?;
    }
    let mut samples = Vec::new();
    for repetition in 1..=options.repetitions.get() {
        for program in programs {
            let target = program.target;
            let phase = format!("bench {target}, {repetition} of {}", options.repetitions);
            samples.extend(measure(runner, &phase, program, options.large, peer.as_deref()).await?);
        }
    }
    let report = Report {
        version: VERSION,
        bench: programs[0].target,
        measurements: gather(samples),
    };
    talk::data(&render(&report))?;
    options
        .json
        .as_deref()
        .map_or(Ok(()), |file| write_json(&report, file))
}

async fn measure(
    runner: &mut Runner,
    phase: &str,
    program: &Program,
    large: bool,
    peer: Option<&Path>,
) -> anyhow::Result<Vec<Sample>> {
    // A file, not a pipe: nobody has to read it while the program runs.
    let mut output = memory_file()?;
    let mut command = program.command();
    command
        .arg("--quiet")
        .args(large.then_some(["--", "--large"]).iter().flatten())
        .envs(peer.map(|folder| (peer::VARIABLE, folder)))
        .stdout(Stdio::from(output.try_clone()?));
    runner.run(phase, command).await?;
    output.seek(SeekFrom::Start(0))?;
    let mut text = String::new();
    output
        .read_to_string(&mut text)
        .context("could not read what the measuring program printed")?;
    parse(&text)
}

fn memory_file() -> anyhow::Result<std::fs::File> {
    let descriptor = rustix::fs::memfd_create("samples", rustix::fs::MemfdFlags::CLOEXEC)?;
    Ok(std::fs::File::from(descriptor))
}

fn parse(text: &str) -> anyhow::Result<Vec<Sample>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            serde_json::from_str(line)
                .with_context(|| format!("could not take {line:?} for a measurement"))
        })
        .collect()
}

/// One measurement per name, in the order of first appearance.
fn gather(samples: Vec<Sample>) -> Vec<Measurement> {
    let mut measurements: Vec<Measurement> = Vec::new();
    for Sample {
        name,
        unit,
        value,
        at_most,
        at_least,
    } in samples
    {
        match measurements
            .iter_mut()
            .find(|measurement| measurement.name == name)
        {
            Some(measurement) => measurement.samples.push(value),
            None => {
                let summary = Summary {
                    median: value,
                    min: value,
                    max: value,
                };
                measurements.push(Measurement {
                    name,
                    unit,
                    goal: Goal { at_most, at_least },
                    summary,
                    samples: vec![value],
                });
            }
        }
    }
    for measurement in &mut measurements {
        measurement.summary = Summary::of(&measurement.samples).unwrap_or(measurement.summary);
    }
    measurements
}

fn render(report: &Report) -> String {
    let heading = ["measurement", "median", "min", "max", "goal", ""].map(str::to_owned);
    let rows = report.measurements.iter().map(|measurement| {
        let number = |value: f64| format!("{value:.1} {}", measurement.unit);
        let Summary { median, min, max } = measurement.summary;
        [
            measurement.name.clone(),
            number(median),
            number(min),
            number(max),
            measurement.goal.describe(number),
            measurement.goal.judge(median).to_owned(),
        ]
    });
    table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>())
}

fn write_json(report: &Report, file: &Path) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(report)? + "\n";
    std::fs::write(file, text).with_context(|| format!("could not write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{Report, VERSION, gather, parse, render};

    const OUTPUT: &str = r#"
{"name":"one minimal machine","unit":"ms","value":1300.0,"at_most":1400.0}
{"name":"bare kernel","unit":"ms","value":900.0,"at_most":null}
{"name":"agent round trip","unit":"ms","value":3.5,"at_most":3.0}
{"name":"one minimal machine","unit":"ms","value":1500.0,"at_most":1400.0}
{"name":"one minimal machine","unit":"ms","value":1250.0,"at_most":1400.0}
{"name":"ours to theirs","unit":"x","value":3.5,"at_least":3.0}
{"name":"theirs to ours","unit":"x","value":2.5,"at_least":3.0}
"#;

    #[test]
    fn medians_stand_beside_their_goals() {
        let report = Report {
            version: VERSION,
            bench: "boot",
            measurements: gather(parse(OUTPUT).unwrap()),
        };
        expect![[r#"
            measurement             median        min        max          goal
            one minimal machine  1300.0 ms  1250.0 ms  1500.0 ms  <= 1400.0 ms  reached
            bare kernel           900.0 ms   900.0 ms   900.0 ms
            agent round trip        3.5 ms     3.5 ms     3.5 ms     <= 3.0 ms   missed
            ours to theirs           3.5 x      3.5 x      3.5 x      >= 3.0 x  reached
            theirs to ours           2.5 x      2.5 x      2.5 x      >= 3.0 x   missed
        "#]]
        .assert_eq(&render(&report));
    }

    #[test]
    fn the_json_file_carries_every_sample() {
        let report = Report {
            version: VERSION,
            bench: "boot",
            measurements: gather(parse(OUTPUT).unwrap()),
        };
        let json = serde_json::to_value(&report).unwrap();
        let first = serde_json::json!({
            "name": "one minimal machine", "unit": "ms", "at_most": 1400.0, "at_least": null,
            "median": 1300.0, "min": 1250.0, "max": 1500.0, "samples": [1300.0, 1500.0, 1250.0],
        });
        assert_eq!(json["measurements"][0], first);
        assert_eq!(json["version"], VERSION);
    }

    #[test]
    fn a_line_that_is_no_measurement_is_shown() {
        let error = parse("running 0 tests\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not take \"running 0 tests\" for a measurement"
        );
    }
}
