//! Bodies that become jobs, and many that do not.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
};

use mvm_node::http::BODY_BYTES_MAX;
use serde_json::json;

use super::{FORM, JSON, Server, check_problem};
use crate::support::{get, request};

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
