//! Flags and standard input become jobs.

use std::process::Stdio;

use expect_test::expect;
use serde_json::Value;

use crate::node::Node;

#[test]
fn flags_become_the_job_that_they_say() {
    let node = Node::start();
    let first = node.submit(&["--kind", "build", "--payload", r#"{"commit": 1}"#]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("script");
    std::fs::write(&file, "make check\n").unwrap();
    let script = format!("@{}", file.display());
    let id = node.submit(&[
        "--script",
        &script,
        "--env",
        "A=b",
        "--env",
        "C=d=e",
        "--memory-limit",
        "2M",
        "--label",
        "linux,big",
        "--priority",
        "-3",
        "--attempts",
        "4",
        "--time-limit",
        "1h 30m",
        "--run-after",
        "2100-01-01T00:00:00Z",
        "--concurrency",
        "deploy=2",
        "--after",
        &first,
        "--idempotency-key",
        "nightly",
    ]);
    let mut job = node.json(&["job", "show", &id, "--json"])["job"].take();
    for varying in ["id", "created_at_ms", "updated_at_ms", "dependencies"] {
        job.as_object_mut().unwrap().remove(varying).unwrap();
    }
    expect![[r#"
        {
          "attempts": 0,
          "attempts_max": 4,
          "cancel_requested": false,
          "claimed_by": null,
          "concurrency": {
            "key": "deploy",
            "limit": 2
          },
          "failures": 0,
          "idempotency_key": "nightly",
          "kind": "process",
          "labels": [
            "big",
            "linux"
          ],
          "losses": 0,
          "payload": {
            "environment": {
              "A": "b",
              "C": "d=e"
            },
            "memory_limit_bytes": 2097152,
            "script": "make check\n"
          },
          "priority": -3,
          "run_after_ms": 4102444800000,
          "state": "pending",
          "submitted_on": 1,
          "timeout_ms": 5400000,
          "waits_for": "dependencies"
        }
    "#]]
    .assert_eq(&format!("{job:#}\n"));
    let command = node.submit(&["--", "echo", "--kind", "a b"]);
    let payload = node.json(&["job", "show", &command, "--json"])["job"]["payload"].take();
    assert_eq!(
        payload.to_string(),
        r#"{"command":["echo","--kind","a b"]}"#
    );
    let again = node.json(&[
        "job",
        "submit",
        "--kind",
        "x",
        "--idempotency-key",
        "k",
        "--json",
    ]);
    let event = node.json(&[
        "job",
        "submit",
        "--kind",
        "x",
        "--idempotency-key",
        "k",
        "--json",
    ]);
    assert_eq!(event["id"], again["id"]);
    assert_eq!(
        (&again["existing"], &event["existing"]),
        (&false.into(), &true.into())
    );
}

#[test]
fn a_payload_comes_from_standard_input() {
    let node = Node::start();
    let mut command = node.command(&["job", "submit", "--kind", "k", "--payload", "-", "--json"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"[1, 2]").unwrap();
    let event: Value = serde_json::from_reader(child.stdout.take().unwrap()).unwrap();
    assert!(child.wait().unwrap().success());
    let shown = node.json(&["job", "show", event["id"].as_str().unwrap(), "--json"]);
    assert_eq!(shown["job"]["payload"].to_string(), "[1,2]");
}
