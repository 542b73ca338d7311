//! Sleeps, messages, children, and what operators do.

use std::time::{Duration, Instant};

use mvm_flow::SqliteJournal;
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::{Counting, Flow};

#[tokio::test]
async fn a_sleep_goes_on_while_the_engine_is_down() {
    let directory = tempdir().unwrap();
    let flow = Flow::start(directory.path()).await;
    flow.deploy("compat").await;
    let began = Instant::now();
    let id = flow.begin("sleeps", json!({ "ms": 3_000 })).await;
    flow.until_state(&id, "waiting").await;
    flow.kill().await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let flow = Flow::start(directory.path()).await;
    let response = flow.get(&format!("/api/v1/workflows/{id}/response")).await;
    let elapsed = response["response"]["elapsed_ms"].as_u64().unwrap();
    assert!(elapsed >= 3_000, "{response}");
    // Twice three seconds and the pause, had it begun anew.
    assert!(
        began.elapsed() < Duration::from_millis(5_900),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn messages_are_received_by_their_type() {
    let directory = tempdir().unwrap();
    let flow = Flow::start(directory.path()).await;
    flow.deploy("compat").await;
    let id = flow.begin("waits", json!({ "timeout_ms": 30_000 })).await;
    flow.until_state(&id, "waiting").await;
    let path = format!("/api/workflow/send-msg/{id}");
    let send = async |kind: &str, weight: u32| {
        let data = json!({ "weight": weight }).to_string();
        flow.post(&path, json!({ "type": kind, "data": data }))
            .await
    };
    assert_eq!(send("apple", 1).await, "ok");
    // It waits for a pear; the apple stays.
    flow.until(&id, |shown| {
        shown["state"] == "waiting" && shown["messages"] == 1
    })
    .await;
    assert_eq!(send("pear", 2).await, "ok");
    let response = flow.get(&format!("/api/v1/workflows/{id}/response")).await;
    let expected = json!({ "first": { "kind": "pear", "weight": 2 }, "second": { "kind": "apple", "weight": 1 } });
    assert_eq!(response["response"], expected);
    flow.until_state(&id, "completed").await;
    let late = send("pear", 3).await;
    assert_eq!(
        late["error"],
        format!("workflow {id} has ended (completed)")
    );
}

#[tokio::test]
async fn messages_survive_the_engine() {
    let directory = tempdir().unwrap();
    let flow = Flow::start(directory.path()).await;
    flow.deploy("compat").await;
    let id = flow.begin("waits", json!({ "timeout_ms": 30_000 })).await;
    let message = json!({ "type": "pear", "data": json!({ "weight": 1 }).to_string() });
    flow.post(&format!("/api/workflow/send-msg/{id}"), message.clone())
        .await;
    // The first one was received, and is not received again.
    flow.until(&id, |shown| {
        shown["state"] == "waiting" && shown["messages"] == 0
    })
    .await;
    flow.kill().await;
    let flow = Flow::start(directory.path()).await;
    flow.post(&format!("/api/workflow/send-msg/{id}"), message)
        .await;
    let response = flow.get(&format!("/api/v1/workflows/{id}/response")).await;
    let pear = json!({ "kind": "pear", "weight": 1 });
    assert_eq!(
        response["response"],
        json!({ "first": pear, "second": pear })
    );
}

#[tokio::test]
async fn nothing_comes_in_time() {
    let directory = tempdir().unwrap();
    let flow = Flow::start(directory.path()).await;
    flow.deploy("compat").await;
    // In memory, and not.
    for timeout_ms in [10, 200] {
        let response = flow
            .call("waits", json!({ "timeout_ms": timeout_ms }))
            .await;
        assert_eq!(response, json!({ "first": null, "second": null }));
    }
}

#[tokio::test]
async fn a_workflow_starts_another_one_once() {
    let directory = tempdir().unwrap();
    let flow = Flow::start(directory.path()).await;
    flow.deploy("compat").await;
    let response = flow
        .call(
            "starts",
            json!({ "workflow": "sleeps", "input": { "ms": 1 } }),
        )
        .await;
    let number = response["id"].as_i64().unwrap();
    let child = mvm_flow::id::ExecutionId::new(number).to_string();
    let shown = flow.until_state(&child, "completed").await;
    assert!(shown["parent"].as_str().unwrap().starts_with("wkf_"));
    let all = flow.get("/api/v1/workflows").await;
    assert_eq!(all.as_array().unwrap().len(), 2);

    let unknown = flow
        .call("starts", json!({ "workflow": "nothing", "input": null }))
        .await;
    let error = unknown["error"].as_str().unwrap();
    assert!(
        error.ends_with("it started the workflow \"nothing\", which its module does not have"),
        "{error}"
    );
}

#[tokio::test]
async fn a_cancelled_workflow_says_why() {
    let directory = tempdir().unwrap();
    let server = Counting::start().await;
    server.hold(Some("/step/1"));
    let flow = Flow::start(directory.path()).await;
    flow.deploy("compat").await;
    let sleeping = flow.begin("sleeps", json!({ "ms": 600_000 })).await;
    flow.until_state(&sleeping, "waiting").await;
    let asking = flow
        .begin("steps", json!({ "url": server.url, "steps": 1 }))
        .await;
    server.until("/step/1", 1).await;
    for id in [sleeping, asking] {
        let cancel = json!({ "reason": "not wanted any more" });
        flow.post(&format!("/api/v1/workflows/{id}/cancel"), cancel)
            .await;
        let shown = flow.until_state(&id, "cancelled").await;
        assert_eq!(shown["reason"], "not wanted any more");
        let again = flow
            .post(&format!("/api/v1/workflows/{id}/cancel"), Value::Null)
            .await;
        assert_eq!(
            again["error"],
            format!("workflow {id} has ended (cancelled)")
        );
    }
}

#[tokio::test]
async fn a_paused_workflow_stands_still_also_over_a_restart() {
    let directory = tempdir().unwrap();
    let server = Counting::start().await;
    server.hold(Some("/step/1"));
    let flow = Flow::start(directory.path()).await;
    flow.deploy("compat").await;
    let id = flow
        .begin("steps", json!({ "url": server.url, "steps": 3 }))
        .await;
    server.until("/step/1", 1).await;
    flow.post(&format!("/api/v1/workflows/{id}/pause"), Value::Null)
        .await;
    // What is under way is not cut off.
    server.hold(None);
    flow.until_state(&id, "paused").await;
    assert_eq!(server.count("/step/2"), 0);
    flow.stop().await;
    let flow = Flow::start(directory.path()).await;
    flow.until_state(&id, "paused").await;
    flow.post(&format!("/api/v1/workflows/{id}/resume"), Value::Null)
        .await;
    flow.until_state(&id, "completed").await;
    let counts: Vec<_> = (1..=3)
        .map(|step| server.count(&format!("/step/{step}")))
        .collect();
    assert_eq!(counts, [1, 1, 1]);
    let resumed = flow
        .post(&format!("/api/v1/workflows/{id}/resume"), Value::Null)
        .await;
    assert_eq!(
        resumed["error"],
        format!("workflow {id} has ended (completed)")
    );
}

#[tokio::test]
async fn an_engine_that_is_stopped_gives_its_workflows_back() {
    let directory = tempdir().unwrap();
    let server = Counting::start().await;
    server.hold(Some("/step/2"));
    let flow = Flow::start(directory.path()).await;
    flow.deploy("compat").await;
    let id = flow
        .begin("steps", json!({ "url": server.url, "steps": 4 }))
        .await;
    server.until("/step/2", 1).await;
    // The request under way is answered while the engine waits for it.
    tokio::join!(flow.stop(), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.hold(None);
    });
    let flow = Flow::start(directory.path()).await;
    flow.until_state(&id, "completed").await;
    let counts: Vec<_> = (1..=4)
        .map(|step| server.count(&format!("/step/{step}")))
        .collect();
    assert_eq!(counts, [1, 1, 1, 1]);
}

#[tokio::test]
async fn many_workflows_at_once() {
    let directory = tempdir().unwrap();
    let server = Counting::start().await;
    let flow = Flow::start(directory.path()).await;
    flow.deploy("compat").await;
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(
            flow.begin("steps", json!({ "url": server.url, "steps": 3 }))
                .await,
        );
    }
    for id in &ids {
        flow.until_state(id, "completed").await;
    }
    assert_eq!(
        server.counts().into_values().collect::<Vec<_>>(),
        [100, 100, 100]
    );
    let page = flow.get("/api/v1/workflows?limit=40&state=completed").await;
    let last = page[39]["id"].as_str().unwrap();
    assert_eq!(last, ids[60]);
    let rest = flow
        .get(&format!("/api/v1/workflows?limit=500&before={last}"))
        .await;
    assert_eq!(rest.as_array().unwrap().len(), 60);
}

#[tokio::test]
async fn what_ended_long_ago_is_removed() {
    let directory = tempdir().unwrap();
    let flow = Flow::start(directory.path()).await;
    flow.deploy("compat").await;
    let mut ids = Vec::new();
    for number in 0..5 {
        let id = flow.begin("echo", json!(number)).await;
        flow.until_state(&id, "completed").await;
        ids.push(id);
    }
    let waits = flow.begin("listens", Value::Null).await;
    flow.until_state(&waits, "waiting").await;
    flow.stop().await;
    let journal = SqliteJournal::open(directory.path()).unwrap();
    journal.prune(2).await.unwrap();
    drop(journal);
    let flow = Flow::start(directory.path()).await;
    let left = flow.get("/api/v1/workflows").await;
    let left: Vec<_> = left
        .as_array()
        .unwrap()
        .iter()
        .map(|shown| shown["id"].as_str().unwrap())
        .collect();
    assert_eq!(left, [&waits, &ids[4], &ids[3]]);
    let gone = flow
        .get(&format!("/api/v1/workflows/{}/journal", ids[0]))
        .await;
    assert_eq!(gone["error"], format!("there is no workflow {}", ids[0]));
}
