//! A PID namespace: made by the supervisor, settled by its first process, tried by the probe.

use std::fs;
use std::io;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Signal, WaitOptions, getpid, set_parent_process_death_signal};
use rustix::thread::UnshareFlags;

use super::Probed;
use crate::sys::{self, Forked};

/// Has the next child be the first process of a new PID namespace. Returns whether that took a user namespace
/// too, which it does for everybody but a real root.
pub(super) fn enter() -> io::Result<bool> {
    let Err(refused) = sys::unshare(UnshareFlags::NEWPID) else {
        return Ok(false);
    };
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    sys::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWPID).map_err(|error| {
        io::Error::other(format!(
            "{refused}; with a user namespace of its own: {error}"
        ))
    })?;
    let (user, group) = (user.as_raw(), group.as_raw());
    // An ordinary user may map its group only after giving up changes of the supplementary ones.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    Ok(true)
}

/// Makes the namespace's first process at home: it dies with its parent, and gets a `/proc` that shows its own
/// namespace, where that is allowed. A container that hides parts of `/proc` forbids it; the job then sees
/// the host's process numbers.
pub(super) fn settle() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Its own session, so that the supervisor's group is none of the job's.
    let _ = rustix::process::setsid();
    let _ = mount_proc();
    Ok(())
}

fn mount_proc() -> io::Result<()> {
    sys::unshare(UnshareFlags::NEWNS)?;
    // Mounts of the host go on to arrive here; ours do not arrive there.
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("proc", "/proc", "proc", flags, None)?)
}

/// Makes a namespace and looks at it from within.
pub(super) fn probe() -> Probed {
    match try_out() {
        Ok((user_namespace, own_proc)) => Probed {
            namespace: true,
            user_namespace,
            own_proc,
            reason: String::new(),
        },
        Err(error) => Probed {
            namespace: false,
            user_namespace: false,
            own_proc: false,
            reason: error.to_string(),
        },
    }
}

fn try_out() -> io::Result<(bool, bool)> {
    const OWN_PROC: i32 = 10;
    const NO_PROC: i32 = 11;
    let user_namespace = enter()?;
    match sys::fork()? {
        Forked::Child => {
            let first = getpid().as_raw_nonzero().get() == 1;
            let code = match (first, mount_proc()) {
                (false, _) => 1,
                (true, Ok(())) => OWN_PROC,
                (true, Err(_)) => NO_PROC,
            };
            std::process::exit(code)
        }
        Forked::Parent(child) => {
            let status = rustix::process::waitpid(Some(child), WaitOptions::empty())?;
            match status.and_then(|(_, status)| status.exit_status()) {
                Some(OWN_PROC) => Ok((user_namespace, true)),
                Some(NO_PROC) => Ok((user_namespace, false)),
                other => Err(io::Error::other(format!(
                    "its first process was not PID 1 or was ended ({other:?})"
                ))),
            }
        }
    }
}
