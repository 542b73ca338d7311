//! Kills every descendant of this process, for hosts without PID namespaces.
//!
//! The process is a subreaper: who loses its parent becomes its child, so none can leave the tree by forking
//! twice or by beginning a session. Killing goes on until no child is left. Children are killed by number,
//! which is theirs until we reap them; deeper descendants by handle, looked at again, since their parents may
//! reap them at any time.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, pidfd_open, pidfd_send_signal,
};

/// How long to go on with those who may not be killed: programs that took another user's rights.
const UNKILLABLE_AFTER: Duration = Duration::from_secs(10);
/// How often the children are killed between two walks through all of `/proc`. Who changes its number by
/// forking and ending is always a child of ours soon, and only caught by looking often.
const ROUNDS_PER_WALK: u32 = 50;

/// Kills and reaps all descendants. Gives up only on those the kernel does not let us kill.
pub(super) fn kill_all() {
    let begin = Instant::now();
    loop {
        let mut refused = false;
        for _ in 0..ROUNDS_PER_WALK {
            refused |= kill_children();
            if !reap_all() {
                return;
            }
        }
        kill_descendants();
        if !reap_all() || refused && begin.elapsed() > UNKILLABLE_AFTER {
            return;
        }
        // A killed process takes a moment to end.
        thread::sleep(Duration::from_millis(1));
    }
}

/// Kills the children, and returns whether one may not be killed.
fn kill_children() -> bool {
    let own = getpid().as_raw_nonzero();
    // A kernel without this list leaves them to the walk.
    let list = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
    let children = list
        .split_ascii_whitespace()
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
    children.fold(false, |refused, child| {
        refused | (kill_process(child, Signal::KILL) == Err(Errno::PERM))
    })
}

/// Reaps whoever has ended and returns whether anybody is left.
fn reap_all() -> bool {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// Walks down the tree and kills whoever is in it.
fn kill_descendants() {
    let children = children_by_parent();
    let mut seen = HashSet::new();
    let mut pending = vec![getpid().as_raw_nonzero().get()];
    while let Some(parent) = pending.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            // Numbers are reused while we read; a cycle must not hold us.
            if seen.insert(*child) {
                pending.push(*child);
                kill_child_of(*child, parent);
            }
        }
    }
}

/// Kills a process, if it still is this one's child.
fn kill_child_of(child: i32, parent: i32) {
    let process = Pid::from_raw(child).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
    if let Some(Ok(process)) = process
        && parent_of(child) == Some(parent)
    {
        let _ = pidfd_send_signal(&process, Signal::KILL);
    }
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
