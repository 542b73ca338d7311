//! The node dies by SIGKILL: nothing of its jobs survives, and nothing of theirs stays on disk.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::{Mark, PROGRAM, STUBBORN, wait_until};

/// A node with one stubborn job, which marks itself, because nothing of the node's environment reaches it.
fn node(mark: &Mark, subreaper: bool, temporary: &Path) -> Child {
    let script = format!("export TEST_MARK={}; exec sh -c \"$0\"", mark.value());
    let mut command = Command::new(PROGRAM);
    command.args(subreaper.then_some("--subreaper"));
    command
        .args(["sh", "-c", &script, STUBBORN])
        .env("TMPDIR", temporary)
        .stdout(Stdio::piped());
    command.spawn().unwrap()
}

fn await_ready(node: &mut Child) {
    let mut line = String::new();
    let stdout = node.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
}

#[tokio::test]
async fn nothing_survives_a_killed_node() {
    for subreaper in [false, true] {
        let (mark, temporary) = (Mark::new(), tempfile::tempdir().unwrap());
        let mut node = node(&mark, subreaper, temporary.path());
        await_ready(&mut node);
        assert!(mark.count() >= 4);
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 1);
        node.kill().unwrap();
        node.wait().unwrap();
        mark.await_nobody().await;
        let empty = || fs::read_dir(temporary.path()).unwrap().count() == 0;
        wait_until("the job's directory is removed", empty).await;
    }
}

#[tokio::test]
async fn nothing_survives_a_node_killed_at_any_moment() {
    for round in 0..20_u64 {
        let (mark, temporary) = (Mark::new(), tempfile::tempdir().unwrap());
        let mut node = node(&mark, round % 2 == 0, temporary.path());
        // Not a wait for anything: the moment is what is varied.
        tokio::time::sleep(std::time::Duration::from_millis(round * 2)).await;
        node.kill().unwrap();
        node.wait().unwrap();
        let empty = || fs::read_dir(temporary.path()).unwrap().count() == 0;
        wait_until("all is gone", || mark.count() == 0 && empty()).await;
    }
}
