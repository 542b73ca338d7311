//! Clients that lie or ask for too much: refused, and nothing changed.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};

use super::document::{Node, Reply};

async fn post(node: &Node, path: &str, body: &Value) -> Reply {
    let request = Request::post(path).header("content-type", "application/json");
    node.send(request.body(Body::from(body.to_string())).unwrap())
        .await
}

async fn get(node: &Node, path: &str) -> Value {
    node.send(Request::get(path).body(Body::empty()).unwrap())
        .await
        .json()
}

/// What the node tells of a job, but for how far the log is.
async fn everything(node: &Node, job: &str) -> Value {
    let (mut shown, mut attempts) = (
        get(node, job).await,
        get(node, &format!("{job}/attempts")).await,
    );
    json!([shown["job"].take(), attempts["attempts"].take()])
}

#[tokio::test]
async fn a_worker_that_lies_about_its_token_changes_nothing() {
    let node = Node::start().await;
    let spec = json!({"kind": "build", "payload": null, "losses_max": 9});
    let id = post(&node, "/api/v1/jobs", &spec).await.json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let job = format!("/api/v1/jobs/{id}");
    let lies = |token: i64| {
        let report = |report: Value| json!({"token": token, "report": report});
        [
            (format!("{job}/start"), json!({"token": token})),
            (format!("{job}/renew"), json!({"token": token})),
            (
                format!("{job}/finish"),
                report(json!({"report": "succeeded", "result": "mine"})),
            ),
            (
                format!("{job}/finish"),
                report(json!({"report": "failed", "error": "no", "permanent": true})),
            ),
            (format!("{job}/finish"), report(json!({"report": "lost"}))),
            (
                format!("/queue/status/{id}"),
                json!({"state": "in_progress", "token": token}),
            ),
            (
                format!("/queue/status/{id}"),
                json!({"state": "completed", "token": token}),
            ),
            (
                format!("/queue/status/{id}"),
                json!({"state": "cancelled", "token": token}),
            ),
        ]
    };
    // Not claimed yet; held by the second claim; finished.
    for stage in 0..3 {
        if stage == 1 {
            for token in [1, 2] {
                assert_eq!(
                    post(&node, "/api/v1/claims", &json!({"worker": "w"}))
                        .await
                        .status,
                    200
                );
                assert_eq!(
                    post(&node, &format!("{job}/start"), &json!({"token": token}))
                        .await
                        .status,
                    200
                );
                if token == 1 {
                    let lost = json!({"token": 1, "report": {"report": "lost"}});
                    assert_eq!(
                        post(&node, &format!("{job}/finish"), &lost).await.status,
                        200
                    );
                }
            }
        }
        if stage == 2 {
            let done = json!({"token": 2, "report": {"report": "succeeded", "result": "truly"}});
            assert_eq!(
                post(&node, &format!("{job}/finish"), &done).await.status,
                200
            );
        }
        let before = everything(&node, &job).await;
        let held = if stage == 1 { Some(2) } else { None };
        for token in [i64::MIN, -1, 0, 1, 2, 3, i64::MAX]
            .into_iter()
            .filter(|token| Some(*token) != held)
        {
            for (path, body) in lies(token) {
                let reply = post(&node, &path, &body).await;
                assert_eq!(reply.status, 409, "stage {stage}: {path} {body}: {reply:?}");
            }
        }
        assert_eq!(everything(&node, &job).await, before, "stage {stage}");
    }
}

/// A job can only wait for those that exist, whose ids the node makes: so there is no way to write a cycle.
#[tokio::test]
async fn dependencies_that_cannot_be_are_refused() {
    let node = Node::start().await;
    let first = post(
        &node,
        "/api/v1/jobs",
        &json!({"kind": "a", "payload": null}),
    )
    .await
    .json();
    let id = &first["id"];
    let ids: Vec<String> = (0..65).map(|number| format!("j{number}")).collect();
    for (dependencies, status, cause) in [
        (json!(["unheard-of"]), 422, "no job unheard-of"),
        (json!([id, "unheard-of"]), 422, "no job unheard-of"),
        (json!([id, id]), 400, "named twice"),
        (json!([""]), 400, "empty"),
        (json!(["a b"]), 400, "other characters"),
        (json!(ids), 400, "at most 64"),
        (json!([7]), 400, "invalid type"),
        (json!("x"), 400, "invalid type"),
    ] {
        let spec = json!({"kind": "a", "payload": null, "dependencies": dependencies});
        let reply = post(&node, "/api/v1/jobs", &spec).await;
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert!(
            reply.status == status && detail.contains(cause),
            "{dependencies}: {} {detail}",
            reply.status
        );
    }
    for field in ["id", "job"] {
        let own = json!({"kind": "a", "payload": null, field: "mine", "dependencies": ["mine"]});
        assert_eq!(
            post(&node, "/api/v1/jobs", &own).await.status,
            400,
            "a client names no job"
        );
    }
    assert_eq!(get(&node, "/api/v1/stats").await["total"], 1);
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let node = Node::start().await;
    let with = |field: &str, value: Value| {
        let mut spec = json!({"kind": "a", "payload": null});
        spec[field] = value;
        spec
    };
    let (word, many) = (
        "x".repeat(129),
        (0..33)
            .map(|number| format!("l{number}"))
            .collect::<Vec<_>>(),
    );
    for spec in [
        with("kind", json!("x".repeat(65))),
        with("labels", json!([word])),
        with("labels", json!(many)),
        with("idempotency_key", json!(word)),
        with("concurrency", json!({"key": word, "limit": 1})),
        with("concurrency", json!({"key": "k", "limit": 101})),
        with("attempts_max", json!(101)),
        with("losses_max", json!(u64::MAX)),
        with("timeout_ms", json!(u64::MAX)),
        with("backoff", json!({"base_ms": u64::MAX, "max_ms": 1})),
        with("priority", json!(i64::MAX)),
        with("run_after_ms", json!(u64::MAX)),
        with("dependencies", json!([word])),
    ] {
        let reply = post(&node, "/api/v1/jobs", &spec).await;
        assert_eq!(reply.status, 400, "{spec}: {reply:?}");
    }
    // Within the limit of a payload, but not of a body; in one string, and in a million brackets.
    for payload in [
        json!("x".repeat(64 * 1024)).to_string(),
        "[".repeat(1_000_000),
    ] {
        let body = format!(r#"{{"kind": "a", "payload": {payload}}}"#);
        let request = Request::post("/api/v1/jobs").header("content-type", "application/json");
        assert_eq!(
            node.send(request.body(Body::from(body)).unwrap())
                .await
                .status,
            413
        );
    }
    for offer in [
        json!({"worker": word}),
        json!({"worker": "w", "slots": 65}),
        json!({"worker": "w", "slots": 0}),
        json!({"worker": "w", "slots": u64::MAX}),
        json!({"worker": "w", "labels": many}),
        json!({"worker": "w", "kinds": many}),
        json!({"worker": "w", "kinds": [word]}),
    ] {
        assert_eq!(
            post(&node, "/api/v1/claims", &offer).await.status,
            400,
            "{offer}"
        );
    }
    let id = "x".repeat(30_000);
    for (method, path) in [
        ("GET", ""),
        ("GET", "/events"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/jobs/{id}{path}"));
        assert_eq!(
            node.send(request.body(Body::empty()).unwrap()).await.status,
            404,
            "{path}"
        );
    }
    assert_eq!(get(&node, "/api/v1/stats").await["total"], 0);
}
