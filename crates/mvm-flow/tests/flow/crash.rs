//! The public crash test, and its twin: A, B held open, C; the engine dies during B.

use serde_json::json;
use tempfile::tempdir;

use crate::support::{Counting, Flow};

async fn crash(idempotent: bool) -> (Counting, String) {
    let directory = tempdir().unwrap();
    let server = Counting::start().await;
    server.hold(Some("/b"));
    let flow = Flow::start(directory.path()).await;
    flow.deploy("compat").await;
    let input = json!({ "url": server.url, "idempotent": idempotent });
    let id = flow.begin("crash", input).await;
    server.until("/b", 1).await;
    flow.kill().await;
    server.hold(None);
    let flow = Flow::start(directory.path()).await;
    flow.until_state(&id, "completed").await;
    let response = flow.get(&format!("/api/v1/workflows/{id}/response")).await;
    let b = response["response"]["b"].as_str().unwrap().to_owned();
    (server, b)
}

#[tokio::test]
async fn an_idempotent_request_is_sent_again() {
    let (server, b) = crash(true).await;
    assert_eq!((server.count("/a"), server.count("/c")), (1, 1));
    assert!(server.count("/b") >= 2, "{:?}", server.counts());
    assert_eq!(b, "200");
}

#[tokio::test]
async fn another_one_is_sent_at_most_once() {
    let (server, b) = crash(false).await;
    assert_eq!(
        (server.count("/a"), server.count("/b"), server.count("/c")),
        (1, 1, 1)
    );
    assert_eq!(b, "RequestInterrupted");
}
