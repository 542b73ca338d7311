//! What tests of real labs share: running a scenario that must pass, and hearing its warnings.

// Helpers of tests may unwrap as tests do, and each test file uses a part of this.
#![allow(clippy::unwrap_used, dead_code)]

use std::{
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use mvm_lab::{
    event::Event,
    report::{self, Colours},
    runner::{self, RunOptions},
    scenario::{Run, Scenario, ScenarioFuture},
    topology::{MachineConfig, MemoryPlan, Topology},
    verdict::Verdict,
};

/// Only a hang takes this long.
pub(crate) const ALLOWED: Duration = Duration::from_secs(30);

/// Two small machines with data disks and memory of their own, or shared.
pub(crate) fn two_machines(memory: MemoryPlan) -> Topology {
    let mut machines: Vec<_> = ["node1", "node2"].map(MachineConfig::new).into();
    for machine in &mut machines {
        machine.memory_mib = 128;
        machine.data_disk = true;
    }
    Topology {
        memory,
        ..Topology::new(machines)
    }
}

/// Runs a scenario, which must pass; returns its warnings.
#[track_caller]
pub(crate) fn check(
    name: &'static str,
    topology: Topology,
    run: for<'a> fn(&'a Run) -> ScenarioFuture<'a>,
) -> Vec<String> {
    check_scenario(Scenario {
        name: name.into(),
        about: "a test".into(),
        topology,
        prepare: None,
        run: Box::new(run),
    })
}

/// [`check`] for a scenario that is more than machines and steps.
#[track_caller]
pub(crate) fn check_scenario(scenario: Scenario) -> Vec<String> {
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&warnings);
    let runs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runs");
    let options = RunOptions {
        listeners: vec![
            report::terminal(std::io::stdout(), Colours::Off, None),
            Box::new(move |stamped| {
                if let Event::Warning { text } = &stamped.event {
                    heard.lock().unwrap().push(text.clone());
                }
            }),
        ],
        ..RunOptions::new(runs, ["cargo", "test", &scenario.name])
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let report = runtime.block_on(runner::run(&scenario, options)).unwrap();
    assert_eq!(
        report.verdict,
        Verdict::Passed,
        "{:?}; see {}",
        report.message,
        report.folder.display()
    );
    warnings.lock().unwrap().clone()
}

/// Sends a signal, named as kill(1) does, to one process.
pub(crate) fn signal(name: &str, pid: u32) {
    let told = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status();
    assert!(told.unwrap().success(), "could not send SIG{name} to {pid}");
}
