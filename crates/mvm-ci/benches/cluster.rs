//! How long the `cluster` scenario takes to its verdict, cold and from its checkpoint, and how much of the cold one
//! is forming.
//!
//! Runs it once and prints one line of JSON per measurement; `cargo xtask bench cluster` repeats it and
//! prints the medians.

// The lines are this program's output, and a measurement that cannot be made ends it.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::{path::Path, process::Command};

use serde_json::{Value, json};

fn main() {
    let cold = run(&["--cold"]);
    print(
        "cluster, cold start to verdict",
        cold.seconds("run_ended", ""),
        Some(90.0),
    );
    print(
        "of that, booting three machines",
        cold.seconds("step_ended", "boot"),
        None,
    );
    print(
        "of that, forming (hiqlite's own waits)",
        cold.seconds("step_ended", "forms"),
        None,
    );
    // The first of these makes the checkpoint, if there is none yet.
    run(&[]);
    let restored = run(&[]);
    print(
        "cluster, restored to verdict",
        restored.seconds("run_ended", ""),
        Some(40.0),
    );
    let to_write = restored.at("restored") - restored.at("environment");
    let write = restored.seconds("step_ended", "first write");
    print(
        "of that, restored to an acknowledged write",
        to_write + write,
        Some(1.5),
    );
}

/// The events of one run.
struct Events(Vec<Value>);

fn run(arguments: &[&str]) -> Events {
    let output = Command::new(env!("CARGO_BIN_EXE_mvm-ci"))
        .args(["test", "cluster", "--json", "--runs"])
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("runs"))
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "the scenario did not pass:\n{text}"
    );
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    Events(lines.collect())
}

impl Events {
    fn find(&self, kind: &str, step: &str) -> &Value {
        let found = self.0.iter().find(|event| {
            event["event"] == kind && event["step"].as_str().unwrap_or_default().contains(step)
        });
        found.unwrap_or_else(|| panic!("no event {kind} {step}"))
    }

    /// How long a step or the run took.
    fn seconds(&self, kind: &str, step: &str) -> f64 {
        self.find(kind, step)["duration_ms"].as_f64().unwrap() / 1000.0
    }

    /// When an event happened.
    fn at(&self, kind: &str) -> f64 {
        self.find(kind, "")["at_ms"].as_f64().unwrap() / 1000.0
    }
}

fn print(name: &str, seconds: f64, at_most: Option<f64>) {
    println!(
        "{}",
        json!({ "name": name, "unit": "s", "value": seconds, "at_most": at_most })
    );
}
