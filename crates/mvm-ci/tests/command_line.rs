//! What the commands that speak to nodes say, to people and as JSON, and with which exit code. The node is real but for
//! its store, which is in this test's memory; what it streams is a script.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    process::{Command, Stdio},
    sync::Arc,
};

use axum::{Router, http::header, routing::get};
use expect_test::{Expect, expect};
use mvm_node::{
    consensus::Unavailable,
    http::App,
    store::{MemoryStore, Outage},
};
use mvm_queue::{Change, FencingToken, JobId, Report, RequestId, Stream, UnixMillis};
use serde_json::Value;

const SECRET: &str = "mvm-s3cret";

/// The program, as in a shell without settings.
fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mvm-ci"));
    for variable in ["MVM_CI_SERVER", "MVM_CI_TOKEN", "MVM_CI_LOG", "COLUMNS"] {
        command.env_remove(variable);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs it; all that it said, and the exit code.
fn said(mut command: Command) -> String {
    let output = command.output().unwrap();
    let mut text = String::from_utf8(output.stdout).unwrap();
    for line in String::from_utf8(output.stderr).unwrap().lines() {
        text += &format!("! {line}\n");
    }
    text + &format!("exit {}\n", output.status.code().unwrap())
}

/// A node whose store is in memory.
struct Node {
    store: Arc<MemoryStore>,
    url: String,
    _runtime: tokio::runtime::Runtime,
}

impl Node {
    fn start() -> Node {
        Node::streaming(String::new())
    }

    /// Streams this text as every job's output.
    fn streaming(text: String) -> Node {
        let store = Arc::new(MemoryStore::new());
        let events = move || async move { ([(header::CONTENT_TYPE, "text/event-stream")], text) };
        let router = Router::new()
            .route("/api/v1/jobs/{id}/log/events", get(events))
            .fallback_service(App::new(Arc::clone(&store), 1, "secret").router());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        listener.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
        Node {
            store,
            url,
            _runtime: runtime,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        command.env("MVM_CI_SERVER", &self.url);
        command
    }

    /// Runs a command; what differs from run to run is replaced.
    fn said(&self, arguments: &[&str]) -> String {
        said(self.command(arguments)).replace(&self.url, "NODE")
    }

    #[track_caller]
    fn check(&self, arguments: &[&str], ids: &[&str], expected: Expect) {
        let mut text = self.said(arguments);
        for (number, id) in ids.iter().enumerate() {
            // As wide, so that columns stay in line.
            text = text.replace(id, &format!("{:.<26}", format!("JOB{number}")));
        }
        // This may take some seconds on a busy machine.
        for seconds in 1..10 {
            text = text.replace(&format!("  {seconds} s  "), "  now  ");
        }
        expected.assert_eq(&without_times(&text));
    }

    fn submit(&self, arguments: &[&str]) -> String {
        let text = self.said(&[&["job", "submit"], arguments].concat());
        let id = text
            .strip_suffix("\nexit 0\n")
            .unwrap_or_else(|| panic!("{text}"));
        id.to_owned()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.said(arguments);
        serde_json::from_str(text.strip_suffix("exit 0\n").unwrap()).unwrap()
    }

    /// Makes a change, as a worker on node 1 does.
    fn change(&self, change: Change) {
        let command = mvm_queue::Command {
            request: RequestId(format!("{change:?}")),
            at: UnixMillis(1_763_916_000_000),
            change,
        };
        self.store.apply(&command);
    }

    /// Takes the first job that is ready.
    fn claim(&self, id: &str) {
        self.change(Change::Claim {
            node: 1,
            worker: "builder".into(),
            slots: 1,
            labels: [].into(),
            kinds: [].into(),
        });
        self.change(Change::Start {
            job: JobId(id.into()),
            token: FencingToken(1),
        });
    }

    fn output(&self, id: &str, number: u32, stream: Stream, text: &str) {
        self.change(Change::Log {
            job: JobId(id.into()),
            token: FencingToken(1),
            number,
            stream,
            bytes: text.into(),
        });
    }

    fn finish(&self, id: &str, report: Report) {
        self.change(Change::Finish {
            job: JobId(id.into()),
            token: FencingToken(1),
            report,
        });
    }
}

/// Times of today, however they are written.
fn without_times(text: &str) -> String {
    let word = |word: &str| match word.len() == 20 && word.ends_with('Z') && word.starts_with("20")
    {
        true => "TIME".to_owned(),
        false => word.to_owned(),
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn help_tells_every_flag() {
    let check =
        |arguments: &[&str], expected: Expect| expected.assert_eq(&said(program(arguments)));
    check(
        &["job", "--help"],
        expect![[r#"
        Submits jobs to a cluster, and tells what becomes of them

        Usage: mvm-ci job [OPTIONS] <COMMAND>

        Commands:
          submit  Submits a job, and prints its id
          list    Lists jobs, the newest first
          show    Shows a job and what was tried
          logs    Writes a job's output: what it wrote to standard output there, and to standard error there
          cancel  Cancels a job; one that runs is stopped by its worker
          retry   Tries a failed or dead job again
          wait    Waits until jobs have ended
          help    Print this message or the help of the given subcommand(s)

        Options:
          -h, --help  Print help

        Nodes:
              --server <URL>        A node to ask; with several, the next one if one is down [env:
                                    MVM_CI_SERVER] [default: http://127.0.0.1:3020]
              --token-file <FILE>   A file with the token that proves who you are [default: the variable
                                    MVM_CI_TOKEN, if set]
              --ca <FILE>           Certificates (PEM) of an authority to trust besides the system's, for
                                    https
              --timeout <DURATION>  How long to look for a node that serves a request [default: 30s]
              --json                Writes JSON to standard output

        Exit codes:
            0  done; the jobs that were waited for completed; the cluster is healthy
            1  a job that was waited for failed, was cancelled or is dead; the cluster is degraded
            2  usage: the command line, a file it names or the environment is wrong
            3  unknown: a change was sent and nobody told what became of it, or what answered is no node
            4  unreachable: no node took the request in time; nothing was changed
            5  refused: a node understood and said no
          130  interrupted: nobody waits any more, and the job goes on
        exit 0
    "#]],
    );
    check(
        &["job", "submit", "--help"],
        expect![[r#"
            Submits a job, and prints its id

            Usage: mvm-ci job submit [OPTIONS] -- COMMAND [ARGUMENT]...
                   mvm-ci job submit [OPTIONS] --script TEXT
                   mvm-ci job submit [OPTIONS] --kind KIND [--payload JSON]

            Arguments:
              [COMMAND]...  A command, run by a node

            Options:
                  --kind <KIND>              A job for workers of this kind
                  --payload <JSON|@FILE|->   What that worker is told [default: null]
                  --script <TEXT|@FILE|->    A script for /bin/sh, run by a node
                  --env <NAME=VALUE>         A variable of the command or script
                  --memory-limit <BYTES>     Memory that the command or script may use: 512M, 2G
                  --label <LABEL>            A label that the worker must offer
                  --priority <PRIORITY>      Higher goes first [default: 0]
                  --attempts <NUMBER>        How often it may fail or time out [default: 1]
                  --time-limit <DURATION>    How long one attempt may take: 90s, 10m, 1h 30m
                  --run-after <WHEN>         Not before: 10m from now, or 2027-01-31T08:00:00Z
                  --concurrency <KEY=LIMIT>  At most so many jobs of this key at once
                  --after <ID>...            Jobs that must complete first
                  --idempotency-key <KEY>    The same key is the same job: submitting it again changes nothing
                  --wait                     Waits until the job has ended; the exit code tells how
                  --follow                   Writes the job's output as it comes, until it has ended; the exit
                                             code tells how
              -h, --help                     Print help

            Nodes:
                  --server <URL>        A node to ask; with several, the next one if one is down [env:
                                        MVM_CI_SERVER] [default: http://127.0.0.1:3020]
                  --token-file <FILE>   A file with the token that proves who you are [default: the variable
                                        MVM_CI_TOKEN, if set]
                  --ca <FILE>           Certificates (PEM) of an authority to trust besides the system's, for
                                        https
                  --timeout <DURATION>  How long to look for a node that serves a request [default: 30s]
                  --json                Writes JSON to standard output

            Values written @FILE are read from that file, - from standard input.
            exit 0
        "#]],
    );
    check(
        &["job", "list", "-h"],
        expect![[r#"
        Lists jobs, the newest first

        Usage: mvm-ci job list [OPTIONS]

        Options:
              --state <STATE>        Only those in this state
              --label <LABEL>        Only those that need this label
              --submitted-on <NODE>  Only those that this node took
              --claimed-on <NODE>    Only those that a worker of this node claimed last
              --since <WHEN>         Only those submitted since: 10m ago, or 2027-01-31T08:00:00Z
              --oldest-first         Lists the oldest first
              --limit <JOBS>         At most so many [default: 50]
              --all                  All of them
          -h, --help                 Print help

        Nodes:
              --server <URL>        A node to ask; with several, the next one if one is down [env:
                                    MVM_CI_SERVER] [default: http://127.0.0.1:3020]
              --token-file <FILE>   A file with the token that proves who you are [default: the variable
                                    MVM_CI_TOKEN, if set]
              --ca <FILE>           Certificates (PEM) of an authority to trust besides the system's, for
                                    https
              --timeout <DURATION>  How long to look for a node that serves a request [default: 30s]
              --json                Writes JSON to standard output
        exit 0
    "#]],
    );
    check(
        &["cluster", "-h"],
        expect![[r#"
        Tells how a cluster is

        Usage: mvm-ci cluster [OPTIONS] <COMMAND>

        Commands:
          status  Tells of every node whether it is ready, who leads, and how far it is behind
          help    Print this message or the help of the given subcommand(s)

        Options:
          -h, --help  Print help

        Nodes:
              --server <URL>        A node to ask; with several, the next one if one is down [env:
                                    MVM_CI_SERVER] [default: http://127.0.0.1:3020]
              --token-file <FILE>   A file with the token that proves who you are [default: the variable
                                    MVM_CI_TOKEN, if set]
              --ca <FILE>           Certificates (PEM) of an authority to trust besides the system's, for
                                    https
              --timeout <DURATION>  How long to look for a node that serves a request [default: 30s]
              --json                Writes JSON to standard output

        Exit codes:
            0  done; the jobs that were waited for completed; the cluster is healthy
            1  a job that was waited for failed, was cancelled or is dead; the cluster is degraded
            2  usage: the command line, a file it names or the environment is wrong
            3  unknown: a change was sent and nobody told what became of it, or what answered is no node
            4  unreachable: no node took the request in time; nothing was changed
            5  refused: a node understood and said no
          130  interrupted: nobody waits any more, and the job goes on
        exit 0
    "#]],
    );
}

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

#[test]
fn who_stops_reading_ends_it_quietly() {
    let node = Node::start();
    node.submit(&["--kind", "k"]);
    for arguments in [
        &["job", "list"][..],
        &["job", "list", "--json"],
        &["cluster", "status"],
    ] {
        let mut command = node.command(arguments);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn a_node_that_is_down_is_passed_over() {
    let node = Node::start();
    let servers = format!("{},{}", nobody(), node.url);
    let text = said(program(&["--version"]));
    assert!(text.ends_with("exit 0\n"));
    let text = said(program(&[
        "job", "submit", "--kind", "k", "--server", &servers,
    ]));
    assert!(text.ends_with("exit 0\n"), "{text}");
    let text = said(program(&[
        "job",
        "--server",
        &nobody(),
        "--server",
        &node.url,
        "list",
    ]));
    assert!(
        text.ends_with("exit 0\n") && text.contains("pending"),
        "{text}"
    );
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    let node = Node::start();
    let down = nobody();
    let check = |text: String, code: i32, words: &[&str]| {
        assert!(text.ends_with(&format!("exit {code}\n")), "{text}");
        for word in words {
            assert!(text.contains(word), "{word:?} is not in: {text}");
        }
    };
    let quick = |arguments: &[&str]| node.said(&[arguments, &["--timeout", "300ms"]].concat());
    check(
        quick(&["job", "list", "--server", &down]),
        4,
        &[&down, "could not be connected to"],
    );
    node.store
        .set_outage(Some(Outage::Unavailable(Unavailable::NoLeader)));
    check(
        quick(&["job", "submit", "--kind", "k"]),
        4,
        &["503", "no leader"],
    );
    check(
        quick(&["cluster", "status"]),
        1,
        &["degraded: nobody leads, 0 of 1 nodes are ready"],
    );
    node.store.set_outage(Some(Outage::AnswersLost));
    check(
        quick(&["job", "submit", "--kind", "k"]),
        3,
        &["the outcome is not known", "idempotency key"],
    );
    node.store.set_outage(None);
    check(
        quick(&["job", "submit", "--kind", "k k"]),
        5,
        &["refused", "(400)"],
    );
    check(
        quick(&["job", "retry", "J9"]),
        5,
        &["there is no job J9", "hint: "],
    );
    check(quick(&["job", "submit"]), 2, &["--kind", "--script"]);
    check(
        quick(&["job", "submit", "--kind", "k", "--env", "A=b"]),
        2,
        &["--env"],
    );
    check(
        quick(&["job", "submit", "--kind", "k", "--payload", "{"]),
        2,
        &["could not read the payload"],
    );
    check(
        quick(&["job", "submit", "--script", "@/no/such/file"]),
        2,
        &["/no/such/file"],
    );
    check(
        quick(&["job", "submit", "--kind", "k", "--time-limit", "soon"]),
        2,
        &["90s"],
    );
    check(
        quick(&["job", "list", "--server", "n1:3020"]),
        2,
        &["http://"],
    );
    check(
        quick(&["job", "list", "--ca", "/etc/hostname"]),
        2,
        &["certificates"],
    );
}

#[test]
fn the_token_is_never_told() {
    let node = Node::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let file = file.to_str().unwrap();
    for (arguments, code) in [
        (&["job", "list"][..], 0),
        (&["job", "show", "J9"], 5),
        (
            &["job", "list", "--server", &nobody(), "--timeout", "200ms"],
            4,
        ),
    ] {
        let mut by_file = node.command(&[arguments, &["--token-file", file]].concat());
        by_file.env("MVM_CI_LOG", "trace");
        let mut by_variable = node.command(arguments);
        by_variable
            .env("MVM_CI_TOKEN", SECRET)
            .env("MVM_CI_LOG", "trace");
        for command in [by_file, by_variable] {
            let text = said(command);
            assert!(
                !text.contains(SECRET) && text.ends_with(&format!("exit {code}\n")),
                "{text}"
            );
        }
    }
    std::fs::write(file, format!("{SECRET} twice")).unwrap();
    let text = node.said(&["job", "list", "--token-file", file]);
    assert!(
        text.ends_with("exit 2\n") && !text.contains(SECRET),
        "{text}"
    );
}
