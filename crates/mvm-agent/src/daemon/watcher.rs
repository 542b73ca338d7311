//! The watcher: on the host, cleans up after a runner that died without doing so.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process, setsid};

use super::sys;
use crate::watch::{LINE_BYTES_MAX, Order, ProcessId};

/// Takes orders from an inherited pipe until its writers are gone, then carries out what is left: kills the
/// processes that are still the same, and removes the paths.
///
/// # Errors
///
/// When the descriptor is not open.
pub fn watch(number: i32) -> io::Result<()> {
    // Fails only for a session leader, which is what is wanted.
    let _ = setsid();
    let pipe: OwnedFd = sys::adopt(number)?;
    let mut orders = BufReader::new(File::from(pipe));
    let (mut processes, mut paths) = (Vec::<ProcessId>::new(), Vec::<PathBuf>::new());
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut orders)
            .take(LINE_BYTES_MAX as u64 + 1)
            .read_until(b'\n', &mut line);
        if !matches!(read, Ok(1..)) || line.pop() != Some(b'\n') {
            break;
        }
        match Order::parse(&line) {
            Some(Order::Process(process)) => processes.push(process),
            Some(Order::ForgetProcess(pid)) => processes.retain(|process| process.pid != pid),
            Some(Order::Path(path)) => paths.push(path),
            Some(Order::ForgetPath(path)) => paths.retain(|known| *known != path),
            Some(Order::Done) => return Ok(()),
            None => {}
        }
    }
    processes.iter().for_each(kill);
    paths.iter().rev().for_each(|path| remove(path));
    Ok(())
}

/// Kills a process unless its number has passed to another.
fn kill(process: &ProcessId) {
    let same = ProcessId::of(process.pid).is_ok_and(|current| current == *process);
    if let Some(pid) = Pid::from_raw(process.pid).filter(|_| same) {
        // It may end by itself just now.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Removes a file or a tree; nobody is left to be told of a failure.
fn remove(path: &Path) {
    let is_tree = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    let _ = if is_tree {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
}
