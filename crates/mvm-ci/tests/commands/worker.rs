//! A node that runs jobs on its host: by HTTP and by commands.
//!
//! What a green run does not prove: isolation from hostile jobs, which is not promised.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::served::{Served, runs};

#[test]
fn jobs_run_are_told_of_and_leave_nothing() {
    let mut node = Served::start();

    let done = node.submit(&json!({
        "kind": "process",
        "labels": ["linux"],
        "payload": {
            "script": "echo $WHO ${#KEY}; printf 'by hus'; sleep 0.2; echo h-hush; echo $KEY trouble >&2",
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
        ("me 9\nby ***\n".into(), "*** trouble\n".into()),
        "nor does their output, also when it comes in two"
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

    a_gigabyte(&node);

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

/// What a job writes beyond all limits: the store and the disk have their parts, and both say what is left out.
fn a_gigabyte(node: &Served) {
    const WRITTEN: u64 = 1 << 30;
    const STORE_MAX: usize = 1 << 20;
    const DISK_MAX: u64 = 32 << 20;
    let id = node.script(&format!("head -c {WRITTEN} /dev/zero"));
    node.wait_for(&id, "completed");
    let told = node.log(&id, 1, "stdout");
    assert!(
        told.len() <= STORE_MAX && told.contains("bytes are left out here; all of it: "),
        "{} bytes",
        told.len()
    );
    let (_, attempts) = node
        .ask("GET", &format!("/api/v1/jobs/{id}/attempts"), &Value::Null)
        .unwrap();
    let stored = attempts["attempts"][0]["log_bytes"].as_u64().unwrap();
    assert!(stored <= STORE_MAX as u64, "{stored}");
    let folder = node.folder.as_ref().unwrap().path();
    let disk = std::fs::read(folder.join(format!("data/outputs/{id}/1/stdout"))).unwrap();
    let remark = format!("\n[{} bytes are left out here]\n", WRITTEN - DISK_MAX);
    assert_eq!(disk.len() as u64, DISK_MAX + remark.len() as u64);
    let said = disk
        .windows(remark.len())
        .any(|part| part == remark.as_bytes());
    assert!(said, "{remark}");
}

#[test]
fn a_worker_drains_and_gives_back() {
    let mut node = Served::start();
    let drain = |node: &Served, draining: bool| {
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
    let node = Served::start_in(node.folder.take().unwrap());
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
    let node = Served::start();
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
    let node = Served::start();
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
