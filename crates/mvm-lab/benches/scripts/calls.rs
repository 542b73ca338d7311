//! What a script's call takes, and of that the engine, the agent and the guest's shell.

use std::{path::Path, time::Instant};

use mvm_lab::{
    event::Event,
    lab::StartBy,
    scenario::{Failure, Outcome, Run, Scenario, ScenarioFuture},
    script::ScriptTest,
    topology::ImageKind,
};
use serde::Deserialize;

use super::{BOOT_ALLOWED, Kind, print, run};

const CALLS: usize = 100;
const CALL_MS_MAX: f64 = 5.0;

/// A line of the script's.
#[derive(Deserialize)]
struct Told {
    call: String,
    ms: f64,
}

pub(crate) async fn measure(kind: Kind) {
    let goal = (kind.image == ImageKind::Minimal).then_some(CALL_MS_MAX);
    let test = ScriptTest {
        name: "calls".to_owned(),
        topology: kind.topology(1),
        script: Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/scripts/calls.py"),
    };
    let Scenario {
        name,
        about,
        topology,
        prepare,
        run: script,
    } = test.scenario();
    // On the same machine as the script's, once that has found it idle.
    let scenario = Scenario {
        name,
        about,
        topology,
        prepare,
        run: Box::new(move |run| -> ScenarioFuture<'_> {
            let script = script(run);
            Box::pin(async move {
                script.await?;
                without_script(run, kind).await
            })
        }),
    };
    for stamped in run(&scenario, StartBy::Snapshot).await {
        if let Event::Log { text, .. } = &stamped.event
            && let Ok(Told { call, ms }) = serde_json::from_str(text)
        {
            let name = format!("{}, a script's call: {call}", kind.name);
            print(&name, "ms", ms, goal);
        }
    }
}

/// What of a call is the agent's and the guest's.
async fn without_script(run: &Run, kind: Kind) -> Outcome {
    let agent = run.lab.node("node1").agent()?;
    let [mut pings, mut programs, mut shells] = [const { Vec::new() }; 3];
    for _ in 0..CALLS {
        let began = Instant::now();
        agent.ping(BOOT_ALLOWED).await.map_err(trouble)?;
        pings.push(began.elapsed());
        let program = agent.command("/bin/true").output().await;
        programs.push(program.map_err(trouble)?.duration);
        let shell = agent.command("bash").arg("-c").arg("true").output().await;
        shells.push(shell.map_err(trouble)?.duration);
    }
    for (what, mut took) in [
        ("a ping", pings),
        ("/bin/true", programs),
        ("bash -c true", shells),
    ] {
        took.sort();
        let name = format!("{}, the agent alone: {what}", kind.name);
        let median = took[took.len() / 2];
        print(&name, "ms", median.as_secs_f64() * 1000.0, None);
    }
    Ok(())
}

fn trouble(error: impl std::error::Error) -> Failure {
    Failure::trouble(&error)
}
