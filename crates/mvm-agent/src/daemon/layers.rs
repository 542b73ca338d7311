//! The machine's own changes: folders of its root go on upon its private disk.
//!
//! Until then they changed in memory ([`super::new_root`]), and so do all other folders for ever. Each folder becomes an
//! overlay of its own, on the disk's layer, over what was changed in memory so far, over the read-only disk:
//!
//! ```text
//!   /var = /run/mvm/disk/layers/var/upper : /run/mvm/changes/upper/var : /run/mvm/lower/var
//! ```
//!
//! None of these is itself an overlay, so that programs of the machine may stack theirs on top (the kernel allows two).

use std::fs;
use std::io;
use std::path::Path;

use rustix::mount::mount_bind;

use super::identity::step;
use super::mounts::{self, is_mounted};
use super::new_root::{lower, overlay, upper};
use crate::boot::STATE_FOLDER;
use crate::protocol::{Failure, Layers};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Gives another one at each reading.
const RANDOM_ID: &str = "/proc/sys/kernel/random/uuid";
const OVERLAY: &str = "overlay";

/// Lays the disk's layers over the folders, except those that have theirs already.
pub(super) fn lay(layers: &Layers) -> Result<(), Failure> {
    let target = &layers.disk.target;
    step(
        &format!("mount the private disk at {target}"),
        mounts::mount_planned(&layers.disk),
    )?;
    for folder in &layers.folders {
        step(
            &format!("lay the machine's own layer over {folder}"),
            lay_over(folder, Path::new(target)),
        )?;
    }
    step("renew the boot id", renew_boot_id())
}

fn lay_over(folder: &str, disk: &Path) -> io::Result<()> {
    if is_mounted(folder, OVERLAY) || !Path::new(folder).is_dir() {
        return Ok(());
    }
    let below = folder.trim_start_matches('/');
    let own = disk.join("layers").join(below.replace('/', "-"));
    let (changes, work) = (own.join("upper"), own.join("work"));
    let (in_memory, on_disk) = (upper().join(below), lower().join(below));
    let unchanged: Vec<&Path> = [in_memory.as_path(), on_disk.as_path()]
        .into_iter()
        .filter(|folder| folder.is_dir())
        .collect();
    if !changes.is_dir() {
        fs::create_dir_all(&changes)?;
        // The upper folder's own are those of what is seen.
        let seen = fs::metadata(folder)?;
        fs::set_permissions(&changes, seen.permissions())?;
    }
    fs::create_dir_all(&work)?;
    overlay(&unchanged, &changes, &work, Path::new(folder))
}

/// Siblings that were resumed from one snapshot have the kernel's boot id in common, and a machine that is resumed again has
/// the one it had. It cannot be changed, so another file is put in its place.
fn renew_boot_id() -> io::Result<()> {
    let own = Path::new(STATE_FOLDER).join("boot_id");
    if own.exists() {
        return Ok(());
    }
    fs::write(&own, fs::read(RANDOM_ID)?)?;
    mount_bind(&own, BOOT_ID)?;
    Ok(())
}
