//! Starts Debian machines and tells how long that took; then runs the given commands in the first of them.
//!
//! `cargo run -p mvm-lab --example debian -- 3 'systemctl list-units'`

use std::{
    io::Write,
    sync::OnceLock,
    time::{Duration, Instant},
};

use mvm_lab::{
    environment::EnvironmentOptions,
    lab::StartBy,
    report::{self, Colours},
    runner::{self, RunOptions, Stay},
    scenario::{Outcome, Run, Scenario, ScenarioFuture},
    topology::{ImageKind, MachineConfig, Topology},
};

/// A first boot under an emulator.
const BOOT_ALLOWED: Duration = Duration::from_secs(240);
static COMMANDS: OnceLock<Vec<String>> = OnceLock::new();

async fn steps(run: &Run) -> Outcome {
    let began = Instant::now();
    run.lab.start_all().await?;
    tell(&format!(
        "all are up and their services let go after {:.2?}",
        began.elapsed()
    ));
    let Some(node) = run.lab.nodes().next() else {
        return Ok(());
    };
    for command in COMMANDS.get().into_iter().flatten() {
        let output = node.execute(command).await?;
        let said = [output.stdout, output.stderr].concat();
        let (status, took) = (output.status, output.duration);
        let said = String::from_utf8_lossy(&said);
        tell(&format!("{command}: {status} after {took:.2?}\n{said}"));
    }
    Ok(())
}

fn tell(line: &str) {
    // Nobody may be listening any more.
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let count: u8 = arguments.next().unwrap_or_default().parse().unwrap_or(1);
    COMMANDS.get_or_init(|| arguments.collect());
    let machines = (1..=count).map(|number| MachineConfig {
        memory_mib: 512,
        packages: vec!["openssh-server".to_owned()],
        image: Some(ImageKind::Debian),
        ..MachineConfig::new(format!("deb{number}"))
    });
    let scenario = Scenario {
        name: "debian".into(),
        about: "how soon Debian machines are there".into(),
        topology: Topology {
            boot_timeout: BOOT_ALLOWED,
            ..Topology::new(machines.collect())
        },
        prepare: None,
        run: Box::new(|run| -> ScenarioFuture<'_> { Box::pin(steps(run)) }),
    };
    let options = RunOptions {
        runs: std::env::temp_dir().join("debian-runs"),
        capture: false,
        command: std::env::args().collect(),
        environment: EnvironmentOptions::default(),
        start: StartBy::Snapshot,
        seed: None,
        stay: Stay::Never,
        lines: None,
        listeners: vec![report::terminal(std::io::stdout(), Colours::Off, None)],
    };
    runner::run(&scenario, options).await?;
    Ok(())
}
