//! The watcher cleans up after a runner that is gone, and touches nothing else.

#![cfg(feature = "daemon")]
// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

use std::{
    io::Write,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
};

use mvm_agent::watch::{Order, ProcessId};

/// Starts a watcher, gives it orders, and closes the pipe as a killed runner does.
#[track_caller]
fn watch(lines: &[Vec<u8>]) {
    let mut watcher = Command::new(env!("CARGO_BIN_EXE_mvm-agent"))
        .args(["watch", "--fd", "0"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = watcher.stdin.take().unwrap();
    for line in lines {
        pipe.write_all(line).unwrap();
    }
    drop(pipe);
    assert!(watcher.wait().unwrap().success());
}

struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().unwrap())
    }

    fn id(&self) -> ProcessId {
        ProcessId::of(i32::try_from(self.0.id()).unwrap()).unwrap()
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_is_left_is_killed_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    std::fs::create_dir_all(tree.join("deep")).unwrap();
    std::fs::write(tree.join("deep/file"), "x").unwrap();
    let kept = folder.path().join("kept");
    std::fs::write(&kept, "x").unwrap();
    let outside = folder.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&outside, &link).unwrap();
    let mut victim = Sleeper::start();
    let mut forgotten = Sleeper::start();

    watch(&[
        Order::Process(victim.id()).to_line(),
        Order::Process(forgotten.id()).to_line(),
        Order::path(&tree).unwrap().to_line(),
        Order::path(&kept).unwrap().to_line(),
        Order::path(&link).unwrap().to_line(),
        b"nonsense\n".to_vec(),
        Order::ForgetProcess(forgotten.id().pid).to_line(),
        Order::ForgetPath(kept.clone()).to_line(),
    ]);

    assert_eq!(victim.0.wait().unwrap().signal(), Some(9));
    assert!(forgotten.runs());
    assert!(!tree.exists());
    assert!(kept.exists());
    assert!(!link.is_symlink(), "the link itself was ordered away");
    assert!(outside.exists(), "and nothing that it points to");
}

#[test]
fn a_number_that_passed_to_another_process_is_left_alone() {
    let mut other = Sleeper::start();
    let mut recycled = other.id();
    recycled.start_time -= 1;
    watch(&[Order::Process(recycled).to_line()]);
    assert!(other.runs());
}

#[test]
fn a_runner_that_is_done_has_nothing_cleaned_up() {
    let mut process = Sleeper::start();
    watch(&[
        Order::Process(process.id()).to_line(),
        Order::Done.to_line(),
    ]);
    assert!(process.runs());
}

#[test]
fn half_an_order_is_none() {
    let mut process = Sleeper::start();
    let mut line = Order::Process(process.id()).to_line();
    line.pop();
    watch(&[line]);
    assert!(process.runs());
}
