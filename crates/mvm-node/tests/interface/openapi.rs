//! The document at `/api/openapi.json` against the router and the handlers: the same routes, the same fields.

use std::collections::BTreeSet;

use axum::{body::Body, http::Request};
use mvm_node::http::routes;

use super::{
    document::{Node, Reply},
    paths,
};

#[tokio::test]
async fn the_document_has_the_routes_that_there_are() {
    let node = Node::start().await;
    let told: BTreeSet<_> = node
        .operations()
        .into_iter()
        .map(|told| (told.method, told.path))
        .collect();
    let listed = routes()
        .iter()
        .map(|route| (route.method.to_owned(), route.path.to_owned()));
    assert_eq!(told, listed.collect());
    for (method, path) in told {
        let uri = paths::filled(&path, "x");
        let reply = node
            .send(
                Request::builder()
                    .method(&*method)
                    .uri(&uri)
                    .body(Body::empty())
                    .unwrap(),
            )
            .await;
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        assert!(
            reply.status != 405 && !text.contains("there is nothing at"),
            "{method} {path}: {text}"
        );
        let other = "PATCH";
        let reply = node
            .send(
                Request::builder()
                    .method(other)
                    .uri(&uri)
                    .body(Body::empty())
                    .unwrap(),
            )
            .await;
        assert_eq!(reply.status, 405, "{other} {path}");
    }
}

/// serde names the fields that it knows when it meets another.
#[tokio::test]
async fn bodies_have_the_fields_that_are_read() {
    let node = Node::start().await;
    let mut checked = 0;
    for operation in node.operations() {
        let schema =
            &operation.told["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        let Some(pointer) = schema.as_str() else {
            continue;
        };
        let told = node.document.pointer(&pointer[1..]).unwrap()["properties"]
            .as_object()
            .unwrap();
        let request = Request::builder()
            .method(&*operation.method)
            .uri(paths::filled(&operation.path, "x"));
        let request = request
            .header("content-type", "application/json")
            .body(Body::from(r#"{"?": 0}"#))
            .unwrap();
        let detail = node.send(request).await.json()["detail"]
            .as_str()
            .unwrap()
            .to_owned();
        let (_, known) = detail
            .split_once("expected ")
            .unwrap_or_else(|| panic!("{detail}"));
        let known: BTreeSet<&str> = known.split('`').skip(1).step_by(2).collect();
        assert_eq!(
            told.keys().map(String::as_str).collect::<BTreeSet<_>>(),
            known,
            "{}",
            operation.path
        );
        checked += 1;
    }
    assert_eq!(checked, 11);
}

#[tokio::test]
async fn an_answer_that_is_not_told_is_noticed() {
    let node = Node::start().await;
    let operation = node.operation("GET", "/health");
    let good = node
        .send(Request::get("/health").body(Body::empty()).unwrap())
        .await;
    assert_eq!(node.judge(&operation, &good), Ok(()));
    let check = |change: &dyn Fn(&mut Reply), expected: &str| {
        let mut reply = Reply {
            status: good.status,
            headers: good.headers.clone(),
            body: good.body.clone(),
        };
        change(&mut reply);
        let found = node.judge(&operation, &reply).unwrap_err();
        assert!(found.contains(expected), "{found} is not {expected}");
    };
    check(&|reply| reply.status = 202, "status 202");
    check(
        &|reply| reply.body = br#"{"status": "live", "node": 7, "mood": "good"}"#.to_vec(),
        "mood is not told",
    );
    check(
        &|reply| reply.body = br#"{"status": "live"}"#.to_vec(),
        "required",
    );
    check(
        &|reply| reply.body = br#"{"status": "live", "node": "7"}"#.to_vec(),
        "type",
    );
    check(
        &|reply| drop(reply.headers.remove("x-mvm-node")),
        "x-mvm-node is told and missing",
    );
    check(
        &|reply| drop(reply.headers.insert("retry-after", "1".parse().unwrap())),
        "retry-after is not told",
    );
    check(
        &|reply| {
            drop(
                reply
                    .headers
                    .insert("content-type", "text/plain".parse().unwrap()),
            )
        },
        "text/plain",
    );
}
