//! What PID 1 does before anything else: file systems, modules, disks.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::system::finit_module;

use super::shutdown;
use crate::boot::{BOOT_PLAN_PATH, BootPlan, Mount, MountSource, PROBE_WORD};

/// A disk appears within milliseconds of its driver; a loaded host may need a thousand times that.
const DISK_ALLOWED: Duration = Duration::from_secs(5);
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Makes the system usable. What fails is told on the console, and the boot goes on: the host can then
/// still ask why.
pub(super) fn prepare() {
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
    match read_plan() {
        Ok(plan) => carry_out(&plan),
        Err(error) => console(&format!(
            "mvm-agent: could not read {BOOT_PLAN_PATH}: {error}"
        )),
    }
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
        attempt(&format!("mount {}", mount.target), mount_planned(mount));
    }
}

fn attempt(what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        console(&format!("mvm-agent: could not {what}: {error}"));
    }
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

fn mount_planned(plan: &Mount) -> io::Result<()> {
    let source = match &plan.source {
        MountSource::Virtual => PathBuf::from(&plan.filesystem),
        MountSource::Disk { serial } => match find_disk(serial, plan.optional) {
            Some(device) => device,
            None if plan.optional => return Ok(()),
            None => {
                return Err(io::Error::other(format!(
                    "there is no disk with the serial number {serial:?}"
                )));
            }
        },
    };
    fs::create_dir_all(&plan.target)?;
    let flags = if plan.read_only {
        MountFlags::RDONLY
    } else {
        MountFlags::empty()
    };
    mount(&source, &plan.target, &plan.filesystem, flags, None)?;
    Ok(())
}

/// Finds a disk by its serial number; one that need not be there is looked for once.
fn find_disk(serial: &str, optional: bool) -> Option<PathBuf> {
    let deadline = Instant::now() + DISK_ALLOWED;
    loop {
        let found = look_for_disk(serial);
        if found.is_some() || optional || Instant::now() >= deadline {
            return found;
        }
        sleep(LOOK_INTERVAL);
    }
}

fn look_for_disk(serial: &str) -> Option<PathBuf> {
    fs::read_dir("/sys/block")
        .ok()?
        .flatten()
        .find_map(|entry| {
            let told = fs::read_to_string(entry.path().join("serial")).ok()?;
            let device = Path::new("/dev").join(entry.file_name());
            (told.trim() == serial && device.exists()).then_some(device)
        })
}
