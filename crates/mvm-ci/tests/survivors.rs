//! A runner that is killed, or interrupted, leaves nothing behind but its run folder.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use mvm_machine::cache::Cache;

/// The watcher promises 2 s; a loaded host gets more.
const CLEAN_ALLOWED: Duration = Duration::from_secs(20);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

struct Run {
    child: Child,
    temporary: tempfile::TempDir,
    /// Read to its end so that the runner never waits for us.
    output: BufReader<std::process::ChildStdout>,
}

impl Run {
    /// Starts a scenario with a temporary folder of its own, and waits until its machines are up.
    fn started() -> Run {
        let temporary = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_mvm-ci"))
            .args(["test", "simple-network", "--runs"])
            .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("runs"))
            .env("TMPDIR", temporary.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("agent up") {
            line.clear();
            assert_ne!(
                output.read_line(&mut line).unwrap(),
                0,
                "the runner ended before a machine was up"
            );
        }
        let run = Run {
            child,
            temporary,
            output,
        };
        assert!(!run.survivors().is_empty(), "a running lab has processes");
        run
    }

    /// Counts what belongs to the run: processes whose environment names its temporary folder, as QEMU's
    /// does, files in that folder, and files among the running machines'.
    fn survivors(&self) -> Vec<PathBuf> {
        let mark = format!("TMPDIR={}", self.temporary.path().display()).into_bytes();
        let belongs = |process: &PathBuf| {
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == mark.as_slice())
        };
        let processes = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .filter(belongs);
        let entries = |folder: &Path| {
            let listed = fs::read_dir(folder).into_iter().flatten().flatten();
            listed.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        // Memory and disks of running machines lie beside the cache, under the runner's number.
        let ours = format!("mvm-ci-{}-", self.child.id());
        let running = Cache::for_user().unwrap().root().join("running");
        let is_ours = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&ours)
        };
        processes
            .chain(entries(self.temporary.path()))
            .chain(entries(&running).into_iter().filter(is_ours))
            .collect()
    }

    #[track_caller]
    fn expect_clean(&self) {
        let deadline = Instant::now() + CLEAN_ALLOWED;
        loop {
            let survivors = self.survivors();
            if survivors.is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "these survived the runner: {survivors:?}"
            );
            sleep(LOOK_INTERVAL);
        }
    }

    fn drain(&mut self) {
        let mut line = String::new();
        while self
            .output
            .read_line(&mut line)
            .is_ok_and(|count| count > 0)
        {
            line.clear();
        }
    }
}

#[test]
fn nothing_survives_a_killed_runner() {
    let mut run = Run::started();
    run.child.kill().unwrap();
    run.child.wait().unwrap();
    run.expect_clean();
}

#[test]
fn nothing_survives_an_interrupted_runner() {
    let mut run = Run::started();
    let pid = run.child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    run.drain();
    assert_eq!(run.child.wait().unwrap().code(), Some(130));
    run.expect_clean();
}
