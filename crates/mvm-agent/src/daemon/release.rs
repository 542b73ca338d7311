//! Letting go what systemd held back, once the machine is somebody.
//!
//! systemd and the journal's daemon remember the machine id. The daemon begins anew when services are let go ([`release`]).
//! systemd executes itself again before a machine is anybody ([`renew`]), and has not asked for an id since then; it does so
//! once more where the machine brings units or settings of its own.
//!
//! Both are told by signals (systemd(1)): each client of systemd would cost 100 ms under an emulator.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::identity::step;
use super::sys;
use super::work::refusal;
use crate::protocol::Failure;

/// Where systemd hears its clients.
const PRIVATE_SOCKET: &str = "/run/systemd/private";
/// Where the journal goes, if this is there.
const JOURNAL: &str = "/var/log/journal";
/// Tells the journal's daemon that it may go there.
const FLUSHED: &str = "/run/systemd/journal/flushed";
const JOURNAL_PROCESSES: &str = "/sys/fs/cgroup/system.slice/systemd-journald.service/cgroup.procs";
/// systemd executes itself again within a second even under an emulator; a loaded host may need many times that.
const RENEWAL_ALLOWED: Duration = Duration::from_secs(60);
/// The journal's daemon ends within 100 ms.
const END_ALLOWED: Duration = Duration::from_secs(20);
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// Has systemd execute itself again, and returns when it hears its clients again.
pub(super) fn renew() -> Result<(), Failure> {
    let operation = "have systemd execute itself again";
    let before = step(operation, private_socket())?;
    step(operation, sys::signal_process(Pid::INIT, libc::SIGTERM))?;
    wait(operation, RENEWAL_ALLOWED, || {
        private_socket().is_ok_and(|now| now != before)
    })
}

/// Returns when what was held back is queued: whoever asks systemd from now on finds it waiting, starting or started.
pub(super) fn release() -> Result<(), Failure> {
    let operation = "begin the journal anew";
    let before = step(operation, journal_processes())?;
    for process in &before {
        step(operation, sys::signal_process(*process, libc::SIGTERM))?;
    }
    // With a place on the disk it would begin one there under the id that it remembers.
    wait(operation, END_ALLOWED, || {
        journal_processes().is_ok_and(|now| before.iter().all(|process| !now.contains(process)))
    })?;
    step(operation, fs::create_dir_all(JOURNAL))?;
    step(operation, fs::write(FLUSHED, ""))?;
    // It starts default.target at this signal, before it hears its clients, and the journal's daemon with it.
    step(
        "have systemd start what was held back",
        sys::signal_process(Pid::INIT, libc::SIGRTMIN()),
    )
}

fn wait(operation: &str, allowed: Duration, is_done: impl Fn() -> bool) -> Result<(), Failure> {
    let deadline = Instant::now() + allowed;
    while !is_done() {
        if Instant::now() > deadline {
            return Err(refusal(
                operation,
                format!("that took more than {allowed:?}"),
            ));
        }
        sleep(LOOK_INTERVAL);
    }
    Ok(())
}

/// What tells one socket of this path from the next: number and time of its making.
fn private_socket() -> io::Result<(u64, i64, i64)> {
    let metadata = fs::metadata(PRIVATE_SOCKET)?;
    Ok((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

fn journal_processes() -> io::Result<Vec<Pid>> {
    let listed = fs::read_to_string(JOURNAL_PROCESSES)?;
    let processes = listed.lines().filter_map(|line| line.parse().ok());
    Ok(processes.filter_map(Pid::from_raw).collect())
}
