//! The answers of a node that has as much as it bears, that asks for tokens, and that limits what an address sends.

use std::{net::SocketAddr, sync::Arc};

use axum::{body::Body, http::Request};
use mvm_node::{
    auth::{NewGrant, Scope, Token, Tokens, append},
    http::{Guard, RateLimiter, STREAMS_MAX},
};
use mvm_queue::LANES_MAX;
use serde_json::json;

use super::{
    document::{Node, Operation},
    run::Run,
};

/// An address of an example; the host itself is not limited.
const ELSEWHERE: ([u8; 4], u16) = ([192, 0, 2, 1], 1);

/// More than the node bears.
pub(super) async fn limits(run: &mut Run) {
    let waiting = run
        .post(
            201,
            "/api/v1/jobs",
            json!({"kind": "waiting", "payload": null}),
        )
        .await;
    let events = format!("/api/v1/jobs/{}/events", waiting["id"].as_str().unwrap());
    let log = events.replace("/events", "/log/events");
    let mut open = Vec::new();
    for _ in 0..STREAMS_MAX {
        open.push(
            run.node
                .open(Request::get(&events).body(Body::empty()).unwrap())
                .await,
        );
    }
    for path in [&events, &log] {
        assert_eq!(run.send("GET", path, &[], b"").await.status, 429);
    }
    drop(open);
    assert_eq!(
        run.send("GET", &events, &[], b"").await.status,
        200,
        "the places are free again"
    );
    run.node.app.end_streams();
    for path in [&events, &log] {
        assert_eq!(run.send("GET", path, &[], b"").await.status, 503);
    }

    run.node = Node::start().await;
    for lane in 0..LANES_MAX {
        let labels = [format!("l{lane}")];
        let lane = json!({"kind": "lane", "payload": null, "labels": labels});
        run.post(201, "/api/v1/jobs", lane).await;
    }
    run.post(429, "/api/v1/jobs", json!({"kind": "new", "payload": null}))
        .await;
    run.post(429, "/queue/publish", json!({"kind": "new"}))
        .await;
    run.post(429, "/new-job", json!({"url": "https://y/"}))
        .await;
}

/// Tokens, and what an address may send.
pub(super) async fn guards(run: &mut Run) {
    let document = run.node.document.clone();
    let operations = run.node.operations();
    let (tokens, bearers) = tokens();
    let guard = Guard {
        tokens: Some(Arc::new(tokens)),
        rate: None,
    };
    run.node = Node::guarded(guard, document.clone());
    for operation in &operations {
        let about = format!("{} {}", operation.method, operation.path);
        let status = run.example(operation, "x", &[]).await.status;
        assert_eq!(status == 401, tells(operation, "401"), "{about}: {status}");
        let mut refused = false;
        for bearer in &bearers {
            let headers = [("authorization", bearer.as_str())];
            refused |= run.example(operation, "x", &headers).await.status == 403;
        }
        assert_eq!(refused, tells(operation, "403"), "{about}");
    }

    let guard = Guard {
        tokens: None,
        rate: RateLimiter::new(1),
    };
    run.node = Node::guarded(guard, document);
    run.from = Some(SocketAddr::from(ELSEWHERE));
    for operation in &operations {
        // One a second passes.
        while run.example(operation, "x", &[]).await.status != 429 {}
    }
    run.from = None;
}

fn tells(operation: &Operation, status: &str) -> bool {
    operation.told["responses"].get(status).is_some()
}

/// Those of two scopes that do not include each other.
fn tokens() -> (Tokens, [String; 2]) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens.toml");
    let bearers = [Scope::Submit, Scope::Worker].map(|scope| {
        let token = Token::generate().unwrap();
        let grant = NewGrant {
            name: scope.to_string(),
            scopes: vec![scope],
            hash: token.hash(),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            expires_at: None,
        };
        append(&file, &grant).unwrap();
        format!("Bearer {}", token.expose())
    });
    (Tokens::open(&file).unwrap(), bearers)
}
