//! A run through all routes: no answer that the document does not tell, and none that it tells in vain.

use std::{collections::BTreeSet, net::SocketAddr};

use axum::{body::Body, extract::ConnectInfo, http::Request};
use mvm_node::{
    consensus::{Proposal, Unavailable},
    http::BODY_BYTES_MAX,
    store::{Deadline, Outage, Store as _},
};
use mvm_queue::{
    Change, Command, FLOW_KIND, FencingToken, JobId, JobSpec, RequestId, SCHEDULES_MAX, Stream,
    UnixMillis,
};
use serde_json::{Value, json};

use super::{
    document::{Node, Operation, Reply},
    guards::{guards, limits},
    paths,
};

const JSON: &str = "application/json";

/// What no store in memory answers: `http/output.rs` and `mvm-ci/tests/commands/worker.rs` show output on a disk.
const ELSEWHERE: (&str, [u16; 3]) = (
    "/api/v1/jobs/{id}/attempts/{attempt}/{stream}",
    [200, 307, 503],
);

/// Calls by method, path and body; each answer is judged, and remembered by operation and status.
pub(super) struct Run {
    pub(super) node: Node,
    /// Where requests come from, if that matters.
    pub(super) from: Option<SocketAddr>,
    seen: BTreeSet<(String, String, u16)>,
}

impl Run {
    async fn start() -> Self {
        Self {
            node: Node::start().await,
            from: None,
            seen: BTreeSet::new(),
        }
    }

    pub(super) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let operation = self.find(method, path);
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::from(body.to_vec())).unwrap();
        if let Some(from) = self.from {
            request.extensions_mut().insert(ConnectInfo(from));
        }
        let reply = self.node.send(request).await;
        let judged = self.node.judge(&operation, &reply);
        judged.unwrap_or_else(|problem| panic!("{method} {path}: {problem}: {reply:?}"));
        self.seen
            .insert((operation.method, operation.path, reply.status));
        reply
    }

    fn find(&self, method: &str, path: &str) -> Operation {
        let plain = path.split('?').next().unwrap();
        let operations = self.node.operations();
        let found = operations
            .into_iter()
            .filter(|told| told.method == method)
            .find(|told| paths::fits(&told.path, plain));
        found.unwrap_or_else(|| panic!("{method} {path} is not told"))
    }

    async fn get(&mut self, path: &str) -> Value {
        let reply = self.send("GET", path, &[], b"").await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply.json()
    }

    pub(super) async fn post(&mut self, status: u16, path: &str, body: Value) -> Value {
        let reply = self
            .send(
                "POST",
                path,
                &[("content-type", JSON)],
                body.to_string().as_bytes(),
            )
            .await;
        assert_eq!(reply.status, status, "{path}: {reply:?}");
        if reply.body.is_empty() {
            Value::Null
        } else {
            reply.json()
        }
    }

    /// The documented example of an operation, with the id in its path.
    pub(super) async fn example(
        &mut self,
        operation: &Operation,
        id: &str,
        headers: &[(&str, &str)],
    ) -> Reply {
        let path = filled(operation, id);
        let query = if path.ends_with("/log") {
            "?attempt=1"
        } else {
            ""
        };
        let mut headers = headers.to_vec();
        let told = &operation.told["requestBody"]["content"][JSON]["example"];
        let body = if told.is_null() {
            String::new()
        } else {
            told.to_string()
        };
        if !told.is_null() && !headers.iter().any(|(name, _)| *name == "content-type") {
            headers.push(("content-type", JSON));
        }
        self.send(
            &operation.method,
            &format!("{path}{query}"),
            &headers,
            body.as_bytes(),
        )
        .await
    }
}

#[tokio::test]
async fn whatever_a_run_is_answered_is_told_and_whatever_is_told_can_be_had() {
    let mut run = Run::start().await;
    life(&mut run).await;
    refusals(&mut run).await;
    outages(&mut run).await;
    limits(&mut run).await;
    guards(&mut run).await;
    let told = run.node.operations().into_iter().flat_map(|operation| {
        let statuses: Vec<u16> = operation.told["responses"]
            .as_object()
            .unwrap()
            .keys()
            .map(|status| status.parse().unwrap())
            .collect();
        statuses
            .into_iter()
            .map(move |status| (operation.method.clone(), operation.path.clone(), status))
    });
    // A body that takes its time would take ten seconds.
    let missing: Vec<_> = told
        .filter(|one| one.2 != 408 && !run.seen.contains(one))
        .filter(|one| one.1 != ELSEWHERE.0 || !ELSEWHERE.1.contains(&one.2))
        .collect();
    assert!(missing.is_empty(), "told and never seen: {missing:#?}");
}

/// An operation's path, with one word for what it names.
fn filled(operation: &Operation, word: &str) -> String {
    let path = operation.path.replace("{attempt}", "1");
    paths::filled(&path.replace("{stream}", "stdout"), word)
}

/// One that is there, though no module is deployed that it would run.
async fn workflow(run: &mut Run) {
    let id = "wkf_0000000000001";
    let payload = json!({"module": "shop", "version": "1", "workflow": "order"});
    let command = Command {
        request: RequestId("a-workflow".into()),
        at: UnixMillis(0),
        change: Change::Submit {
            job: JobId(id.into()),
            submitted_on: 1,
            spec: Box::new(JobSpec::new(FLOW_KIND, payload)),
            tick: None,
        },
    };
    let deadline = Deadline::starting_now();
    let proposed = run.node.store.propose(command, deadline).await;
    assert!(
        matches!(proposed, Proposal::Committed { .. }),
        "{proposed:?}"
    );
    let page = run.send("GET", &format!("/workflows/{id}"), &[], b"").await;
    assert_eq!(page.status, 200);
}

/// Jobs with everything, from submission to their ends.
async fn life(run: &mut Run) {
    let first = run
        .post(201, "/api/v1/jobs", json!({"kind": "a", "payload": null}))
        .await["id"]
        .clone();
    let full = json!({
        "kind": "build", "payload": {"x": [1, "two"]}, "labels": ["linux", "big"], "priority": -3, "run_after_ms": 5,
        "attempts_max": 4, "losses_max": 2, "backoff": {"base_ms": 10, "max_ms": 20}, "timeout_ms": 1000,
        "concurrency": {"key": "deploy", "limit": 1}, "dependencies": [first], "on_dependency_failure": "run",
        "idempotency_key": "full",
    });
    run.post(201, "/api/v1/jobs", full.clone()).await;
    run.post(200, "/api/v1/jobs", full).await;
    workflow(run).await;
    for (path, body) in [
        ("/new-job", json!({"url": "https://x/"})),
        ("/queue/publish", json!({"kind": "r", "payload": 1})),
    ] {
        // The job's key is the request's; the request is forgotten earlier, which another key in front shows.
        let key = path.replace('/', "-");
        run.post(201, path, body.clone()).await;
        let keyed = [("content-type", JSON), ("idempotency-key", &*key)];
        let created = run
            .send("POST", path, &keyed, body.to_string().as_bytes())
            .await;
        assert_eq!(created.status, 201);
        forget_requests(run);
        let again = run
            .send("POST", path, &keyed, body.to_string().as_bytes())
            .await;
        assert_eq!(
            (again.status, &again.json()["id"]),
            (200, &created.json()["id"])
        );
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(
        run.send("POST", "/new-job", &form, b"url=http://x/")
            .await
            .status,
        201
    );

    let claims = run
        .post(
            200,
            "/api/v1/claims",
            json!({"worker": "w", "slots": 64, "labels": ["linux", "big"]}),
        )
        .await;
    assert!(claims["claims"].as_array().unwrap().len() >= 4, "{claims}");
    run.post(204, "/queue/claim", json!({"worker": "w"})).await;
    let job = format!("/api/v1/jobs/{}", first.as_str().unwrap());
    run.post(200, &format!("{job}/start"), json!({"token": 1}))
        .await;
    run.post(200, &format!("{job}/renew"), json!({"token": 1}))
        .await;
    for (number, text) in [(0, "one\n"), (1, "\u{fffd}\0")] {
        say(run, first.as_str().unwrap(), number, text);
    }
    let log = run.get(&format!("{job}/log?attempt=1&from=1")).await;
    assert_eq!(log["chunks"].as_array().unwrap().len(), 1);
    run.get(&format!("{job}/attempts")).await;
    let failed = json!({"report": "failed", "error": "no", "permanent": true});
    run.post(
        200,
        &format!("{job}/finish"),
        json!({"token": 1, "report": failed}),
    )
    .await;
    run.get(&job).await;
    run.get(&format!("{job}/attempts?consistency=local")).await;
    run.post(200, &format!("{job}/retry"), json!(null)).await;
    let short = run.post(200, "/queue/claim", json!({"worker": "w"})).await;
    let status = format!("/queue/status/{}", short["job"]["id"].as_str().unwrap());
    run.post(
        200,
        &status,
        json!({"state": "in_progress", "token": short["token"]}),
    )
    .await;
    run.post(200, &status, json!({"state": "cancelled"})).await;
    run.get(&status).await;
    let done = json!({"token": short["token"], "report": {"report": "succeeded", "result": {"ok": [true]}}});
    run.post(200, &format!("{job}/finish"), done).await;
    run.get(&job).await;
    let last = claims["claims"][1]["id"].as_str().unwrap();
    run.post(200, &format!("/api/v1/jobs/{last}/cancel"), json!(null))
        .await;
    for path in [
        "/api/v1/jobs",
        "/api/v1/jobs?limit=1&order=newest_first&state=claimed&label=big&submitted_on=7&claimed_on=7&created_from_ms=0&created_before_ms=1",
        "/queue/list?limit=1",
        "/api/v1/stats",
        "/queue/stats",
        "/health",
        "/ready",
        "/cluster",
        "/api/openapi.json",
        "/api/v1/node",
    ] {
        run.get(path).await;
    }
    run.post(200, "/api/v1/node/drain", json!({"draining": true}))
        .await;
    times(run).await;
    copies(run).await;
    assert_eq!(run.send("GET", "/metrics", &[], b"").await.status, 200);
    let open = [("accept", "application/openmetrics-text")];
    assert_eq!(run.send("GET", "/metrics", &open, b"").await.status, 200);
    for path in [
        "/".into(),
        format!("{job}/events"),
        format!("{job}/log/events"),
    ] {
        assert_eq!(run.send("GET", &path, &[], b"").await.status, 200);
    }
}

/// Schedules, as many as there may be, and one more.
async fn times(run: &mut Run) {
    let schedule =
        json!({"cron": "0 3 * * *", "missed": "skip", "job": {"kind": "report", "payload": {}}});
    let body = schedule.to_string();
    let json = [("content-type", JSON)];
    let set = |number: usize| format!("/api/v1/schedules/s{number}");
    for number in 0..SCHEDULES_MAX {
        let set = run.send("PUT", &set(number), &json, body.as_bytes()).await;
        assert_eq!(set.status, 200, "{set:?}");
    }
    let beyond = set(SCHEDULES_MAX);
    let refused = run.send("PUT", &beyond, &json, body.as_bytes()).await;
    assert_eq!(refused.status, 429, "{refused:?}");
    let told = run.get("/api/v1/schedules").await;
    assert_eq!(told["schedules"].as_array().unwrap().len(), SCHEDULES_MAX);
    for never in ["0 0 30 2 *", "x", ""] {
        let body = json!({"cron": never, "job": schedule["job"]}).to_string();
        let refused = run.send("PUT", &beyond, &json, body.as_bytes()).await;
        assert_eq!(refused.status, 400, "{never}: {refused:?}");
    }
    assert_eq!(run.send("DELETE", &set(0), &[], b"").await.status, 204);
    assert_eq!(run.send("DELETE", &set(0), &[], b"").await.status, 404);
}

/// Backups.
async fn copies(run: &mut Run) {
    run.node.store.set_outage(Some(Outage::DiskFull));
    run.post(507, "/api/v1/backups", json!(null)).await;
    run.node.store.set_outage(None);
    let made = run.post(201, "/api/v1/backups", json!(null)).await;
    run.post(200, "/api/v1/backups", json!(null)).await;
    let listed = run.get("/api/v1/backups").await;
    assert_eq!(listed["backups"][0], made);
    let path = format!("/api/v1/backups/{}", made["name"].as_str().unwrap());
    let fetched = run.send("GET", &path, &[], b"").await;
    assert_eq!(fetched.body.len(), made["bytes"], "{fetched:?}");
}

/// Makes the store forget what it remembers of requests, as many others would.
fn forget_requests(run: &Run) {
    for number in 0..=mvm_queue::REQUESTS_KEPT {
        apply(
            run,
            Change::Retry {
                job: JobId("nobody".into()),
                keep_frames: None,
            },
            &format!("forget-{number}"),
        );
    }
}

fn say(run: &Run, job: &str, number: u32, text: &str) {
    let change = Change::Log {
        job: JobId(job.into()),
        token: FencingToken(1),
        number,
        stream: Stream::Stdout,
        bytes: text.as_bytes().to_vec(),
    };
    apply(run, change, &format!("say-{number}"));
}

fn apply(run: &Run, change: Change, request: &str) {
    run.node.store.apply(&Command {
        request: RequestId(request.into()),
        at: UnixMillis(1),
        change,
    });
}

/// What is understood and refused, and what is not understood.
async fn refusals(run: &mut Run) {
    let finished = run.get("/api/v1/jobs?state=completed").await["jobs"][0]["id"].clone();
    let finished = finished.as_str().unwrap().to_owned();
    let used = [("idempotency-key", "used")];
    let other = [("content-type", JSON), used[0]];
    assert_eq!(
        run.send("POST", "/queue/publish", &other, br#"{"kind": "other"}"#)
            .await
            .status,
        201
    );
    for operation in run.node.operations() {
        let has = |status: &str| operation.told["responses"].get(status).is_some();
        let path = filled(&operation, &finished);
        if has("404") {
            assert_eq!(
                run.example(&operation, &"x".repeat(129), &[]).await.status,
                404,
                "{path}"
            );
        }
        if has("409") {
            assert_eq!(
                run.example(&operation, &finished, &[]).await.status,
                409,
                "{path}"
            );
        }
        if has("422") {
            assert_eq!(
                run.example(&operation, &finished, &used).await.status,
                422,
                "{path}"
            );
            assert_eq!(
                run.example(&operation, &finished, &[("idempotency-key", "a b")])
                    .await
                    .status,
                400,
                "{path}"
            );
        }
        if has("413") {
            let large = vec![b' '; BODY_BYTES_MAX + 1];
            let method = &operation.method;
            assert_eq!(
                run.send(method, &path, &[("content-type", JSON)], &large)
                    .await
                    .status,
                413,
                "{path}"
            );
            assert_eq!(
                run.send(method, &path, &[("content-type", JSON)], b"{")
                    .await
                    .status,
                400,
                "{path}"
            );
            assert_eq!(
                run.example(&operation, &finished, &[("content-type", "text/plain")])
                    .await
                    .status,
                415,
                "{path}"
            );
        } else if operation.path.contains('{') {
            assert_eq!(
                run.example(&operation, "%ff", &[]).await.status,
                400,
                "{path}"
            );
        } else if has("400") {
            let unknown = format!("{path}?x=1");
            assert_eq!(
                run.send("GET", &unknown, &[], b"").await.status,
                400,
                "{path}"
            );
        }
    }
}

/// Without a majority, and with answers that get lost.
async fn outages(run: &mut Run) {
    let job = run.get("/api/v1/jobs").await["jobs"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    for operation in run.node.operations() {
        let has = |status: &str| operation.told["responses"].get(status).is_some();
        // Streams read the replica and nothing else, and so does a page, which has none before the node joins.
        let is_stream = operation.path.ends_with("/events");
        let unavailable = match &*operation.path {
            "/workflows/{id}" => Unavailable::Forming,
            _ => Unavailable::NoLeader,
        };
        if has("503") && !is_stream && operation.path != ELSEWHERE.0 {
            run.node
                .store
                .set_outage(Some(Outage::Unavailable(unavailable)));
            assert_eq!(
                run.example(&operation, &job, &[]).await.status,
                503,
                "{}",
                operation.path
            );
        }
        if has("504") {
            run.node.store.set_outage(Some(Outage::AnswersLost));
            assert_eq!(
                run.example(&operation, &job, &[]).await.status,
                504,
                "{}",
                operation.path
            );
        }
        run.node.store.set_outage(None);
    }
}
