//! From the initramfs into a machine's own root: a read-only disk under changes in memory, with its own init as PID 1.
//!
//! ```text
//!   /                     overlay of the two below
//!   /run/mvm/lower        the read-only disk
//!   /run/mvm/changes      a tmpfs: what was changed since the boot
//!   /run/mvm/agent        this program, which goes on as a service
//! ```
//!
//! What an identity makes of that is [`super::layers`]'s.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{chdir, chroot};

use super::mounts;
use crate::boot::{AGENT_PATH, INIT_PATH, Mount, MountSource, RootPlan, STATE_FOLDER};

/// Where the new root is put together.
const NEW_ROOT: &str = "/sysroot";
/// What goes along into the new root. `/run` is the last, as the others need not be looked for in it.
const KEPT_MOUNTS: &[&str] = &["/dev", "/proc", "/sys", "/run"];
/// Of no use once they are loaded.
const MODULES: &str = "/lib/modules";

/// The read-only disk.
pub(super) fn lower() -> PathBuf {
    Path::new(STATE_FOLDER).join("lower")
}

/// What was changed in memory.
pub(super) fn upper() -> PathBuf {
    Path::new(STATE_FOLDER).join("changes/upper")
}

/// Becomes the init of the planned root, in which `mounted` is found where it is here.
pub(super) fn enter(plan: &RootPlan, mounted: &[Mount]) -> io::Result<Infallible> {
    build(plan)?;
    fs::copy(INIT_PATH, AGENT_PATH)?;
    for (place, target) in &plan.links {
        make_link(place, target)?;
    }
    for file in &plan.files {
        let path = within(&file.path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, &file.content)?;
    }
    // It is memory that nobody could reach any more.
    fs::remove_dir_all(MODULES)?;
    let mounted = mounted.iter().map(|mount| &*mount.target);
    for target in mounted.chain(KEPT_MOUNTS.iter().copied()) {
        let new = within(target);
        fs::create_dir_all(&new)?;
        mount_move(target, &new)?;
    }
    chdir(NEW_ROOT)?;
    mount_move(".", "/")?;
    chroot(".")?;
    chdir("/")?;
    let (init, arguments) = plan
        .init
        .split_first()
        .ok_or_else(|| io::Error::other("the plan names no init"))?;
    Err(Command::new(init).args(arguments).env_clear().exec())
}

/// Puts the new root together.
fn build(plan: &RootPlan) -> io::Result<()> {
    mounts::mount_planned(&Mount {
        source: MountSource::Disk {
            serial: plan.disk.clone(),
        },
        target: text(&lower())?,
        filesystem: plan.filesystem.clone(),
        read_only: true,
        optional: false,
    })?;
    let changes = Path::new(STATE_FOLDER).join("changes");
    fs::create_dir_all(&changes)?;
    mount(
        "tmpfs",
        &changes,
        "tmpfs",
        MountFlags::empty(),
        Some(c"mode=0755"),
    )?;
    let work = changes.join("work");
    for folder in [&upper(), &work, Path::new(NEW_ROOT)] {
        fs::create_dir_all(folder)?;
    }
    overlay(&[&lower()], &upper(), &work, Path::new(NEW_ROOT))
}

/// Mounts `upper`, which changes, over folders that do not, the topmost first.
pub(super) fn overlay(lower: &[&Path], upper: &Path, work: &Path, target: &Path) -> io::Result<()> {
    let lower: Vec<String> = lower
        .iter()
        .map(|folder| text(folder))
        .collect::<io::Result<_>>()?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        text(upper)?,
        text(work)?
    );
    let options = CString::new(options)?;
    mount(
        "overlay",
        target,
        "overlay",
        MountFlags::empty(),
        Some(options.as_c_str()),
    )?;
    Ok(())
}

/// Makes a link in the new root unless something is there.
fn make_link(place: &str, target: &str) -> io::Result<()> {
    let link = within(place);
    if let Some(folder) = link.parent() {
        fs::create_dir_all(folder)?;
    }
    match symlink(target, link) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Where a path of the new root is now. Its own links are relative ones or are not on the way (`/bin`, `/lib` and their
/// kind in Debian).
fn within(path: &str) -> PathBuf {
    if path.starts_with("/run/") {
        // The new root gets this one's.
        return path.into();
    }
    Path::new(NEW_ROOT).join(path.trim_start_matches('/'))
}

fn text(path: &Path) -> io::Result<String> {
    let text = path.to_str();
    text.map(str::to_owned)
        .ok_or_else(|| io::Error::other("a path is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_run_goes_along() {
        assert_eq!(within("/run/mvm/a"), Path::new("/run/mvm/a"));
        assert_eq!(within("/etc/a"), Path::new("/sysroot/etc/a"));
        assert_eq!(within("/run"), Path::new("/sysroot/run"));
    }
}
