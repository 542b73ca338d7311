//! A process that is killed while it freezes a machine leaves neither the machine nor an unfinished snapshot.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use mvm_machine::{
    cache::Cache,
    snapshot::{SNAPSHOTS, Snapshot},
};
use support::{BOOT_ALLOWED, Host};

/// Says in the environment of this program, started again, that it is the one to be killed.
const VICTIM: &str = "MVM_TEST_VICTIM";
/// The watcher promises 2 s; a loaded host gets more.
const CLEAN_ALLOWED: Duration = Duration::from_secs(20);
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

#[track_caller]
fn wait_until(what: &str, allowed: Duration, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + allowed;
    while !holds() {
        assert!(Instant::now() < deadline, "not in {allowed:?}: {what}");
        sleep(LOOK_INTERVAL);
    }
}

/// Freezes a machine that nobody else has, and is killed meanwhile.
async fn freeze() {
    let host = Host::new();
    let mut spec = host.spec(|image| image);
    spec.kernel_parameters
        .push(format!("mvm.test={}", std::process::id()));
    let (snapshot, _) = Snapshot::obtain(&host.cache, &spec, BOOT_ALLOWED)
        .await
        .unwrap();
    // It came through, and nobody wants what it made.
    snapshot.discard(&host.cache);
}

/// What the process makes in the cache.
fn unfinished(cache: &Cache, pid: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache.root().join(SNAPSHOTS.name));
    let entries = entries.into_iter().flatten().flatten();
    let ours = format!("-{pid}");
    entries
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(".unfinished-") && name.ends_with(&ours)
        })
        .collect()
}

/// Whether a process was started with this folder in its arguments.
fn used(folder: &Path) -> bool {
    let folder = folder.to_string_lossy().into_owned();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains(&folder))
}

#[tokio::test]
async fn a_process_killed_while_it_freezes_leaves_nothing() {
    if std::env::var_os(VICTIM).is_some() {
        return freeze().await;
    }
    let cache = Cache::for_user().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_process_killed_while_it_freezes_leaves_nothing",
        ])
        .env(VICTIM, "1")
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = victim.id();
    wait_until("a machine is being frozen", BOOT_ALLOWED, || {
        unfinished(&cache, pid).iter().any(|folder| used(folder))
    });
    let folder = unfinished(&cache, pid).remove(0);
    victim.kill().unwrap();
    victim.wait().unwrap();
    wait_until("the unfinished snapshot is gone", CLEAN_ALLOWED, || {
        unfinished(&cache, pid).is_empty()
    });
    wait_until("its machine is gone", CLEAN_ALLOWED, || !used(&folder));
}
