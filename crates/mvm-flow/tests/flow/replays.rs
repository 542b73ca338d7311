//! Executions that run again: after a failure, with another module, and for those who watch.

use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::{Counting, Flow};

#[tokio::test]
async fn a_failed_workflow_goes_on_from_where_it_went_wrong() {
    let directory = tempdir().unwrap();
    let flow = Flow::start(directory.path()).await;
    flow.deploy("compat").await;
    let id = flow.begin("panics", json!({ "text": "once" })).await;
    let failed = flow.until_state(&id, "failed").await;
    flow.post(&format!("/api/v1/workflows/{id}/retry"), json!({}))
        .await;
    let again = flow
        .until(&id, |shown| {
            shown["state"] == "failed" && shown["epoch"] != failed["epoch"]
        })
        .await;
    assert_eq!(again["reason"], failed["reason"]);
    // The line of the first panic was forgotten.
    let logs = flow.get(&format!("/api/v1/workflows/{id}/logs")).await;
    assert_eq!(logs.as_array().unwrap().len(), 1);
    let wrong = flow
        .post(
            &format!("/api/v1/workflows/{id}/retry"),
            json!({ "from": 1_000 }),
        )
        .await;
    assert_eq!(
        wrong["error"],
        "frame 1000 is not where a record begins; see the journal"
    );
}

#[tokio::test]
async fn the_log_is_kept_and_said_once() {
    let directory = tempdir().unwrap();
    let server = Counting::start().await;
    let flow = Flow::start(directory.path()).await;
    flow.deploy("compat").await;
    let input = json!({ "url": server.url, "secret": "NONE", "sleep_ms": 200, "wait_ms": 200 });
    let id = flow.begin("everything", input).await;
    flow.until_state(&id, "completed").await;
    let logs = flow.get(&format!("/api/v1/workflows/{id}/logs")).await;
    let levels: Vec<_> = logs
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["level"].as_str().unwrap())
        .collect();
    assert_eq!(levels, ["error", "warn", "info", "debug", "trace"]);
    // It was dropped while it slept and while it waited, and ran again from its journal.
    let shown = flow.get(&format!("/api/v1/workflows/{id}")).await;
    assert_eq!(shown["epoch"], 3, "{shown}");
    assert_eq!(server.counts().into_values().sum::<usize>(), 2);
    let missing = flow.get("/api/v1/workflows/wkf_0000000000000/logs").await;
    assert_ne!(missing["error"], Value::Null);
}
