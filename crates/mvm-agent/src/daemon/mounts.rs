//! File systems of a boot plan or an identity, and the disks they lie on.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount};

use super::sys;
use crate::boot::{Mount, MountSource};

/// A disk appears within milliseconds of its driver; a loaded host may need a thousand times that.
const DISK_ALLOWED: Duration = Duration::from_secs(5);
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Mounts a file system where the plan says, unless one of this type is mounted there already.
pub(super) fn mount_planned(plan: &Mount) -> io::Result<()> {
    if is_mounted(&plan.target, &plan.filesystem) {
        return Ok(());
    }
    let source = match &plan.source {
        MountSource::Virtual => PathBuf::from(&plan.filesystem),
        MountSource::Disk { serial } => match find_disk(serial, plan.optional) {
            Some(device) => {
                // A machine that was restored may have read this disk before it was frozen, and the disk
                // may hold something else now.
                sys::flush_block_device(&File::open(&device)?)?;
                device
            }
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

/// Whether what was mounted on `target` last is of this type.
pub(super) fn is_mounted(target: &str, filesystem: &str) -> bool {
    let mounted = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    top_filesystem(&mounted, target) == Some(filesystem)
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

/// The type of the file system that was last mounted on `target`, from the lines of `/proc/self/mounts`.
fn top_filesystem<'a>(mounted: &'a str, target: &str) -> Option<&'a str> {
    let target = escape(target);
    mounted.lines().rev().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        (words.next()? == target).then(|| words.next())?
    })
}

/// Spells a path as the kernel does in that file, where words are separated by blanks.
fn escape(path: &str) -> String {
    let path = match path.trim_end_matches('/') {
        "" => "/",
        path => path,
    };
    path.replace('\\', "\\134")
        .replace(' ', "\\040")
        .replace('\t', "\\011")
        .replace('\n', "\\012")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_top(target: &str, expected: Option<&str>) {
        let mounted = "rootfs / rootfs rw 0 0\n/dev/vda /data squashfs ro 0 0\n/dev/vdb /data ext4 rw 0 0\n\
            tmpfs /a\\040b\\134c tmpfs rw 0 0\nshort\n";
        assert_eq!(top_filesystem(mounted, target), expected, "{target}");
    }

    #[test]
    fn what_is_mounted_last_on_a_target_counts() {
        check_top("/data", Some("ext4"));
        check_top("/data/", Some("ext4"));
        check_top("/", Some("rootfs"));
        check_top("/a b\\c", Some("tmpfs"));
        check_top("/dat", None);
        check_top("/data/deep", None);
    }
}
