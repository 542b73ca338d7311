//! A machine's private disk: copy-on-write over a cached, empty ext4 file system that all disks of its size share.
//!
//! A crash of the machine keeps what the guest had flushed; what it had only written may be kept or lost, block
//! by block, because QEMU holds the overlay's tables in its memory until the guest flushes.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use mvm_agent::boot::{Mount, MountSource};

use crate::{
    cache::{Cache, ContentKey, Lease, Shelf},
    elf::find_program,
    files::{self, FileError, Naming},
    qcow2::{self, Backing, OverlayError},
    qemu::DATA_SERIAL,
};

/// Empty file systems, by size.
pub const DATA_DISKS: Shelf = Shelf {
    name: "data-disks",
    unused_max: Some(Duration::from_secs(14 * 24 * 3600)),
};
const TEMPLATE_NAME: &str = "ext4.img";
/// Where a guest finds its private disk.
pub(crate) const MOUNT_POINT: &str = "/data";

/// A data disk could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DataDiskError {
    /// The host has no mke2fs.
    #[error("could not find mke2fs, which formats data disks; install the package e2fsprogs")]
    NoFormatter,
    /// mke2fs failed.
    #[error("could not format a data disk: mke2fs gave {evidence}")]
    Format {
        /// How it ended and what it said.
        evidence: String,
    },
    /// The overlay could not be written.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A private disk's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDisk {
    /// The overlay's file.
    pub path: PathBuf,
    /// The size the guest sees.
    pub bytes: u64,
}

impl DataDisk {
    /// Makes a new disk at `path` with an empty ext4 file system. It takes the space that the guest will write,
    /// not more, and reads through to the cache while the lease lives. Blocks.
    pub fn create(
        cache: &Cache,
        path: &Path,
        bytes: u64,
    ) -> Result<(DataDisk, Lease), DataDiskError> {
        let key = ContentKey::of("ext4 template 1").number(bytes).finish();
        let lease = cache.lease_entry::<DataDiskError>(DATA_DISKS, &key, |place| {
            format(&place.join(TEMPLATE_NAME), bytes)
        })?;
        let template = lease.path().join(TEMPLATE_NAME);
        qcow2::write_overlay(path, bytes, &template, Backing::Raw)?;
        let path = path.to_owned();
        Ok((DataDisk { path, bytes }, lease))
    }

    /// Makes a new disk at `path` that begins with what this one holds. This one must not change any more.
    pub fn overlay(&self, path: &Path) -> Result<DataDisk, OverlayError> {
        qcow2::write_overlay(path, self.bytes, &self.path, Backing::Qcow2)?;
        Ok(DataDisk {
            path: path.to_owned(),
            bytes: self.bytes,
        })
    }

    /// How a guest mounts its private disk.
    pub fn mount() -> Mount {
        Mount {
            source: MountSource::Disk {
                serial: DATA_SERIAL.to_owned(),
            },
            target: MOUNT_POINT.to_owned(),
            filesystem: "ext4".to_owned(),
            read_only: false,
            optional: false,
        }
    }
}

fn format(path: &Path, bytes: u64) -> Result<(), DataDiskError> {
    let formatter: PathBuf = find_program("mke2fs").map_err(|_| DataDiskError::NoFormatter)?;
    files::create(path)?.set_len(bytes).naming("size", path)?;
    let output = Command::new(formatter)
        // Without reserved blocks; tables are initialised lazily so that the image stays sparse.
        .args([
            "-q",
            "-t",
            "ext4",
            "-m",
            "0",
            "-E",
            "lazy_itable_init=1,lazy_journal_init=1",
            "-L",
            "data",
        ])
        .arg(path)
        .output()
        .naming("run mke2fs on", path)?;
    if output.status.success() {
        return Ok(());
    }
    let evidence = format!(
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Err(DataDiskError::Format { evidence })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_disk_is_small_until_written_and_its_base_is_a_whole_file_system() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("cache")).unwrap();
        let path = folder.path().join("disk");
        let (disk, lease) = DataDisk::create(&cache, &path, 256 << 20).unwrap();
        assert!(std::fs::metadata(&disk.path).unwrap().len() < 1 << 20);
        let base = lease.path().join(TEMPLATE_NAME);
        let metadata = std::fs::metadata(&base).unwrap();
        assert_eq!(metadata.len(), 256 << 20);
        assert!(
            metadata.blocks() * 512 < 32 << 20,
            "{} blocks are used",
            metadata.blocks()
        );
        let checked = Command::new(find_program("e2fsck").unwrap())
            .args(["-fn"])
            .arg(&base)
            .output()
            .unwrap();
        assert!(checked.status.success(), "{checked:?}");
        assert!(
            DataDisk::create(&cache, &path, 256 << 20).is_err(),
            "a disk that is there must not be overwritten"
        );
    }
}
