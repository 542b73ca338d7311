//! What the bench's processes share: a folder on a disk, and an end in order.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

/// Longer than a node may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);

/// A new folder on a disk; `/tmp` is memory on many hosts, where syncing costs nothing.
pub(crate) fn folder(purpose: &str) -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix(&format!("mvm-ci-bench-{purpose}-"))
        .tempdir_in("/var/tmp")
        .unwrap()
}

/// Asks a process to stop, and waits until it has.
pub(crate) async fn stop(process: &mut Child, signal: Signal) {
    let pid = process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    kill_process(pid.unwrap(), signal).unwrap();
    let ended = tokio::time::timeout(STOP_TIMEOUT, process.wait()).await;
    ended.expect("it did not stop").unwrap();
}
