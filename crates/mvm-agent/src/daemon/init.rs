//! What PID 1 does before anything else: file systems, modules, disks ([`super::mounts`]); where the machine has a root of
//! its own, [`super::new_root`] goes on there.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};

use rustix::io::Errno;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::mount::{MountFlags, mount};
use rustix::system::finit_module;

use super::at_hand::{AtHand, OpenFiles};
use super::netlink::Netlink;
use super::{mounts, network, new_root, shutdown};
use crate::boot::{BOOT_PLAN_PATH, BootPlan, PROBE_WORD};

/// Makes the system usable. What fails is told on the console, and the boot goes on: the host can then
/// still ask why. Returns what an identity takes, if all of it is there.
pub(super) fn prepare() -> Option<AtHand> {
    attempt("mount /proc", mount_virtual("proc", "/proc", ""));
    if fs::read_to_string("/proc/cmdline")
        .is_ok_and(|line| line.split_ascii_whitespace().any(|word| word == PROBE_WORD))
    {
        shutdown::reset();
    }
    attempt("mount /sys", mount_virtual("sysfs", "/sys", ""));
    attempt("mount /dev", mount_virtual("devtmpfs", "/dev", "mode=0755"));
    attempt(
        "mount /dev/pts",
        mount_virtual("devpts", "/dev/pts", "mode=0620,ptmxmode=0666"),
    );
    attempt(
        "mount /dev/shm",
        mount_virtual("tmpfs", "/dev/shm", "mode=1777"),
    );
    attempt("mount /run", mount_virtual("tmpfs", "/run", "mode=0755"));
    attempt("mount /tmp", mount_virtual("tmpfs", "/tmp", "mode=1777"));
    // Here rather than with the identity, because a frozen machine has it behind it: 50 ms under an emulator.
    attempt("bring the loopback up", network::bring_up_loopback());
    match read_plan() {
        Ok(plan) => carry_out(&plan),
        Err(error) => console(&format!(
            "mvm-agent: could not read {BOOT_PLAN_PATH}: {error}"
        )),
    }
    let files = attempt("prepare the files of an identity", OpenFiles::begin())?;
    at_hand(Some(files))
}

/// Prepares the network cards, which are there only now that their modules are, and what else an identity takes.
pub(super) fn at_hand(files: Option<OpenFiles>) -> Option<AtHand> {
    let netlink = attempt("talk to the network", Netlink::open())?;
    let cards = attempt(
        "prepare the network cards",
        network::prepare_cards(&netlink),
    )?;
    let at_hand = attempt(
        "prepare for an identity",
        AtHand::new(netlink, cards, files),
    );
    // Else parts of the program that run only after a restore would be looked up in its file then, page by page.
    let _ = attempt(
        "keep the agent in memory",
        mlockall(MlockAllFlags::CURRENT).map_err(Into::into),
    );
    at_hand
}

/// Says a line on the console.
pub(super) fn console(line: &str) {
    // Without a console there is nobody to tell.
    let _ = writeln!(io::stderr(), "{line}");
}

fn read_plan() -> io::Result<BootPlan> {
    Ok(serde_json::from_slice(&fs::read(BOOT_PLAN_PATH)?)?)
}

fn carry_out(plan: &BootPlan) {
    for module in &plan.modules {
        attempt(&format!("load {module}"), load_module(module));
    }
    for mount in &plan.mounts {
        attempt(
            &format!("mount {}", mount.target),
            mounts::mount_planned(mount),
        );
    }
    if let Some(root) = &plan.root {
        let Err(error) = new_root::enter(root, &plan.mounts);
        console(&format!(
            "mvm-agent: could not go on with the machine's own root: {error}"
        ));
    }
}

fn attempt<T>(what: &str, result: io::Result<T>) -> Option<T> {
    result
        .map_err(|error| console(&format!("mvm-agent: could not {what}: {error}")))
        .ok()
}

fn load_module(path: &str) -> io::Result<()> {
    let file = File::open(path)?;
    match finit_module(&file, c"", 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn mount_virtual(filesystem: &str, target: &str, options: &str) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let options = CString::new(options)?;
    mount(
        filesystem,
        target,
        filesystem,
        MountFlags::empty(),
        Some(options.as_c_str()),
    )?;
    Ok(())
}
