//! Runs scenarios as tests.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::Path;

use mvm_ci::scenarios;
use mvm_lab::{
    lab::StartBy,
    report::{self, Colours},
    runner::{self, RunOptions},
    verdict::Verdict,
};

/// Runs a scenario by name; its lines go to the test's output. One whose verdict is unknown is run once more.
#[track_caller]
pub(crate) fn check(name: &str, start: StartBy) {
    let known = scenarios::all(Path::new(env!("CARGO_BIN_EXE_mvm-ci")));
    let scenario = known.iter().find(|scenario| scenario.name == name).unwrap();
    let options = || RunOptions {
        start,
        listeners: vec![report::terminal(std::io::stdout(), Colours::Off, None)],
        ..RunOptions::new(
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("runs"),
            [env!("CARGO_BIN_EXE_mvm-ci"), "test", name],
        )
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let run = || runtime.block_on(runner::run(scenario, options())).unwrap();
    let mut report = run();
    if report.verdict == Verdict::Unknown {
        println!("unknown: {:?}; once more", report.message);
        report = run();
    }
    assert_eq!(
        report.verdict,
        Verdict::Passed,
        "{:?}; see {}",
        report.message,
        report.folder.display()
    );
}
