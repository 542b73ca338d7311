//! The end of a machine whose PID 1 we are.

use std::fs;
use std::io;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};
use rustix::process::{WaitOptions, wait};
use rustix::system::{RebootCommand, reboot};

use super::init::console;
use super::sys;
use crate::protocol::MachineEnd;

/// How long processes have to end by themselves.
const GRACE: Duration = Duration::from_secs(2);
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Ends every process, writes everything out, and ends the machine.
///
/// Without ACPI a machine cannot power itself off. So both ends are a reset, and the host decides what that
/// means: QEMU runs with `-action reboot=shutdown`.
pub(super) fn end_machine(end: MachineEnd) -> ! {
    console(match end {
        MachineEnd::PowerOff => "mvm-agent: powering off",
        MachineEnd::Reboot => "mvm-agent: restarting",
    });
    sys::signal_everybody(libc::SIGTERM);
    let deadline = Instant::now() + GRACE;
    while !all_reaped() && Instant::now() < deadline {
        sleep(LOOK_INTERVAL);
    }
    sys::signal_everybody(libc::SIGKILL);
    rustix::fs::sync();
    leave_disks();
    reset()
}

/// Has systemd end the machine.
pub(super) fn ask_systemd(end: MachineEnd) -> io::Result<()> {
    let verb = match end {
        MachineEnd::PowerOff => "poweroff",
        MachineEnd::Reboot => "reboot",
    };
    let asked = Command::new("systemctl")
        .args(["--no-block", "--ignore-inhibitors", verb])
        .status()?;
    match asked.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("systemctl {verb} gave {asked}"))),
    }
}

/// Resets the machine at once.
pub(super) fn reset() -> ! {
    loop {
        // PID 1 of a machine may always do this; and it must never return.
        let _ = reboot(RebootCommand::Restart);
        sleep(LOOK_INTERVAL);
    }
}

fn all_reaped() -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}

/// Unmounts what lies on disks; what is still busy is made read-only, which writes it out all the same.
fn leave_disks() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let on_disks = mounts.lines().filter(|line| line.starts_with("/dev/"));
    let targets: Vec<&str> = on_disks.filter_map(|line| line.split(' ').nth(1)).collect();
    for target in targets.into_iter().rev() {
        if unmount(target, UnmountFlags::empty()).is_err()
            && let Err(errno) = mount_remount(target, MountFlags::RDONLY, "")
        {
            console(&format!("mvm-agent: could not unmount {target}: {errno}"));
        }
    }
}
