//! Servers as processes: a folder on a disk, free ports, a start that is awaited and an end in order.

use std::{
    net::{Ipv4Addr, TcpListener},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

use crate::http::Http;

/// hiqlite waits for seconds at several points while it forms.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
const POLL_PERIOD: Duration = Duration::from_millis(50);
/// Longer than a node may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);

/// A new folder on a disk; `/tmp` is memory on many hosts, where syncing costs nothing.
pub(crate) fn folder(purpose: &str) -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix(&format!("mvm-ci-bench-{purpose}-"))
        .tempdir_in("/var/tmp")
        .unwrap()
}

/// Ports on loopback where nobody listens.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    // All are held until all are known.
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
        .collect();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    listeners.iter().map(port).collect()
}

/// Waits until a path of a server is there.
pub(crate) async fn wait_until_ready(process: &mut Child, port: u16, path: &str) {
    let start = Instant::now();
    loop {
        if let Some(mut http) = Http::connect(port).await
            && http.get(path).await.0.is_success()
        {
            return;
        }
        if let Some(status) = process.try_wait().unwrap() {
            panic!("a server ended: {status}");
        }
        assert!(start.elapsed() < READY_TIMEOUT, "a server is not ready");
        tokio::time::sleep(POLL_PERIOD).await;
    }
}

/// The resident set of a process, and the part of it that is not mapped files, in MiB.
pub(crate) fn memory(process: &Child) -> (f64, f64) {
    let pid = process.id().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024.0
    };
    (field("VmRSS:"), field("RssAnon:"))
}

/// Asks a process to stop, and waits until it has.
pub(crate) async fn stop(process: &mut Child, signal: Signal) {
    let pid = process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    kill_process(pid.unwrap(), signal).unwrap();
    let ended = tokio::time::timeout(STOP_TIMEOUT, process.wait()).await;
    ended.expect("it did not stop").unwrap();
}
