//! What clients must not say, and what they are told.

use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::{Flow, guest};

async fn flow() -> (tempfile::TempDir, Flow) {
    let directory = tempdir().unwrap();
    let flow = Flow::start(directory.path()).await;
    flow.deploy("compat").await;
    (directory, flow)
}

fn error(answer: &Value) -> &str {
    answer["error"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"))
}

#[tokio::test]
async fn what_cannot_be_deployed() {
    let (_directory, flow) = flow().await;
    let check = async |bytes: Vec<u8>, expected: &str| {
        let answer = flow.deploy_bytes(bytes).await;
        assert!(error(&answer).contains(expected), "{answer}");
    };
    check(vec![], "the file is empty").await;
    check(b"#!/bin/sh".to_vec(), "it is not a WebAssembly module").await;
    check(b"\0asm\x01\0\0\0".to_vec(), "it exports no module name").await;
    let mut cut = guest("compat");
    cut.truncate(cut.len() / 2);
    check(cut, "it is not a WebAssembly module").await;
    check(vec![0; 17 * 1024 * 1024], "at most 16777216 are allowed").await;
    // Nothing of it is there.
    let modules = flow.get("/api/v1/modules").await;
    assert_eq!(modules.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn two_hundred_megabytes_are_answered_not_cut_off() {
    let (_directory, flow) = flow().await;
    let answer = flow.deploy_bytes(vec![0; 200_000_000]).await;
    assert_eq!(
        error(&answer),
        "the module has 200000000 bytes; at most 16777216 are allowed"
    );
}

#[tokio::test]
async fn a_module_is_deployed_again_and_not_another_one_in_its_place() {
    let (_directory, flow) = flow().await;
    flow.deploy("compat").await;
    let mut other = guest("compat");
    // A custom section of no name and no contents.
    other.extend([0, 1, 0]);
    let answer = flow.deploy_bytes(other).await;
    assert!(
        error(&answer).starts_with("compat 1.0.0 is deployed with other bytes"),
        "{answer}"
    );
}

#[tokio::test]
async fn starts_that_cannot_be() {
    let (_directory, flow) = flow().await;
    let check = async |start: Value, expected: &str| {
        let answer = flow.post("/api/workflow/start", start).await;
        assert_eq!(error(&answer), expected);
    };
    let start = |module: &str, version: &str, workflow: &str, input: &str| json!({ "module": module, "version": version, "workflow": workflow, "input": input });
    check(
        start("shop", "1.0.0", "a", "null"),
        "there is no module \"shop\"; deployed are \"compat\"",
    )
    .await;
    check(
        start("compat", "2.0.0", "a", "null"),
        "module \"compat\" has no version \"2.0.0\"; it has \"1.0.0\"",
    )
    .await;
    let answer = flow
        .post(
            "/api/workflow/start",
            start("compat", "1.0.0", "a/b", "null"),
        )
        .await;
    assert!(
        error(&answer).starts_with("module \"compat\" 1.0.0 has no workflow \"a/b\"; it has "),
        "{answer}"
    );
    check(
        start("compat", "1.0.0", "echo", "{"),
        "the input is no JSON text: EOF while parsing an object at line 1 column 1",
    )
    .await;
    let large = format!("\"{}\"", "x".repeat(70_000));
    check(
        start("compat", "1.0.0", "echo", &large),
        "the input has 70002 bytes; at most 65536 are allowed",
    )
    .await;
    check(
        json!({}),
        "the body's JSON: missing field `module` at line 1 column 2",
    )
    .await;
}

#[tokio::test]
async fn ids_and_messages_that_are_none() {
    let (_directory, flow) = flow().await;
    let nobody = "wkf_0000000000001";
    for path in ["", "/journal", "/logs", "/response"] {
        let answer = flow.get(&format!("/api/v1/workflows/{nobody}{path}")).await;
        assert_eq!(error(&answer), format!("there is no workflow {nobody}"));
        let answer = flow.get(&format!("/api/v1/workflows/a%2Fb{path}")).await;
        assert_eq!(
            error(&answer),
            "\"a/b\" is no id of a workflow; one looks like wkf_0h3k7c9pqrstv"
        );
    }
    for path in ["workflows/%ff", "modules/%ff"] {
        let answer = flow.get(&format!("/api/v1/{path}")).await;
        assert!(error(&answer).contains("Invalid UTF-8"), "{answer}");
    }
    for path in ["cancel", "pause", "resume", "retry"] {
        let answer = flow
            .post(&format!("/api/v1/workflows/{nobody}/{path}"), json!({}))
            .await;
        assert_eq!(error(&answer), format!("there is no workflow {nobody}"));
    }
    let id = flow.begin("listens", Value::Null).await;
    let path = format!("/api/workflow/send-msg/{id}");
    let check = async |message: Value, expected: &str| {
        let answer = flow.post(&path, message).await;
        assert_eq!(error(&answer), expected);
    };
    check(
        json!({ "type": "", "data": "null" }),
        "the message has no type",
    )
    .await;
    check(
        json!({ "type": "apple", "data": "{" }),
        "the message is no JSON text: EOF while parsing an object at line 1 column 1",
    )
    .await;
    check(
        json!({ "type": "apple", "data": format!("\"{}\"", "x".repeat(65_536)) }),
        "the message has 65538 bytes; at most 65536 are allowed",
    )
    .await;
    // Nothing of that type is received, until there is no room.
    let message = json!({ "type": "nothing", "data": "null" });
    for _ in 0..1_000 {
        assert_eq!(flow.post(&path, message.clone()).await, "ok");
    }
    check(
        message,
        &format!("1000 messages wait for workflow {id}, which does not receive them"),
    )
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_said_to_be_so() {
    let (_directory, flow) = flow().await;
    assert!(error(&flow.get("/nothing").await).starts_with("there is no such route"));
    assert_eq!(
        error(&flow.get("/api/workflow/start").await),
        "the route does not take this method"
    );
    let answer = flow.get("/api/v1/workflows?state=asleep").await;
    assert!(
        error(&answer).contains("unknown variant `asleep`"),
        "{answer}"
    );
}
