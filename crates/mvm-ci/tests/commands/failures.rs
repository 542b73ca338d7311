//! Nodes that are down, refuse or cannot tell; and who stops reading.

use std::process::Stdio;

use mvm_node::{consensus::Unavailable, store::Outage};

use crate::node::{Node, nobody, program, said};

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

const SECRET: &str = "mvm-s3cret";

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
