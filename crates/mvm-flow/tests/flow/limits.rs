//! What the operator allows workflows of a module.

use std::{path::Path, time::Duration};

use mvm_flow::{
    Settings,
    limits::{Limits, ModuleLimits},
};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::{Flow, settings};

async fn limited(directory: &Path, limits: ModuleLimits) -> Flow {
    let settings = Settings {
        limits: Limits::all(limits),
        ..settings()
    };
    let flow = Flow::with(directory, settings).await;
    flow.deploy("compat").await;
    flow
}

async fn fails(flow: &Flow, id: &str, reason: &str) -> Value {
    let shown = flow.until_state(id, "failed").await;
    let found = shown["reason"].as_str().unwrap();
    assert!(found.contains(reason), "{found}");
    shown
}

/// When an execution was first taken.
async fn taken(flow: &Flow, id: &str) -> i64 {
    let journal = flow.get(&format!("/api/v1/workflows/{id}/journal")).await;
    let records = journal.as_array().unwrap().iter();
    let taken = records.filter(|entry| entry["record"] == "taken");
    let times = taken.filter_map(|entry| entry["at"].as_i64());
    times.min().unwrap()
}

#[tokio::test]
async fn a_journal_that_grows_too_large_ends_its_workflow() {
    let directory = tempdir().unwrap();
    let limits = ModuleLimits {
        journal_bytes: 64 * 1024,
        ..ModuleLimits::default()
    };
    let flow = limited(directory.path(), limits).await;
    let id = flow.begin("draws", json!({ "count": 100_000 })).await;
    fails(&flow, &id, "module compat may have 65536 of each workflow").await;
    assert_eq!(flow.call("echo", json!(1)).await, 1);
}

#[tokio::test]
async fn a_workflow_that_takes_too_long_is_ended_whether_it_runs_sleeps_or_waits() {
    let directory = tempdir().unwrap();
    let limits = ModuleLimits {
        run_time: Some(Duration::from_secs(3)),
        ..ModuleLimits::default()
    };
    let flow = limited(directory.path(), limits).await;
    let reason = "it has not ended within 3 s; module compat is given no more";
    let quick = flow.begin("sleeps", json!({ "ms": 1 })).await;
    let asleep = flow.begin("sleeps", json!({ "ms": 3_600_000 })).await;
    let waiting = flow.begin("listens", json!(null)).await;
    flow.until_state(&quick, "completed").await;
    for id in [asleep, waiting] {
        let shown = fails(&flow, &id, reason).await;
        // It had been given back, and was taken again for its end.
        assert!(shown["epoch"].as_u64() >= Some(2), "{shown}");
    }
}

#[tokio::test]
async fn the_time_that_a_workflow_has_goes_on_while_its_engine_is_down() {
    let directory = tempdir().unwrap();
    let limits = ModuleLimits {
        run_time: Some(Duration::from_secs(2)),
        ..ModuleLimits::default()
    };
    let flow = limited(directory.path(), limits).await;
    let id = flow.begin("sleeps", json!({ "ms": 3_600_000 })).await;
    flow.until(&id, |shown| shown["frames"] != 0).await;
    flow.kill().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let flow = limited(directory.path(), limits).await;
    fails(&flow, &id, "it has not ended within 2 s").await;
    let began = flow.get(&format!("/api/v1/workflows/{id}")).await;
    let lived = began["finished_at"].as_i64().unwrap() - began["created_at"].as_i64().unwrap();
    assert!((2_000..60_000).contains(&lived), "{began}");
}

#[tokio::test]
async fn no_more_of_a_module_run_at_once_than_may_and_others_do_not_wait_for_them() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("limits.toml");
    std::fs::write(&file, "[modules.compat]\nruns = 1\n").unwrap();
    let settings = Settings {
        limits: Limits::read(&file, ModuleLimits::default()).unwrap(),
        // What sleeps so short stays in memory, and runs.
        patience: Duration::from_secs(60),
        ..settings()
    };
    let flow = Flow::with(directory.path(), settings).await;
    flow.deploy("compat").await;
    flow.deploy("ping-pong").await;
    let mut begun = Vec::new();
    for _ in 0..4 {
        begun.push(flow.begin("sleeps", json!({ "ms": 400 })).await);
    }
    // Of another module, begun later. It cannot use this input; that it was taken is what counts.
    let other = json!({ "module": "ping-pong", "workflow": "pong", "input": 0 });
    let other = flow.post("/api/v1/workflows", other).await;
    let other = other["id"].as_str().unwrap().to_owned();
    let mut spans = Vec::new();
    for id in &begun {
        flow.until_state(id, "completed").await;
        let shown = flow.get(&format!("/api/v1/workflows/{id}")).await;
        let finished = shown["finished_at"].as_i64().unwrap();
        spans.push((taken(&flow, id).await, finished));
    }
    spans.sort_unstable();
    for pair in spans.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "two ran at once: {spans:?}");
    }
    flow.until_state(&other, "failed").await;
    let other = taken(&flow, &other).await;
    assert!(other < spans[3].0, "it waited: {other}, {spans:?}");
}
