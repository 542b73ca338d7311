//! Machines of a lab that come from a pool are like any others: on the network, with their disks, into checkpoints.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use mvm_lab::{
    checkpoint::WallClock,
    environment::EnvironmentOptions,
    event::{Event, Way},
    runner::{self, RunOptions},
    scenario::{Outcome, Run, Scenario, ScenarioFuture},
    topology::MemoryPlan,
    verdict::Verdict,
    warm,
};
use support::{ALLOWED, two_machines};

async fn ping(run: &Run) -> Outcome {
    for (from, to) in [("node1", "node2"), ("node2", "node1")] {
        let command = format!("ping -c 1 -W 1 {to}");
        run.lab
            .node(from)
            .wait_until_succeeds(&command, ALLOWED)
            .await?;
    }
    Ok(())
}

async fn steps(run: &Run) -> Outcome {
    run.lab.start_all().await?;
    for node in run.lab.nodes() {
        node.succeed(&format!("echo {} > /data/mark && sync", node.name()))
            .await?;
        node.crash().await;
    }
    run.lab.start_all().await?;
    ping(run).await?;
    for node in run.lab.nodes() {
        let command = format!("grep -x {} /data/mark && hostname", node.name());
        node.succeed(&command).await?;
    }
    run.lab.checkpoint("warm").await?;
    ping(run).await?;
    run.lab.restore("warm", WallClock::Now).await?;
    ping(run).await?;
    for node in run.lab.nodes() {
        node.succeed(&format!("grep -x {} /data/mark", node.name()))
            .await?;
    }
    Ok(())
}

/// Runs the scenario again and again until it begins with a full pool; returns how machines came up then.
async fn check(memory: MemoryPlan) {
    let pool = warm::pool(4).unwrap();
    let scenario = Scenario {
        name: "warm".into(),
        about: "a test".into(),
        topology: two_machines(memory),
        prepare: None,
        run: Box::new(|run| -> ScenarioFuture<'_> { Box::pin(steps(run)) }),
    };
    // What is asked for in the first run is there in a later one.
    for _ in 0..10 {
        let ways = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&ways);
        let runs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runs");
        let options = RunOptions {
            environment: EnvironmentOptions {
                warm: Some(Arc::clone(&pool)),
                ..EnvironmentOptions::default()
            },
            listeners: vec![Box::new(move |stamped| {
                if let Event::CameUp { way, .. } = &stamped.event {
                    heard.lock().unwrap().push(*way);
                }
            })],
            ..RunOptions::new(runs, ["cargo", "test"])
        };
        let report = runner::run(&scenario, options).await.unwrap();
        assert_eq!(report.verdict, Verdict::Passed, "{:?}", report.message);
        let ways = ways.lock().unwrap().clone();
        assert_eq!(ways.len(), 6, "{ways:?}");
        if ways[..4] == [Way::Warm; 4] {
            return;
        }
    }
    panic!("machines never came from the pool");
}

#[tokio::test]
async fn machines_from_a_pool_are_like_any_others() {
    check(MemoryPlan::Shared).await;
}

#[tokio::test]
async fn so_are_those_with_memory_of_their_own() {
    check(MemoryPlan::Own).await;
}
