//! A node that runs jobs on its host, as a user meets it: `mvm-ci serve --slots`, and HTTP.
//!
//! What a green run does not prove: isolation from hostile jobs, which is not promised.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// Only a hang takes this long.
const ALLOWED: Duration = Duration::from_secs(60);

struct Node {
    process: Child,
    port: u16,
    folder: Option<tempfile::TempDir>,
}

impl Node {
    fn start() -> Node {
        Node::start_in(tempfile::tempdir().unwrap())
    }

    fn start_in(folder: tempfile::TempDir) -> Node {
        let [http, raft, store] = free_ports();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_mvm-ci"))
            .args(["serve", "--slots", "2"])
            .arg("--members")
            .arg(format!("1=127.0.0.1:{http}:{raft}:{store}"))
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .env("MVM_CI_SECRET_RAFT", "raft-secret-for-tests")
            .env("MVM_CI_LABELS", "linux,big")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let node = Node {
            process,
            port: http,
            folder: Some(folder),
        };
        node.wait("the node is ready", || {
            match node.ask("GET", "/ready", &Value::Null) {
                Some((200, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        node
    }

    /// Sends a request; nothing if nobody answers.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        let (status, body) = self.ask_for_text(method, path, body)?;
        Some((status, serde_json::from_str(&body).unwrap_or(Value::Null)))
    }

    fn ask_for_text(&self, method: &str, path: &str, body: &Value) -> Option<(u16, String)> {
        let body = body.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    fn submit(&self, spec: &Value) -> String {
        let (status, job) = self.ask("POST", "/api/v1/jobs", spec).unwrap();
        assert_eq!(status, 201, "{job}");
        job["id"].as_str().unwrap().to_owned()
    }

    fn script(&self, script: &str) -> String {
        self.submit(&json!({"kind": "process", "payload": {"script": script}}))
    }

    /// Runs a command of the program against this node: exit code, standard output and error.
    fn command(&self, arguments: &[&str]) -> (i32, String, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = Command::new(env!("CARGO_BIN_EXE_mvm-ci"))
            .args(arguments)
            .env("MVM_CI_SERVER", format!("http://127.0.0.1:{}", self.port))
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    fn job(&self, id: &str) -> Value {
        let (_, answer) = self
            .ask("GET", &format!("/api/v1/jobs/{id}"), &Value::Null)
            .unwrap();
        answer["job"].clone()
    }

    /// Waits until a job is in a state; returns it.
    #[track_caller]
    fn wait_for(&self, id: &str, state: &str) -> Value {
        self.wait(state, || {
            let job = self.job(id);
            if job["state"] == state {
                Ok(job)
            } else {
                Err(job.to_string())
            }
        })
    }

    #[track_caller]
    fn wait<T>(&self, what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
        let began = Instant::now();
        loop {
            let seen = match probe() {
                Ok(found) => return found,
                Err(seen) => seen,
            };
            let log = || {
                let folder = self.folder.as_ref().unwrap();
                std::fs::read_to_string(folder.path().join("log")).unwrap_or_default()
            };
            assert!(began.elapsed() < ALLOWED, "{what}: {seen}\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self, id: &str, attempt: i64, stream: &str) -> String {
        let path = format!("/api/v1/jobs/{id}/log?attempt={attempt}");
        let (_, answer) = self.ask("GET", &path, &Value::Null).unwrap();
        let chunks = answer["chunks"].as_array().unwrap().iter();
        chunks
            .filter(|chunk| chunk["stream"] == stream)
            .map(|chunk| chunk["text"].as_str().unwrap())
            .collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Ports that nobody listens on now.
fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// Whether a process runs that was given this argument.
fn runs(argument: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines =
        processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| {
        line.split(|byte| *byte == 0)
            .any(|word| word == argument.as_bytes())
    })
}

#[test]
fn jobs_run_are_told_of_and_leave_nothing() {
    let mut node = Node::start();

    let done = node.submit(&json!({
        "kind": "process",
        "labels": ["linux"],
        "payload": {
            "script": "echo $WHO ${#KEY}; echo trouble >&2",
            "environment": {"WHO": "me"},
            "secret_environment": {"KEY": "hush-hush"},
        },
    }));
    let job = node.wait_for(&done, "completed");
    assert_eq!(
        (&job["claimed_by"], &job["result"]["exit_code"]),
        (&json!("node1"), &json!(0))
    );
    assert_eq!(
        (node.log(&done, 1, "stdout"), node.log(&done, 1, "stderr")),
        ("me 9\n".into(), "trouble\n".into())
    );
    assert_eq!(
        job["payload"]["secret_environment"],
        json!({"KEY": "***"}),
        "jobs do not tell secrets"
    );

    let failed = node.wait_for(&node.script("exit 3"), "failed");
    assert!(failed["error"].as_str().unwrap().contains('3'), "{failed}");
    let missing = json!({"kind": "process", "payload": {"command": ["no-such-program-here"]}});
    let missing = node.wait_for(&node.submit(&missing), "failed");
    assert!(
        missing["error"]
            .as_str()
            .unwrap()
            .contains("no-such-program-here"),
        "{missing}"
    );
    let late =
        json!({"kind": "process", "timeout_ms": 200, "payload": {"command": ["sleep", "71.25"]}});
    node.wait_for(&node.submit(&late), "failed");
    assert!(!runs("71.25"));
    let twice = json!({
        "kind": "process", "attempts_max": 2, "backoff": {"base_ms": 50, "max_ms": 50},
        "payload": {"script": "exit 1"},
    });
    let twice = node.wait_for(&node.submit(&twice), "dead");
    assert_eq!(twice["attempts"], 2);

    let flood = node.script("head -c 3000000 /dev/zero | tr '\\0' x; echo the end");
    node.wait_for(&flood, "completed");
    let told = node.log(&flood, 1, "stdout");
    let place = format!("/api/v1/jobs/{flood}/attempts/1/stdout");
    assert!(told.contains(&format!("bytes are left out here; all of it: {place}]")));
    assert!(told.ends_with("the end\n"));
    let (status, whole) = node.ask_for_text("GET", &place, &Value::Null).unwrap();
    assert_eq!(status, 200);
    // In chunks, between which are their lengths.
    assert_eq!(whole.matches('x').count(), 3_000_000);
    assert!(whole.contains("the end\n"));
    let (status, _) = node
        .ask("GET", &place.replace(&flood, &done), &Value::Null)
        .unwrap();
    assert_eq!(status, 404, "all of that is in the log");

    let url = format!("http://127.0.0.1:{}/health", node.port);
    let fetched = node.submit(&json!({"kind": "fetch", "payload": {"url": url}}));
    let fetched = node.wait_for(&fetched, "completed");
    assert_eq!(fetched["result"]["status"], 200, "{fetched}");

    let long = node.script("setsid sleep 72.25 & sleep 73.25");
    node.wait_for(&long, "in_progress");
    node.wait("both sleep", || {
        if runs("72.25") && runs("73.25") {
            Ok(())
        } else {
            Err(String::new())
        }
    });
    let (_, cancelled) = node
        .ask("POST", &format!("/api/v1/jobs/{long}/cancel"), &json!({}))
        .unwrap();
    assert_eq!(cancelled["state"], "in_progress", "its worker stops it");
    node.wait_for(&long, "cancelled");
    assert!(
        !runs("72.25") && !runs("73.25"),
        "something survived its job"
    );

    let (status, problem) = node
        .ask(
            "POST",
            "/api/v1/jobs",
            &json!({"kind": "process", "payload": {"comand": []}}),
        )
        .unwrap();
    assert_eq!(status, 400, "{problem}");
    let unmet = node
        .submit(&json!({"kind": "process", "labels": ["gpu"], "payload": {"command": ["true"]}}));

    let last = node.script("setsid sleep 74.25 & sleep 75.25");
    node.wait_for(&last, "in_progress");
    node.wait("both sleep", || {
        if runs("74.25") && runs("75.25") {
            Ok(())
        } else {
            Err(String::new())
        }
    });
    assert_eq!(
        node.job(&unmet)["state"],
        "pending",
        "nobody offers that label"
    );
    node.process.kill().unwrap();
    node.process.wait().unwrap();
    node.wait("nothing survives the node", || {
        if runs("74.25") || runs("75.25") {
            Err("they sleep".into())
        } else {
            Ok(())
        }
    });
}

#[test]
fn a_worker_drains_and_gives_back() {
    let mut node = Node::start();
    let drain = |node: &Node, draining: bool| {
        let (status, worker) = node
            .ask(
                "POST",
                "/api/v1/node/drain",
                &json!({ "draining": draining }),
            )
            .unwrap();
        assert_eq!((status, &worker["draining"]), (200, &json!(draining)));
        worker
    };

    let running = node.script("while test ! -e go; do sleep 0.05; done");
    let script = "sleep 77.25";
    let endless = node.script(script);
    node.wait_for(&running, "in_progress");
    node.wait_for(&endless, "in_progress");
    let cancel = format!("/api/v1/jobs/{running}/cancel");
    assert_eq!(drain(&node, true)["busy"], 2);
    let later = node.script("true");
    node.ask("POST", &cancel, &json!({})).unwrap();
    node.wait_for(&running, "cancelled");
    // A slot is free, and the worker is awake, since the replica has applied the end.
    node.wait("one slot is busy", || {
        match node.ask("GET", "/api/v1/node", &Value::Null) {
            Some((200, worker)) if worker["busy"] == 1 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(node.job(&later)["state"], "pending", "it is draining");
    drain(&node, false);
    node.wait_for(&later, "completed");

    Command::new("kill")
        .arg(node.process.id().to_string())
        .status()
        .unwrap();
    assert!(node.process.wait().unwrap().success());
    assert!(!runs("77.25"), "the job ended with its node");
    let node = Node::start_in(node.folder.take().unwrap());
    let path = format!("/api/v1/jobs/{endless}/attempts");
    let (_, answer) = node.ask("GET", &path, &Value::Null).unwrap();
    let first = &answer["attempts"][0];
    assert_eq!(
        (&first["outcome"], &first["error"]),
        (&json!("lost"), &json!("the worker gave the job back")),
        "{answer}"
    );
}

#[test]
fn jobs_are_run_and_told_of_by_commands() {
    let node = Node::start();
    let id_of = |output: &str| output.split_whitespace().next().unwrap().to_owned();

    let script = "echo $WHO; echo trouble >&2";
    let submit = [
        "job", "submit", "--wait", "--env", "WHO=me", "--label", "linux",
    ];
    let (code, output, told) = node.command(&[&submit[..], &["--script", script]].concat());
    assert_eq!(code, 0, "{output}{told}");
    let id = id_of(&output);
    assert_eq!(
        node.command(&["job", "logs", &id]),
        (0, "me\n".into(), "trouble\n".into())
    );
    let (_, shown, _) = node.command(&["job", "show", &id, "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (&shown["job"]["state"], &shown["attempts"][0]["outcome"]),
        (&json!("completed"), &json!("succeeded"))
    );

    let (code, output, _) = node.command(&["job", "submit", "--wait", "--", "sh", "-c", "exit 3"]);
    let failed = id_of(&output);
    assert!(code == 1 && output.contains("failed"), "{code} {output}");
    let (_, listed, _) = node.command(&["job", "list", "--state", "failed"]);
    assert!(
        listed.contains(&failed) && !listed.contains(&id),
        "{listed}"
    );
    let (code, output, _) = node.command(&["job", "retry", &failed]);
    assert_eq!((code, output), (0, format!("{failed} pending\n")));
    assert_eq!(node.command(&["job", "wait", &id, &failed]).0, 1);
    assert_eq!(node.job(&failed)["attempts"], 2);

    // Another run on this host, at this moment, sleeps for another time.
    let time = format!("76.{}", std::process::id());
    let (_, output, _) = node.command(&["job", "submit", "--", "sleep", &time]);
    let long = id_of(&output);
    node.wait_for(&long, "in_progress");
    let (code, _, told) = node.command(&["job", "cancel", &long]);
    assert!(code == 0 && told.contains("asked to stop"), "{code} {told}");
    let (code, output, _) = node.command(&["job", "wait", &long]);
    assert!(code == 1 && output.contains("cancelled"), "{code} {output}");
    assert!(!runs(&time));

    let (code, output, _) = node.command(&["cluster", "status"]);
    assert!(
        code == 0 && output.contains("healthy: node 1 leads"),
        "{code} {output}"
    );
}

#[test]
fn output_is_followed_while_it_comes() {
    let node = Node::start();
    // The job ends when this file is there, which is not before its first line was seen.
    let seen = node.folder.as_ref().unwrap().path().join("seen");
    let script = format!(
        "echo begun; echo trouble >&2; until [ -e {} ]; do sleep 0.02; done; echo over; exit 3",
        seen.display()
    );
    let mut follows = Command::new(env!("CARGO_BIN_EXE_mvm-ci"))
        .args(["job", "submit", "--follow", "--script", &script])
        .env("MVM_CI_SERVER", format!("http://127.0.0.1:{}", node.port))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(follows.stdout.take().unwrap());
    let mut first = String::new();
    output.read_line(&mut first).unwrap();
    assert_eq!(first, "begun\n");
    std::fs::write(&seen, "").unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    let mut told = String::new();
    let mut errors = follows.stderr.take().unwrap();
    errors.read_to_string(&mut told).unwrap();
    assert_eq!(rest, "over\n", "{told}");
    assert_eq!(follows.wait().unwrap().code(), Some(1), "{told}");
    assert!(
        told.contains("trouble\n") && told.contains("is failed"),
        "{told}"
    );

    let (_, listed, _) = node.command(&["job", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let again = node.command(&["job", "logs", "-f", listed["id"].as_str().unwrap()]);
    assert_eq!((again.0, &*again.1), (1, "begun\nover\n"), "{}", again.2);
}
