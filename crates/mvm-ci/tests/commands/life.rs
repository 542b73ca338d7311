//! Jobs from their submission to their end, as each command tells of them.

use std::{process::Stdio, sync::mpsc};

use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use expect_test::expect;
use mvm_queue::{Report, Stream};
use serde_json::Value;

use crate::node::Node;

#[test]
fn a_life_is_told() {
    let node = Node::start();
    let first = node.submit(&["--kind", "build", "--payload", "1", "--label", "linux"]);
    let second = node.submit(&["--kind", "test", "--payload", "2"]);
    let third = node.submit(&["--kind", "deploy", "--payload", "3", "--after", &second]);
    let ids = [&*first, &*second, &*third];
    let [first, second, third] = ids;
    node.claim(second);
    node.check(
        &["job", "list"],
        &ids,
        expect![[r#"
            ID                          STATE        KIND    AGE  ATTEMPTS  ABOUT
            JOB2......................  pending      deploy  now  0         waits for dependencies
            JOB1......................  in_progress  test    now  1         worker builder
            JOB0......................  pending      build   now  0         waits for worker
            exit 0
        "#]],
    );
    node.check(
        &["job", "list", "--state", "in_progress"],
        &ids,
        expect![[r#"
            ID                          STATE        KIND  AGE  ATTEMPTS  ABOUT
            JOB1......................  in_progress  test  now  1         worker builder
            exit 0
        "#]],
    );
    node.check(
        &["job", "list", "--label", "linux", "--since", "1h"],
        &ids,
        expect![[r#"
            ID                          STATE    KIND   AGE  ATTEMPTS  ABOUT
            JOB0......................  pending  build  now  0         waits for worker
            exit 0
        "#]],
    );
    node.check(
        &["job", "list", "--limit", "2", "--oldest-first"],
        &ids,
        expect![[r#"
            ID                          STATE        KIND   AGE  ATTEMPTS  ABOUT
            JOB0......................  pending      build  now  0         waits for worker
            JOB1......................  in_progress  test   now  1         worker builder
            ! mvm-ci: there are more; see --limit and --all
            exit 0
        "#]],
    );
    let lines = node.said(&["job", "list", "--all", "--json"]);
    assert_eq!(
        lines
            .lines()
            .filter(|line| line.starts_with("{\"id\":"))
            .count(),
        3,
        "{lines}"
    );
    node.check(
        &["job", "cancel", first],
        &ids,
        expect![[r#"
            JOB0...................... cancelled
            exit 0
        "#]],
    );
    node.check(
        &["job", "cancel", second],
        &ids,
        expect![[r#"
            JOB1...................... in_progress
            ! mvm-ci: its worker was asked to stop it
            exit 0
        "#]],
    );
    node.output(second, 0, Stream::Stdout, "built\n");
    node.output(second, 1, Stream::Stderr, "not quite\n");
    node.output(second, 2, Stream::Stdout, "end");
    node.check(
        &["job", "logs", second],
        &ids,
        expect![[r#"
        built
        end! not quite
        exit 0
    "#]],
    );
    node.check(&["job", "logs", second, "--json"], &ids, expect![[r#"
        {"at_ms":1763916000000,"attempt":1,"event":"chunk","number":0,"stream":"stdout","text":"built\n"}
        {"at_ms":1763916000000,"attempt":1,"event":"chunk","number":1,"stream":"stderr","text":"not quite\n"}
        {"at_ms":1763916000000,"attempt":1,"event":"chunk","number":2,"stream":"stdout","text":"end"}
        exit 0
    "#]]);
    node.check(
        &["job", "logs", third],
        &ids,
        expect![[r#"
            ! mvm-ci: job JOB2...................... has been tried 0 times
            exit 0
        "#]],
    );
    node.finish(second, Report::failed("exit\ncode 3", true));
    node.check(
        &["job", "show", second],
        &ids,
        expect![[r#"
            id              JOB1......................
            state           cancelled
            kind            test
            payload         2
            submitted       TIME on node 1
            worker          builder (node 1)
            ended           TIME
            stop requested  yes
            error           exit code 3

            ATTEMPT  OUTCOME  WORKER   NODE  CLAIMED               TOOK  OUTPUT    ERROR
            1        failed   builder  1     TIME  0 ms  19 bytes  exit code 3
            exit 0
        "#]],
    );
    node.check(
        &["job", "show", third],
        &ids,
        expect![[r#"
            id         JOB2......................
            state      pending
            kind       deploy
            payload    3
            after      JOB1......................
            waits for  dependencies
            submitted  TIME on node 1
            exit 0
        "#]],
    );
    node.check(
        &["job", "wait", second, first],
        &ids,
        expect![[r#"
            JOB1......................  cancelled  exit code 3
            JOB0......................  cancelled
            exit 1
        "#]],
    );
    node.check(&["job", "retry", first], &ids, expect![[r#"
        ! mvm-ci: NODE refused: the job cannot take this state (409): a job that is cancelled cannot become pending
        ! hint: GET /api/v1/jobs/{id} shows where it stands
        exit 5
    "#]]);
    node.check(
        &["job", "show", "J9"],
        &ids,
        expect![[r#"
        ! mvm-ci: NODE refused: there is no such job (404): there is no job J9
        ! hint: GET /api/v1/jobs shows the jobs there are
        exit 5
    "#]],
    );
    node.check(
        &["cluster", "status"],
        &ids,
        expect![[r#"
        NODE  ADDRESS         ROLE    READY  TERM  APPLIED  LAG  ABOUT
        1     127.0.0.1:3020  leader  yes    1     12       0
        healthy: node 1 leads, 1 of 1 nodes are ready
        exit 0
    "#]],
    );
}

#[test]
fn waiting_ends_with_the_job() {
    let node = Node::start();
    let id = node.submit(&["--kind", "k"]);
    let mut waits = node.command(&["job", "wait", &id, "--json"]);
    let mut waits = waits.stdout(Stdio::piped()).spawn().unwrap();
    node.claim(&id);
    node.finish(&id, Report::Succeeded { result: 7.into() });
    let event: Value = serde_json::from_reader(waits.stdout.take().unwrap()).unwrap();
    assert_eq!(
        (&event["event"], &event["job"]["result"]),
        (&"end".into(), &7.into())
    );
    assert!(waits.wait().unwrap().success());
}

/// Something between the program and its node lets no events through, or cuts them off, each time.
#[test]
fn waiting_needs_no_stream() {
    for (media_type, body) in [
        ("text/html", "not for you"),
        ("text/event-stream", ": nothing\n\n"),
    ] {
        let (asked, is_asked) = mpsc::channel();
        let answer = async move || {
            // Nobody listens any more when it is asked again.
            let _ = asked.send(());
            ([(CONTENT_TYPE, media_type)], body)
        };
        let node = Node::with(Router::new().route("/api/v1/jobs/{id}/events", get(answer)));
        let id = node.submit(&["--kind", "k"]);
        let mut waits = node
            .command(&["job", "wait", &id, "--timeout", "1s"])
            .spawn()
            .unwrap();
        is_asked.recv().unwrap();
        node.claim(&id);
        node.finish(&id, Report::Succeeded { result: 7.into() });
        assert!(waits.wait().unwrap().success(), "{media_type}");
    }
}
