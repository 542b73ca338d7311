//! Output while it comes, from a stream that is a script.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
};

use expect_test::expect;
use mvm_queue::Report;
use serde_json::Value;

use crate::node::Node;

#[test]
fn output_is_followed_to_its_own_place() {
    let event = |number: u32, stream: &str, text: &str| {
        let data =
            serde_json::json!({"number": number, "stream": stream, "at_ms": 1, "text": text});
        format!("id: 1:{}\nevent: chunk\ndata: {data}\n\n", number + 1)
    };
    let text =
        event(0, "stdout", "one\n") + &event(1, "stderr", "two\n") + &event(2, "stdout", "three");
    let node = Node::streaming(text + "event: end\ndata: {\"state\": \"completed\"}\n\n");
    let id = node.submit(&["--kind", "k"]);
    node.claim(&id);
    node.finish(&id, Report::Succeeded { result: 7.into() });
    let ids = [&*id];
    node.check(
        &["job", "logs", "-f", &id],
        &ids,
        expect![[r#"
            one
            three! two
            ! mvm-ci: job JOB0...................... is completed
            exit 0
        "#]],
    );
    let lines = node.said(&["job", "logs", "--follow", "--attempt", "1", &id, "--json"]);
    let (chunks, end) = lines.split_once("{\"event\":\"end\",\"job\":").unwrap();
    expect![[r#"
        {"at_ms":1,"attempt":1,"event":"chunk","number":0,"stream":"stdout","text":"one\n"}
        {"at_ms":1,"attempt":1,"event":"chunk","number":1,"stream":"stderr","text":"two\n"}
        {"at_ms":1,"attempt":1,"event":"chunk","number":2,"stream":"stdout","text":"three"}
    "#]]
    .assert_eq(chunks);
    let job: Value = serde_json::from_str(end.strip_suffix("}\nexit 0\n").unwrap()).unwrap();
    assert_eq!(
        (&job["id"], &job["result"]),
        (&Value::from(&*id), &7.into())
    );
}

#[test]
fn an_interrupt_leaves_the_job_running() {
    let event = r#"{"number": 0, "stream": "stdout", "at_ms": 1, "text": "begun\n"}"#;
    // This stream ends and is asked for again, for ever.
    let node = Node::streaming(format!("id: 1:1\nevent: chunk\ndata: {event}\n\n"));
    let mut command = node.command(&["job", "submit", "--follow", "--", "sleep", "60"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "begun\n");
    let interrupt = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(interrupt.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut told = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut told)
        .unwrap();
    let jobs = node.json(&["job", "list", "--json"]);
    assert_eq!(jobs["state"], "pending");
    let id = jobs["id"].as_str().unwrap();
    expect![[r#"
        mvm-ci: job JOB
        mvm-ci: job JOB goes on; see it by `mvm-ci job logs --follow JOB`, stop it by `mvm-ci job cancel JOB`
    "#]].assert_eq(&told.replace(id, "JOB"));
}
