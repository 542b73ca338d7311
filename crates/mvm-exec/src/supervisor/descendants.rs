//! Kills every descendant of this process, for hosts without PID namespaces.
//!
//! The process is a subreaper: who loses its parent becomes its child, so none can leave the tree by forking
//! twice or by beginning a session. Killing goes on until no child is left.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process};

/// How long to go on with those who may not be killed: programs that took another user's rights.
const UNKILLABLE_AFTER: Duration = Duration::from_secs(10);

/// Kills and reaps all descendants. Gives up only on those the kernel does not let us kill.
pub(super) fn kill_all() {
    let begin = Instant::now();
    loop {
        let mut refused = false;
        for pid in descendants(getpid()) {
            refused |= kill_process(pid, Signal::KILL) == Err(rustix::io::Errno::PERM);
        }
        if !reap_all() || refused && begin.elapsed() > UNKILLABLE_AFTER {
            return;
        }
        // A killed process takes a moment to end; who was forked meanwhile is found in the next round.
        thread::sleep(Duration::from_millis(1));
    }
}

/// Reaps whoever has ended and returns whether anybody is left.
fn reap_all() -> bool {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// Lists the descendants of `root`, zombies included, parents first.
fn descendants(root: Pid) -> Vec<Pid> {
    let children = children_by_parent();
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut pending = vec![root.as_raw_nonzero().get()];
    while let Some(parent) = pending.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            // Numbers are reused while we read; a cycle must not hold us.
            if seen.insert(*child) {
                pending.push(*child);
                found.extend(Pid::from_raw(*child));
            }
        }
    }
    found
}

fn children_by_parent() -> HashMap<i32, Vec<i32>> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some((pid, parent)) = pid.and_then(|pid| Some((pid, parent_of(pid)?))) {
            children.entry(parent).or_default().push(pid);
        }
    }
    children
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may itself contain anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(1)?.parse().ok()
}
