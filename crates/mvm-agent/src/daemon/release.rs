//! Letting go what systemd held back: it learns who the machine is, and starts everybody's services.
//!
//! systemd and the journal remember the machine id, so both begin anew. systemd does at a signal (systemd(1)), without
//! its clients, of which each would cost 100 ms under an emulator; that it has done so shows in its private socket, which
//! it makes again.

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
/// Where it goes else.
const JOURNAL_IN_MEMORY: &str = "/run/log/journal";
const MACHINE_ID: &str = "/etc/machine-id";
/// Tells the journal that it may go there.
const FLUSHED: &str = "/run/systemd/journal/flushed";
const JOURNAL_PROCESSES: &str = "/sys/fs/cgroup/system.slice/systemd-journald.service/cgroup.procs";
/// systemd executes itself again within a second even under an emulator; a loaded host may need many times that.
const RENEWAL_ALLOWED: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Returns when what was held back is queued: whoever asks systemd from now on finds it waiting, starting or started.
pub(super) fn release() -> Result<(), Failure> {
    step("begin the journal anew", renew_journal())?;
    let before = step("look for systemd", private_socket())?;
    step(
        "have systemd execute itself again",
        sys::signal_process(Pid::INIT, libc::SIGTERM),
    )?;
    let deadline = Instant::now() + RENEWAL_ALLOWED;
    while private_socket().map_or(true, |now| now == before) {
        if Instant::now() > deadline {
            let told = format!("it did not within {RENEWAL_ALLOWED:?}");
            return Err(refusal("have systemd execute itself again", told));
        }
        sleep(LOOK_INTERVAL);
    }
    step("forget what nobody logged", forget_early_journals())?;
    // It starts default.target at this signal, before it hears its clients.
    step(
        "have systemd start what was held back",
        sys::signal_process(Pid::INIT, libc::SIGRTMIN()),
    )
}

/// What tells one socket of this path from the next: number and time of its making.
fn private_socket() -> io::Result<(u64, i64, i64)> {
    let metadata = fs::metadata(PRIVATE_SOCKET)?;
    Ok((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

/// Has the journal's daemon, which systemd starts again, begin a journal of this machine on its disk.
fn renew_journal() -> io::Result<()> {
    fs::create_dir_all(JOURNAL)?;
    fs::write(FLUSHED, "")?;
    let listed = fs::read_to_string(JOURNAL_PROCESSES)?;
    let processes = listed.lines().filter_map(|line| line.parse().ok());
    for process in processes.filter_map(Pid::from_raw) {
        sys::signal_process(process, libc::SIGTERM)?;
    }
    Ok(())
}

/// Removes what was logged under another id, before the machine was anybody. The daemon that did so has ended, or is about
/// to.
fn forget_early_journals() -> io::Result<()> {
    let id = fs::read_to_string(MACHINE_ID)?;
    for folder in [JOURNAL, JOURNAL_IN_MEMORY] {
        let Ok(entries) = fs::read_dir(folder) else {
            continue;
        };
        for entry in entries.flatten() {
            if entry.file_name().to_str() != Some(id.trim()) {
                fs::remove_dir_all(entry.path())?;
            }
        }
    }
    Ok(())
}
