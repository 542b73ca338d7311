//! Memory limits by control groups of version 2: whether we may make them, and one job's group.
//!
//! Version 1 is not used: it cannot kill a job as a whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// What the names of our groups begin with; the supervisor's process id follows.
const PREFIX: &str = "mvm-exec-";
/// How often to try to remove a group whose processes have just ended, and how long to wait between.
const REMOVALS: (u32, Duration) = (100, Duration::from_millis(5));

/// How a [`Spec`](crate::Spec)'s memory limit is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemoryControl {
    /// By a control group for the job as a whole. A job that exceeds it is killed as a whole, and that is told
    /// as [`OutOfMemory`](crate::Outcome::OutOfMemory).
    ControlGroup {
        /// Where the jobs' groups are made.
        parent: PathBuf,
    },
    /// By a limit (`RLIMIT_DATA`) for each process by itself. An allocation beyond it fails, and what the
    /// program makes of that is its own affair: it is never told as `OutOfMemory`. A job of many processes may
    /// take a multiple, and shared memory does not count.
    PerProcess {
        /// Why there are no control groups.
        reason: String,
    },
}

impl MemoryControl {
    /// Looks for a control group in which groups with a memory limit can be made, and makes one to see.
    pub(crate) fn probe() -> Self {
        let tried = candidates().and_then(|candidates| {
            let mut refusals = Vec::new();
            for parent in candidates {
                match try_out(&parent) {
                    Ok(()) => return Ok(parent),
                    Err(reason) => refusals.push(format!("{}: {reason}", parent.display())),
                }
            }
            Err(refusals.join("; "))
        });
        match tried {
            Ok(parent) => Self::ControlGroup { parent },
            Err(reason) => Self::PerProcess { reason },
        }
    }
}

/// The node's own group, the one around it (delegated, if the node was put into a group within), and the
/// root.
fn candidates() -> Result<Vec<PathBuf>, String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
    let root = mount_point(&mounts).ok_or("control groups of version 2 are not mounted")?;
    let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let own = root.join(own.unwrap_or_default());
    let around = own.parent().filter(|around| around.starts_with(&root));
    let mut candidates = vec![own.clone()];
    candidates.extend(around.map(Path::to_owned));
    candidates.push(root);
    candidates.dedup();
    Ok(candidates)
}

/// Finds where control groups of version 2 are mounted.
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ');
        let is_ours = file_system.starts_with("cgroup2 ");
        is_ours.then(|| fields.nth(4).map(PathBuf::from))?
    })
}

fn try_out(parent: &Path) -> Result<(), String> {
    let controllers = fs::read_to_string(parent.join("cgroup.controllers"))
        .map_err(|error| format!("cgroup.controllers: {error}"))?;
    if !has_word(&controllers, "memory") {
        return Err("no memory controller here".to_owned());
    }
    let handed_on = parent.join("cgroup.subtree_control");
    if !fs::read_to_string(&handed_on).is_ok_and(|words| has_word(&words, "memory")) {
        fs::write(&handed_on, "+memory")
            .map_err(|error| format!("could not hand the memory controller on: {error}"))?;
    }
    sweep(parent);
    let group = Group::create(parent, 1 << 30);
    group.map(drop).map_err(|error| error.to_string())
}

fn has_word(text: &str, word: &str) -> bool {
    text.split_ascii_whitespace().any(|each| each == word)
}

/// Removes the groups of supervisors that were killed before they could. The kernel refuses to remove one
/// that is in use.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let owner = owner.and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// One job's control group; removed when dropped, by when the job must be over.
pub(crate) struct Group {
    path: PathBuf,
}

impl Group {
    /// Makes a group of at most `bytes`, which is killed as a whole when it exceeds them.
    pub(crate) fn create(parent: &Path, bytes: u64) -> io::Result<Self> {
        let path = parent.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&path)?;
        let group = Self { path };
        fs::write(group.path.join("memory.max"), bytes.to_string())?;
        fs::write(group.path.join("memory.oom.group"), "1")?;
        // Without swap there is no such file, and nothing to forbid.
        let _ = fs::write(group.path.join("memory.swap.max"), "0");
        Ok(group)
    }

    /// Returns the file into which a process writes `0` to enter.
    pub(crate) fn entrance(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Whether the kernel killed anybody in it for want of memory.
    pub(crate) fn ran_out(&self) -> bool {
        fs::read_to_string(self.path.join("memory.events"))
            .is_ok_and(|events| oom_kills(&events) > 0)
    }
}

fn oom_kills(events: &str) -> u64 {
    let count = events
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "));
    count
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..REMOVALS.0 {
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    thread::sleep(REMOVALS.1);
                }
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_among_others() {
        let mountinfo = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                         35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                         41 31 0:38 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(
            mount_point(mountinfo),
            Some("/sys/fs/cgroup/unified".into())
        );
        assert_eq!(mount_point("garbage\n - \n"), None);
    }

    #[test]
    fn kills_are_counted() {
        let events = "low 0\nhigh 0\nmax 12\noom 1\noom_kill 3\noom_group_kill 1\n";
        assert_eq!(oom_kills(events), 3);
        assert_eq!(oom_kills("oom_kill 0\n"), 0);
        assert_eq!(oom_kills("nonsense"), 0);
    }

    #[test]
    fn a_folder_without_the_controller_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(try_out(folder.path()).is_err());
        fs::write(folder.path().join("cgroup.controllers"), "cpu memory.x\n").unwrap();
        assert_eq!(
            try_out(folder.path()),
            Err("no memory controller here".to_owned())
        );
    }

    #[test]
    fn a_group_is_set_up_through_its_files() {
        let parent = tempfile::tempdir().unwrap();
        let group = Group::create(parent.path(), 4096).unwrap();
        let read = |name: &str| fs::read_to_string(group.path.join(name)).unwrap();
        assert_eq!(read("memory.max"), "4096");
        assert_eq!(read("memory.oom.group"), "1");
        assert!(!group.ran_out());
        fs::write(group.path.join("memory.events"), "oom_kill 1\n").unwrap();
        assert!(group.ran_out());
    }
}
