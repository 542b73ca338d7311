//! Server-sent events: what comes, in which order, and how a stream ends.

use std::{sync::Arc, time::Duration};

use super::{document::Node, schema};
use axum::{body::Body, http::Request};
use http_body_util::BodyExt;
use mvm_queue::{
    Change, Command, FencingToken, JobId, JobSpec, Report, RequestId, Stream, UnixMillis,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

/// Longer than anything here takes, so that a hang fails instead of lasting.
const HANG: Duration = Duration::from_secs(20);

/// One event.
#[derive(Clone, Debug, PartialEq)]
struct Event {
    name: String,
    id: Option<String>,
    data: Value,
}

/// The events of one stream.
struct Events {
    body: Body,
    kind: &'static str,
}

impl Events {
    /// The next event, judged by the document; nothing at the end.
    async fn next(&mut self, node: &Node) -> Option<Event> {
        let frame = tokio::time::timeout(HANG, self.body.frame())
            .await
            .expect("an event or the end")?;
        let text = String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap();
        let field = |name: &str| {
            let mut lines = text
                .lines()
                .filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            lines.next().map(str::to_owned)
        };
        let event = Event {
            name: field("event")?,
            id: field("id"),
            data: serde_json::from_str(&field("data")?).unwrap(),
        };
        let told = node.operation("GET", &format!("/api/v1/jobs/{{id}}{}", self.kind));
        let told =
            &told.told["responses"]["200"]["content"]["text/event-stream"]["x-events"][&event.name];
        schema::validate(&node.document, told, &event.data).unwrap();
        Some(event)
    }

    async fn names(&mut self, node: &Node) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(event) = self.next(node).await {
            let told = event
                .id
                .unwrap_or_else(|| event.data["state"].as_str().unwrap().to_owned());
            names.push(format!("{} {told}", event.name));
        }
        names
    }
}

/// A node with one job `j`.
async fn start() -> Node {
    let node = Node::start().await;
    let mut spec = JobSpec::new("build", Value::Null);
    spec.attempts_max = 2;
    spec.backoff.base_ms = 0;
    let change = Change::Submit {
        job: job(),
        submitted_on: 7,
        spec: Box::new(spec),
        tick: None,
    };
    apply(&node, "submit", change);
    node
}

fn job() -> JobId {
    JobId("j".into())
}

#[track_caller]
fn apply(node: &Node, request: &str, change: Change) {
    let command = Command {
        request: RequestId(request.into()),
        at: UnixMillis(1),
        change,
    };
    let applied = node.store.apply(&command);
    assert!(
        format!("{applied:?}").starts_with("Committed"),
        "{request}: {applied:?}"
    );
}

fn claim(node: &Node, token: i64) {
    let none = std::collections::BTreeSet::new;
    let change = Change::Claim {
        node: 7,
        worker: "w".into(),
        slots: 1,
        labels: none(),
        kinds: none(),
    };
    apply(node, &format!("claim-{token}"), change);
    apply(
        node,
        &format!("start-{token}"),
        Change::Start {
            job: job(),
            token: FencingToken(token),
        },
    );
}

fn say(node: &Node, token: i64, number: u32) {
    let bytes = format!("{token}:{number}\n").into_bytes();
    let change = Change::Log {
        job: job(),
        token: FencingToken(token),
        number,
        stream: Stream::Stdout,
        bytes,
    };
    apply(node, &format!("say-{token}-{number}"), change);
}

fn finish(node: &Node, token: i64, report: Report) {
    apply(
        node,
        &format!("finish-{token}"),
        Change::Finish {
            job: job(),
            token: FencingToken(token),
            report,
        },
    );
}

async fn open(node: &Node, kind: &'static str, query: &str, last: Option<&str>) -> Events {
    let mut request = Request::get(format!("/api/v1/jobs/j{kind}{query}"));
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let response = node.open(request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), 200, "{query}");
    Events {
        body: response.into_body(),
        kind,
    }
}

#[tokio::test]
async fn a_job_is_told_at_once_at_each_change_and_at_its_end() {
    let node = start().await;
    let mut events = open(&node, "/events", "", None).await;
    let shown = node
        .send(Request::get("/api/v1/jobs/j").body(Body::empty()).unwrap())
        .await
        .json();
    let first = events.next(&node).await.unwrap();
    assert_eq!((first.name.as_str(), &first.data), ("job", &shown["job"]));
    claim(&node, 1);
    let held = events.next(&node).await.unwrap();
    assert_eq!(
        (&held.data["state"], &held.data["attempts"]),
        (&json!("in_progress"), &json!(1))
    );
    // What changes neither state nor attempts is not told.
    say(&node, 1, 0);
    finish(&node, 1, Report::Succeeded { result: json!(1) });
    assert_eq!(
        events.names(&node).await,
        ["job completed", "end completed"]
    );
}

#[tokio::test]
async fn output_is_told_attempt_after_attempt() {
    let node = start().await;
    let mut events = open(&node, "/log/events", "", None).await;
    claim(&node, 1);
    say(&node, 1, 0);
    let chunk = events.next(&node).await.unwrap();
    assert_eq!(
        (chunk.id.as_deref(), &chunk.data["text"]),
        (Some("1:1"), &json!("1:0\n"))
    );
    let mut only = open(&node, "/log/events", "?attempt=1&from=0", None).await;
    say(&node, 1, 1);
    finish(&node, 1, Report::failed("no", false));
    assert_eq!(
        only.names(&node).await,
        ["chunk 1:1", "chunk 1:2", "end pending"]
    );
    apply(
        &node,
        "due",
        Change::Ready {
            job: job(),
            token: FencingToken(1),
        },
    );
    claim(&node, 2);
    for number in 0..100 {
        say(&node, 2, number);
    }
    finish(
        &node,
        2,
        Report::Succeeded {
            result: Value::Null,
        },
    );
    let mut expected = vec!["chunk 1:2".to_owned()];
    expected.extend((1..=100).map(|next| format!("chunk 2:{next}")));
    expected.push("end completed".into());
    assert_eq!(events.names(&node).await, expected);

    // From anywhere on, without loss or repeat.
    for last in ["1:1", "1:2", "2:1", "2:99", "2:100"] {
        let place = expected
            .iter()
            .position(|told| told.ends_with(&format!(" {last}")));
        let mut rest = open(&node, "/log/events", "", Some(last)).await;
        assert_eq!(
            rest.names(&node).await,
            expected[place.map_or(0, |place| place + 1)..],
            "{last}"
        );
    }
    let mut latest = open(&node, "/log/events", "?from=99", None).await;
    assert_eq!(latest.names(&node).await, ["chunk 2:100", "end completed"]);
    let mut never = open(&node, "/log/events", "?attempt=3", None).await;
    assert_eq!(never.names(&node).await, ["end completed"]);
}

#[tokio::test]
async fn streams_of_nothing_are_refused() {
    let node = start().await;
    for (path, last, status) in [
        ("/api/v1/jobs/x/events", None, 404),
        ("/api/v1/jobs/x/log/events", None, 404),
        ("/api/v1/jobs/j/events?from=1", None, 400),
        ("/api/v1/jobs/j/log/events?attempt=x", None, 400),
        ("/api/v1/jobs/j/log/events?from=-1", None, 400),
        ("/api/v1/jobs/j/log/events", Some("1"), 400),
        ("/api/v1/jobs/j/log/events", Some("1:x"), 400),
        ("/api/v1/jobs/j/log/events", Some("-1:0"), 400),
        ("/api/v1/jobs/j/log/events", Some("1:4294967296"), 400),
    ] {
        let mut request = Request::get(path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let reply = node.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(reply.status, status, "{path}: {reply:?}");
    }
}

#[tokio::test]
async fn a_server_that_closes_ends_its_streams() {
    let node = start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (close, closing) = oneshot::channel::<()>();
    let router = Arc::clone(&node.app).router();
    let server = async {
        let closing = async { drop(closing.await) };
        axum::serve(listener, router)
            .with_graceful_shutdown(closing)
            .await
            .unwrap();
    };
    let client = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /api/v1/jobs/j/events HTTP/1.1\r\nhost: node\r\n\r\n")
            .await
            .unwrap();
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("event: job") {
            assert!(stream.read_buf(&mut seen).await.unwrap() > 0);
        }
        node.app.end_streams();
        close.send(()).unwrap();
        stream.read_to_end(&mut seen).await.unwrap();
        let seen = String::from_utf8(seen).unwrap();
        assert!(
            seen.ends_with("0\r\n\r\n") && !seen.contains("event: end"),
            "{seen}"
        );
    };
    tokio::time::timeout(HANG, async { tokio::join!(server, client) })
        .await
        .expect("the server closes");
}
