//! The HTTP interface over a real socket, with the store in memory: good input, and above all bad.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

#[path = "support/paths.rs"]
mod paths;
mod support;

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
};

use mvm_node::{
    consensus::Unavailable,
    http::{App, BODY_BYTES_MAX, routes},
    store::{MemoryStore, Outage},
};
use serde_json::{Value, json};
use support::{Answer, exchange, get, new_job, post_json, request};

const SECRET: &str = "0123456789abcdef";
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const JSON: (&str, &str) = ("content-type", "application/json");

struct Server {
    address: SocketAddr,
    store: Arc<MemoryStore>,
    /// Dropping it ends the server.
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let store = Arc::new(MemoryStore::new());
        let router = App::new(Arc::clone(&store), 7, SECRET).router();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            address,
            store,
            _runtime: runtime,
        }
    }

    #[track_caller]
    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let answer = exchange(self.address, &request(method, path, headers, body)).unwrap();
        assert_eq!(answer.header("x-mvm-node"), Some("7"), "{answer:?}");
        answer
    }

    fn submit(&self) -> Value {
        let answer = self.send("POST", "/new-job", &[FORM], b"url=http://x/");
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()
    }

    fn claim(&self, worker: &str) -> Answer {
        post_json(self.address, "/queue/claim", &json!({ "worker": worker })).unwrap()
    }

    fn set(&self, id: &Value, state: &str, token: Value) -> Answer {
        let path = format!("/queue/status/{}", id.as_str().unwrap());
        post_json(
            self.address,
            &path,
            &json!({ "state": state, "token": token }),
        )
        .unwrap()
    }

    fn total(&self) -> Value {
        get(self.address, "/queue/stats").unwrap().json()["total"].clone()
    }
}

/// A problem must say everything that RFC 9457 and this project ask for.
#[track_caller]
fn check_problem(answer: &Answer, status: u16, detail: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    assert!(
        problem["type"]
            .as_str()
            .is_some_and(|kind| kind.starts_with("urn:mvm-ci:")),
        "{problem}"
    );
    assert!(problem["title"].is_string(), "{problem}");
    let found = problem["detail"].as_str().unwrap();
    assert!(
        found.contains(detail),
        "{found:?} does not contain {detail:?}"
    );
}

#[test]
fn a_form_as_curl_sends_it_becomes_a_job() {
    let server = Server::start();
    let answer = server.send(
        "POST",
        "/new-job",
        &[FORM],
        b"url=http%3A%2F%2Fnode1%2Fa%3Fb%3D1",
    );
    assert_eq!(answer.status, 201);
    let job = answer.json();
    assert_eq!(
        answer.header("location"),
        Some(&*format!("/api/v1/jobs/{}", job["id"].as_str().unwrap()))
    );
    assert!(answer.header("x-mvm-request-id").is_some());
    assert_eq!(
        (&job["state"], &job["waits_for"]),
        (&json!("pending"), &json!("worker"))
    );
    let read = server
        .send("GET", answer.header("location").unwrap(), &[], b"")
        .json();
    let found = &read["job"];
    assert_eq!(
        (
            &found["id"],
            &found["kind"],
            &found["submitted_on"],
            &read["consistency"]
        ),
        (
            &job["id"],
            &json!("fetch"),
            &json!(7),
            &json!("linearizable")
        )
    );
    assert_eq!(found["payload"], json!({ "url": "http://node1/a?b=1" }));
}

#[test]
fn json_is_taken_as_well_and_kinds_are_free() {
    let server = Server::start();
    let utf8 = ("content-type", "application/json; charset=utf-8");
    let answer = server.send("POST", "/new-job", &[utf8], br#"{"url":"https://x"}"#);
    assert_eq!(answer.status, 201);
    let answer = server.send(
        "POST",
        "/queue/publish",
        &[JSON],
        br#"{"kind":"build","payload":{"steps":[1]}}"#,
    );
    assert_eq!(answer.status, 201);
    let job = get(server.address, answer.header("location").unwrap());
    assert_eq!(
        job.unwrap().json()["job"]["payload"],
        json!({ "steps": [1] })
    );
}

#[test]
fn bad_bodies_are_refused_and_leave_no_job() {
    let server = Server::start();
    let long_url = format!("url=http://x/{}", "a".repeat(3_000));
    let ten_megabytes = vec![b'a'; 10 * 1024 * 1024];
    let slightly_too_large = vec![b' '; BODY_BYTES_MAX + 1];
    let deep = "[".repeat(1_000);
    let text = ("content-type", "text/plain");
    /// Path, headers, body; status and detail of the answer.
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [u8], u16, &'a str);
    let cases: &[Case<'_>] = &[
        ("/new-job", &[FORM], b"", 400, "the job has no url"),
        ("/new-job", &[FORM], b"url=", 400, "the job has no url"),
        ("/new-job", &[JSON], b"{}", 400, "the job has no url"),
        (
            "/new-job",
            &[JSON],
            br#"{"url":null}"#,
            400,
            "the job has no url",
        ),
        (
            "/new-job",
            &[FORM],
            b"ulr=http://x",
            400,
            "no field \"ulr\"",
        ),
        (
            "/new-job",
            &[FORM],
            b"url=http://x&url=http://y",
            400,
            "given twice",
        ),
        (
            "/new-job",
            &[FORM],
            b"url=ftp://x",
            400,
            "does not begin with http",
        ),
        ("/new-job", &[FORM], b"url=http:///x", 400, "names no host"),
        ("/new-job", &[FORM], b"url=http://a+b", 400, "white space"),
        (
            "/new-job",
            &[FORM],
            long_url.as_bytes(),
            400,
            "at most 2048",
        ),
        (
            "/new-job",
            &[FORM],
            b"url=http://x/%ff",
            400,
            "not valid UTF-8 from byte 9",
        ),
        (
            "/new-job",
            &[FORM],
            b"url=http://x/\xff\xfe",
            400,
            "not valid UTF-8 from byte 9",
        ),
        (
            "/new-job",
            &[JSON],
            b"{\"url\":\"http://x/\xff\"}",
            400,
            "not valid UTF-8 from byte 17",
        ),
        (
            "/new-job",
            &[JSON],
            b"{",
            400,
            "EOF while parsing an object at line 1 column 1",
        ),
        ("/new-job", &[JSON], deep.as_bytes(), 400, "the body's JSON"),
        (
            "/new-job",
            &[JSON],
            br#"{"url":1}"#,
            400,
            "expected a string",
        ),
        (
            "/new-job",
            &[JSON],
            br#"{"url":"http://x","u":1}"#,
            400,
            "unknown field `u`",
        ),
        (
            "/new-job",
            &[FORM],
            &ten_megabytes,
            413,
            "bodies may have 65536 bytes",
        ),
        (
            "/new-job",
            &[JSON],
            &slightly_too_large,
            413,
            "bodies may have 65536 bytes",
        ),
        ("/new-job", &[], b"url=http://x", 415, "no content-type"),
        ("/new-job", &[text], b"url=http://x", 415, "text/plain"),
        (
            "/new-job",
            &[FORM, ("idempotency-key", "a b")],
            b"url=http://x",
            400,
            "idempotency-key",
        ),
        (
            "/new-job",
            &[FORM, ("idempotency-key", "")],
            b"url=http://x",
            400,
            "idempotency-key",
        ),
        (
            "/queue/publish",
            &[FORM],
            b"kind=a",
            415,
            "takes application/json",
        ),
        (
            "/queue/publish",
            &[JSON],
            br#"{"payload":1}"#,
            400,
            "missing field `kind`",
        ),
        (
            "/queue/publish",
            &[JSON],
            br#"{"kind":"A b"}"#,
            400,
            "\"A b\" is not a kind",
        ),
        (
            "/queue/publish",
            &[JSON],
            br#"{"kind":"fetch"}"#,
            400,
            "the job has no url",
        ),
        (
            "/queue/claim",
            &[JSON],
            b"{}",
            400,
            "missing field `worker`",
        ),
        (
            "/queue/claim",
            &[JSON],
            br#"{"worker":""}"#,
            400,
            "the worker's name is empty",
        ),
        (
            "/queue/claim",
            &[JSON],
            br#"{"worker":"w","kinds":["?"]}"#,
            400,
            "is not a kind",
        ),
        (
            "/queue/status/x",
            &[JSON],
            br#"{"state":"done"}"#,
            400,
            "no state \"done\"",
        ),
        (
            "/queue/status/x",
            &[JSON],
            br#"{"state":"failed","token":"1"}"#,
            400,
            "expected i64",
        ),
    ];
    for (path, headers, body, status, detail) in cases {
        check_problem(&server.send("POST", path, headers, body), *status, detail);
    }
    assert_eq!(server.total(), 0);
}

#[test]
fn a_body_that_breaks_off_is_no_job() {
    let server = Server::start();
    let mut cut = request("POST", "/new-job", &[FORM], b"url=http://x/abc");
    cut.truncate(cut.len() - 3);
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(&cut).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    // The server is done with it once it closes.
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 2"), "{answer:?}");
    assert_eq!(server.total(), 0);
}

#[test]
fn unknown_places_and_methods_say_what_there_is() {
    let server = Server::start();
    check_problem(
        &server.send("GET", "/nowhere", &[], b""),
        404,
        "nothing at /nowhere",
    );
    let answer = server.send("GET", "/new-job", &[], b"");
    check_problem(&answer, 405, "does not take GET");
    assert_eq!(answer.json()["hint"], "use POST");
    for query in [
        "limit=0",
        "limit=501",
        "limit=x",
        "after=x",
        "state=x",
        "consistency=x",
        "x=1",
        "limit=%ff",
    ] {
        let answer = server.send("GET", &format!("/queue/list?{query}"), &[], b"");
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
    }
}

#[test]
fn every_route_of_the_table_exists() {
    let server = Server::start();
    for route in routes() {
        let answer = server.send(route.method, &paths::filled(route.path, "x"), &[], b"");
        let missing = answer.status == 405 || answer.text().contains("there is nothing at");
        assert!(!missing, "{route:?}: {}", answer.text());
    }
}

#[test]
fn a_job_goes_through_its_life() {
    let server = Server::start();
    assert_eq!(server.claim("w").status, 204);
    let first = server.submit();
    server.submit();
    let claim = server.claim("w").json();
    assert_eq!(claim["job"]["id"], first["id"], "the oldest comes first");
    let path = format!("/queue/status/{}", first["id"].as_str().unwrap());
    let held = &get(server.address, &path).unwrap().json()["job"];
    assert_eq!(
        (&held["state"], &held["claimed_by"], &held["attempts"]),
        (&json!("claimed"), &json!("w"), &claim["token"])
    );
    let (id, token) = (&first["id"], claim["token"].clone());
    assert_eq!(server.set(id, "in_progress", token.clone()).status, 200);
    assert_eq!(
        server.set(id, "completed", token).json()["state"],
        "completed"
    );
    let stats = get(server.address, "/queue/stats").unwrap().json();
    assert_eq!(
        (&stats["counts"]["completed"], &stats["counts"]["pending"]),
        (&json!(1), &json!(1))
    );
}

#[test]
fn what_a_job_cannot_do_is_a_conflict_with_cause_and_hint() {
    let server = Server::start();
    let job = server.submit();
    let id = &job["id"];
    check_problem(
        &server.set(&json!("nope"), "failed", json!(1)),
        404,
        "there is no job nope",
    );
    check_problem(
        &get(server.address, "/queue/status/nope").unwrap(),
        404,
        "there is no job nope",
    );
    let answer = server.set(id, "completed", json!(1));
    check_problem(&answer, 409, "token 1 is not the one of the latest claim");
    check_problem(
        &server.set(id, "claimed", Value::Null),
        400,
        "nobody moves a job to claimed",
    );
    assert_eq!(server.claim("w").status, 200);
    check_problem(
        &server.set(id, "in_progress", Value::Null),
        409,
        "carries no token",
    );
    check_problem(
        &server.set(id, "in_progress", json!(2)),
        409,
        "token 2 is not the one",
    );
}

#[test]
fn the_same_key_has_the_same_answer_and_one_effect() {
    let server = Server::start();
    let first = new_job(server.address, "http://x/", "key-1").unwrap();
    let second = new_job(server.address, "http://x/", "key-1").unwrap();
    assert_eq!((first.status, first.json()), (second.status, second.json()));
    assert_eq!(second.header("x-mvm-request-id"), Some("key-1"));
    let other = new_job(server.address, "http://y/", "key-1").unwrap();
    check_problem(&other, 422, "used before for a different request");
    assert_eq!(server.total(), 1);
}

#[test]
fn pages_of_the_list_join_up() {
    let server = Server::start();
    let ids: Vec<Value> = (0..5).map(|_| server.submit()["id"].clone()).collect();
    let mut listed = Vec::new();
    let mut path = "/queue/list?limit=2".to_owned();
    loop {
        let page = get(server.address, &path).unwrap().json();
        listed.extend(
            page["jobs"]
                .as_array()
                .unwrap()
                .iter()
                .map(|job| job["id"].clone()),
        );
        match page["next"].as_i64() {
            Some(next) => path = format!("/queue/list?limit=2&after={next}"),
            None => break,
        }
    }
    assert_eq!(listed, ids);
    server.claim("w");
    let claimed = get(
        server.address,
        "/queue/list?state=claimed&consistency=local",
    )
    .unwrap()
    .json();
    assert_eq!(
        (&claimed["jobs"][0]["id"], &claimed["consistency"]),
        (&ids[0], &json!("local"))
    );
}

#[test]
fn without_a_quorum_nothing_is_answered_with_success_but_local_reads() {
    let server = Server::start();
    let job = server.submit();
    server
        .store
        .set_outage(Some(Outage::Unavailable(Unavailable::NoQuorum {
            since_ms: 900,
        })));
    for answer in [
        new_job(server.address, "http://x/", "k").unwrap(),
        server.claim("w"),
        server.set(&job["id"], "cancelled", Value::Null),
        get(server.address, "/queue/list").unwrap(),
        get(server.address, "/queue/stats").unwrap(),
        get(
            server.address,
            &format!("/queue/status/{}", job["id"].as_str().unwrap()),
        )
        .unwrap(),
        get(server.address, "/ready").unwrap(),
    ] {
        check_problem(
            &answer,
            503,
            "has not heard from a majority of the nodes for 900 ms",
        );
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert_eq!(get(server.address, "/health").unwrap().status, 200);
    assert_eq!(
        get(server.address, "/queue/list?consistency=local")
            .unwrap()
            .json()["jobs"][0]["id"],
        job["id"]
    );
    assert_eq!(
        get(server.address, "/cluster").unwrap().json()["quorum"],
        false
    );
    let page = get(server.address, "/").unwrap();
    assert!(page.status == 200 && page.text().contains("has not heard from a majority"));
}

#[test]
fn an_unknown_outcome_names_the_request_and_can_be_repeated() {
    let server = Server::start();
    server.store.set_outage(Some(Outage::AnswersLost));
    let answer = new_job(server.address, "http://x/", "k").unwrap();
    check_problem(&answer, 504, "no answer came in time");
    assert_eq!(
        (
            &answer.json()["request_id"],
            answer.header("x-mvm-request-id")
        ),
        (&json!("k"), Some("k"))
    );
    server.store.set_outage(None);
    assert_eq!(
        new_job(server.address, "http://x/", "k").unwrap().status,
        201
    );
    assert_eq!(server.total(), 1);
}

#[test]
fn internal_routes_are_for_nodes_only() {
    let server = Server::start();
    let propose = |headers: &[(&str, &str)], body: &str| {
        server.send("POST", "/internal/v1/propose", headers, body.as_bytes())
    };
    let command = r#"{"version":2,"body":{"request":"r","at":1,"change":{"change":"claim","node":1,"worker":"w","slots":1,"labels":[],"kinds":[]}}}"#;
    let secret = ("x-mvm-secret", SECRET);
    let deadline = ("x-mvm-deadline-ms", "1000");
    check_problem(&propose(&[deadline], command), 403, "secret");
    check_problem(
        &propose(&[("x-mvm-secret", "wrong"), deadline], command),
        403,
        "secret",
    );
    check_problem(&propose(&[secret], command), 400, "x-mvm-deadline-ms");
    check_problem(
        &propose(
            &[secret, deadline],
            &command.replace(":2,\"body", ":9,\"body"),
        ),
        400,
        "version 2, not 9",
    );
    check_problem(
        &propose(&[secret, deadline], r#"{"version":2,"body":{}}"#),
        400,
        "missing field",
    );
    let answer = propose(&[secret, deadline], command);
    assert_eq!(
        (answer.status, &answer.json()["body"]["proposal"]),
        (200, &json!("committed"))
    );
}

/// Sends JSON to a route of the interface's first version.
fn post(server: &Server, path: &str, body: &Value) -> Answer {
    post_json(server.address, &format!("/api/v1{path}"), body).unwrap()
}

#[test]
fn a_worker_takes_what_it_can_do_and_holds_it_by_its_token() {
    let server = Server::start();
    let submit = |spec: Value| post(&server, "/jobs", &spec).json()["id"].clone();
    let low = submit(json!({"kind": "build", "payload": 1}));
    let high = submit(json!({"kind": "build", "payload": 2, "priority": 5}));
    let gpu = submit(json!({"kind": "build", "payload": 3, "labels": ["gpu"], "priority": 9}));
    let offer = json!({"worker": "w", "slots": 2, "kinds": ["build"]});
    let claims = post(&server, "/claims", &offer).json()["claims"].clone();
    let ids: Vec<&Value> = claims
        .as_array()
        .unwrap()
        .iter()
        .map(|claim| &claim["id"])
        .collect();
    assert_eq!(ids, [&high, &low], "by priority, and without the label");
    let offer = json!({"worker": "g", "labels": ["gpu", "big"]});
    let claims = post(&server, "/claims", &offer).json()["claims"].clone();
    assert_eq!((&claims[0]["id"], &claims[0]["payload"]), (&gpu, &json!(3)));

    let job = format!("/jobs/{}", low.as_str().unwrap());
    let held = json!({"token": 1});
    assert_eq!(
        post(&server, &format!("{job}/start"), &held).json()["state"],
        "in_progress"
    );
    let renewed = post(&server, &format!("{job}/renew"), &held).json();
    assert_eq!(
        (&renewed["renewals"], &renewed["cancel"]),
        (&json!(1), &json!(false))
    );
    check_problem(
        &post(&server, &format!("{job}/renew"), &json!({"token": 2})),
        409,
        "token 2 is not the one of the latest claim",
    );
    let cancelled = post(&server, &format!("{job}/cancel"), &json!({}));
    assert_eq!(
        cancelled.json()["state"],
        "in_progress",
        "its worker is to stop"
    );
    assert_eq!(
        post(&server, &format!("{job}/renew"), &held).json()["cancel"],
        true
    );
    let report = json!({"token": 1, "report": {"report": "cancelled"}});
    assert_eq!(
        post(&server, &format!("{job}/finish"), &report).json()["state"],
        "cancelled"
    );
    check_problem(
        &post(&server, &format!("{job}/finish"), &report),
        409,
        "the lease has ended: the job is cancelled",
    );
    let attempts = get(server.address, &format!("/api/v1{job}/attempts"))
        .unwrap()
        .json();
    assert_eq!(attempts["attempts"][0]["outcome"], "cancelled");
}

#[test]
fn a_failed_job_can_be_tried_again_by_hand() {
    let server = Server::start();
    let id =
        post(&server, "/jobs", &json!({"kind": "build", "payload": null})).json()["id"].clone();
    let job = format!("/jobs/{}", id.as_str().unwrap());
    check_problem(
        &post(&server, &format!("{job}/retry"), &json!({})),
        409,
        "pending cannot become",
    );
    server.claim("w");
    let failed =
        json!({"token": 1, "report": {"report": "failed", "error": "no disk", "permanent": true}});
    assert_eq!(
        post(&server, &format!("{job}/finish"), &failed).json()["state"],
        "failed"
    );
    let read = get(server.address, &format!("/api/v1{job}"))
        .unwrap()
        .json();
    assert_eq!(read["job"]["error"], "no disk");
    assert_eq!(
        post(&server, &format!("{job}/retry"), &json!({})).json()["state"],
        "pending"
    );
    assert_eq!(server.claim("w").json()["token"], 2);
}

#[test]
fn lists_are_filtered_and_jobs_wait_for_others() {
    let server = Server::start();
    let first = post(&server, "/jobs", &json!({"kind": "a", "payload": null})).json();
    let then =
        json!({"kind": "b", "payload": null, "labels": ["x"], "dependencies": [first["id"]]});
    let second = post(&server, "/jobs", &then).json();
    assert_eq!(second["waits_for"], "dependencies");
    let list = |query: &str| -> Vec<Value> {
        let path = format!("/api/v1/jobs?{query}");
        let page = get(server.address, &path).unwrap().json();
        page["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|job| job["id"].clone())
            .collect()
    };
    let (first, second) = (first["id"].clone(), second["id"].clone());
    assert_eq!(list("order=newest_first"), [second.clone(), first.clone()]);
    assert_eq!(list("label=x"), [second]);
    assert_eq!(list("state=claimed"), Vec::<Value>::new());
    assert_eq!(list("submitted_on=7").len(), 2);
    assert_eq!(list("submitted_on=8").len(), 0);
    for (spec, detail) in [
        (
            json!({"kind": "a", "payload": null, "dependencies": ["nope"]}),
            "no job nope to depend on",
        ),
        (
            json!({"kind": "a", "payload": null, "attempts_max": 0}),
            "attempts_max is 0",
        ),
        (
            json!({"kind": "a", "payload": null, "labels": ["a b"]}),
            "a label",
        ),
        (
            json!({"kind": "a", "payload": null, "prio": 1}),
            "unknown field `prio`",
        ),
    ] {
        let answer = post(&server, "/jobs", &spec);
        let status = if detail.contains("depend") { 422 } else { 400 };
        check_problem(&answer, status, detail);
    }
}
