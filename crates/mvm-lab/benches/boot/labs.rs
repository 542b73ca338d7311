//! Labs: machines with names and a network between them, resumed together, and three whose connections live on.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use mvm_lab::{
    event::{Event, Stamped},
    runner::{self, RunOptions},
    scenario::{Outcome, Preparation, Run, Scenario, ScenarioFuture},
    service::ServiceSpec,
    topology::{MachineConfig, Topology},
    verdict::Verdict,
};

use super::print;

const ALLOWED: Duration = Duration::from_secs(60);
const MIB: f64 = (1 << 20) as f64;
const MEMORY_MIB: u32 = 128;
/// How many machines, and what their start may take in seconds.
const CROWDS: [(usize, Option<f64>); 6] = [
    (1, None),
    (3, None),
    (10, None),
    (20, Some(1.6)),
    (40, Some(3.5)),
    (100, Some(10.0)),
];
/// What a machine may take of the host's memory beyond the file that all share, in MiB.
const SHARE_MIB_MAX: f64 = 30.0;

/// All crowds, or only that of so many.
pub(crate) async fn crowds(only: Option<usize>) {
    // The first of its kind is booted and frozen; what follows is not to be charged with that.
    crowd(1).await;
    for (machines, at_most) in CROWDS {
        if only.is_some_and(|only| only != machines) {
            continue;
        }
        let (seconds, share_mib) = crowd(machines).await;
        let name = format!("{machines:3} machines resumed");
        print(&name, "s", seconds, at_most);
        let name = format!("{machines:3} machines resumed, memory of each (PSS)");
        print(&name, "MiB", share_mib, at_most.map(|_| SHARE_MIB_MAX));
    }
}

/// Starts so many machines; returns how long that took and what share of the host's memory each has (PSS,
/// proc_pid_smaps(5)) when all answer.
async fn crowd(machines: usize) -> (f64, f64) {
    static MEASURED: Mutex<(f64, f64)> = Mutex::new((0.0, 0.0));
    async fn steps(run: &Run) -> Outcome {
        let began = Instant::now();
        run.lab.start_all().await?;
        let seconds = began.elapsed().as_secs_f64();
        let (mut bytes, mut machines) = (0, 0.0);
        for node in run.lab.nodes() {
            bytes += node.memory_use().await?.proportional;
            machines += 1.0;
        }
        *MEASURED.lock().unwrap() = (seconds, bytes as f64 / MIB / machines);
        Ok(())
    }
    let names = (1..=machines).map(|number| format!("m{number:03}"));
    let scenario = Scenario {
        name: "crowd".into(),
        about: "machines that are there and do nothing".into(),
        topology: Topology::new(names.map(machine).collect()),
        prepare: None,
        run: Box::new(|run| -> ScenarioFuture<'_> { Box::pin(steps(run)) }),
    };
    run(scenario).await;
    *MEASURED.lock().unwrap()
}

/// Three machines, each of which tells the next one numbers over a connection that lives on.
pub(crate) async fn live() {
    async fn all_hear(run: &Run) -> Outcome {
        for node in run.lab.nodes() {
            // Anew each time: only what arrives from now on counts.
            let heard = "n=$(wc -l < /tmp/heard); until test $(wc -l < /tmp/heard) -gt $n; do usleep 1000; done";
            node.wait_until_succeeds(heard, ALLOWED).await?;
        }
        Ok(())
    }
    async fn start(run: &Run) -> Outcome {
        run.lab.start_all().await?;
        for node in run.lab.nodes() {
            node.wait_until_succeeds("test -s /tmp/heard", ALLOWED)
                .await?;
        }
        all_hear(run).await
    }
    let names = ["node1", "node2", "node3"];
    let machines = names.iter().zip(names.iter().cycle().skip(1));
    let machines = machines.map(|(name, next)| {
        let mut machine = machine((*name).to_owned());
        machine.services.push(service("hear", "tail -f /dev/null | nc -l -p 7000 > /tmp/heard"));
        machine.services.push(service(
            "tell",
            &format!("until i=0; while i=$((i+1)) && echo $i; do usleep 10000; done | nc {next} 7000; do usleep 50000; done"),
        ));
        machine
    });
    let scenario = || Scenario {
        name: "live".into(),
        about: "three machines with connections between them".into(),
        topology: Topology::new(machines.clone().collect()),
        prepare: Some(Preparation {
            name: "talking",
            run: |run| -> ScenarioFuture<'_> { Box::pin(start(run)) },
        }),
        run: Box::new(|run| -> ScenarioFuture<'_> { Box::pin(all_hear(run)) }),
    };
    run(scenario()).await;
    let events = run(scenario()).await;
    let restored = events.iter().find_map(|stamped| match &stamped.event {
        Event::Restored { duration_ms, .. } => Some(duration_ms / 1000.0),
        _ => None,
    });
    let name = "three machines with live connections, restored";
    print(name, "s", restored.unwrap(), Some(0.35));
}

fn machine(name: String) -> MachineConfig {
    MachineConfig {
        memory_mib: MEMORY_MIB,
        ..MachineConfig::new(name)
    }
}

fn service(name: &str, script: &str) -> ServiceSpec {
    ServiceSpec::new(name, ["sh", "-c", script])
}

async fn run(scenario: Scenario) -> Vec<Stamped> {
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let runs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runs");
    let options = RunOptions {
        listeners: vec![Box::new(move |stamped| {
            heard.lock().unwrap().push(stamped.clone());
        })],
        ..RunOptions::new(runs, ["cargo", "xtask", "bench", "boot"])
    };
    let report = runner::run(&scenario, options).await.unwrap();
    assert_eq!(report.verdict, Verdict::Passed, "{:?}", report.message);
    let mut events = events.lock().unwrap();
    std::mem::take(&mut *events)
}
