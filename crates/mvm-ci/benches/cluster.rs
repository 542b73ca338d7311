//! How long the `cluster` scenario takes from a cold start to its verdict, and how much of that forming takes.
//!
//! Runs it once and prints one line of JSON per measurement; `cargo xtask bench cluster` repeats it and
//! prints the medians.

// The lines are this program's output, and a measurement that cannot be made ends it.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::{path::Path, process::Command};

use serde_json::{Value, json};

fn main() {
    let output = Command::new(env!("CARGO_BIN_EXE_mvm-ci"))
        .args(["test", "cluster", "--json", "--runs"])
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("runs"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "the scenario did not pass:\n{text}"
    );
    let events: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let duration = |kind: &str, step: &str| {
        let event = events.iter().find(|event| {
            event["event"] == kind && event["step"].as_str().unwrap_or_default().contains(step)
        });
        event.unwrap()["duration_ms"].as_f64().unwrap() / 1000.0
    };
    print(
        "cluster, cold start to verdict",
        duration("run_ended", ""),
        Some(90.0),
    );
    print(
        "of that, booting three machines",
        duration("step_ended", "boot"),
        None,
    );
    print(
        "of that, forming (hiqlite's own waits)",
        duration("step_ended", "forms"),
        None,
    );
}

fn print(name: &str, seconds: f64, at_most: Option<f64>) {
    println!(
        "{}",
        json!({ "name": name, "unit": "s", "value": seconds, "at_most": at_most })
    );
}
