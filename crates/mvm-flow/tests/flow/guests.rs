//! Every command of the interface, by a module that the public crates built.

use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::{Counting, Flow};

#[tokio::test]
async fn a_module_uses_every_command() {
    let directory = tempdir().unwrap();
    let server = Counting::start().await;
    let flow = Flow::start(directory.path()).await;
    flow.deploy("compat").await;
    let input = json!({ "url": server.url, "secret": "NONE", "sleep_ms": 20, "wait_ms": 20 });
    let seen = flow.call("everything", input).await;
    assert_eq!(seen["get"], "200", "{seen}");
    assert_eq!(seen["post"], "200", "{seen}");
    assert_eq!(seen["body"], "/\n", "{seen}");
    assert_eq!(seen["secret"], Value::Null, "{seen}");
    assert_eq!(seen["apple"], Value::Null, "{seen}");
    let slept = seen["after_ms"].as_u64().unwrap() - seen["before_ms"].as_u64().unwrap();
    assert!(slept >= 20, "{seen}");
}

#[tokio::test]
async fn inputs_and_responses_are_passed_on() {
    let directory = tempdir().unwrap();
    let flow = Flow::start(directory.path()).await;
    flow.deploy("compat").await;
    for value in [json!(1), json!({ "a": ["\u{1F600}", 1.5] }), json!("text")] {
        assert_eq!(flow.call("echo", value.clone()).await, value);
    }
}
