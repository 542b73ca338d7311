//! `hundred`: a hundred machines on one segment, each of which greets every other once.

use std::time::{Duration, Instant};

use mvm_lab::{
    ensure,
    lab::Lab,
    scenario::{Outcome, Run, Scenario, ScenarioFuture},
    topology::{MachineConfig, Topology},
};

const MACHINES: usize = 100;
const MEMORY_MIB: u32 = 128;
/// Some ten thousand greetings, and as many questions for addresses that all machines hear, in translated guests.
const GREETING_ALLOWED: Duration = Duration::from_secs(120);
const MIB: f64 = (1 << 20) as f64;

pub(super) fn scenario() -> Scenario {
    let machines = (1..=MACHINES).map(|number| MachineConfig {
        memory_mib: MEMORY_MIB,
        ..MachineConfig::new(format!("m{number:03}"))
    });
    Scenario {
        name: "hundred".into(),
        about: "a hundred machines on one segment, each greets each other".into(),
        topology: Topology::new(machines.collect()),
        prepare: None,
        run: Box::new(|run| -> ScenarioFuture<'_> { Box::pin(steps(run)) }),
    }
}

async fn steps(run: &Run) -> Outcome {
    let lab = &run.lab;
    let began = Instant::now();
    run.step("a hundred machines come up", async {
        Ok(lab.start_all().await?)
    })
    .await?;
    run.note(format!(
        "{MACHINES} machines answered after {:.1} s, {}",
        began.elapsed().as_secs_f64(),
        memory(lab).await?
    ));
    run.step("each greets each other once", async {
        let greetings = lab.greet(GREETING_ALLOWED).await?;
        let wrong = greetings.not_once();
        ensure!(
            wrong.is_empty(),
            "{} greetings did not come exactly once (listener, speaker, times): {:?}",
            wrong.len(),
            wrong.iter().take(20).collect::<Vec<_>>()
        );
        run.note(format!(
            "{} greetings in {:.1} s",
            MACHINES * (MACHINES - 1),
            greetings.took.as_secs_f64()
        ));
        Ok(())
    })
    .await
}

/// What the machines take of the host's memory. A page that several share counts in parts (PSS, proc_pid_smaps(5)).
async fn memory(lab: &Lab) -> Outcome<String> {
    let mut shares = Vec::new();
    for node in lab.nodes() {
        shares.push(node.memory_use().await?.proportional as f64 / MIB);
    }
    let all: f64 = shares.iter().sum();
    let most = shares.iter().copied().fold(0.0, f64::max);
    Ok(format!(
        "{:.0} MiB together: {:.1} MiB each, the largest {most:.1} MiB",
        all,
        all / shares.len() as f64
    ))
}
