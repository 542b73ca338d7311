//! A machine's private disk: copy-on-write over a cached, empty ext4 file system that all disks of its size share.
//!
//! A crash of the machine keeps what the guest had flushed; what it had only written may be kept or lost, block
//! by block, because QEMU holds the overlay's tables in its memory until the guest flushes.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use mvm_agent::{
    boot::{Mount, MountSource},
    protocol::Layers,
};

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
/// Where one with a root of its own has the disk's file system, which holds the layers of its folders.
const LAYERS_MOUNT_POINT: &str = "/run/mvm/disk";
/// What such a machine keeps across crashes. Homes and their kind lie below `/var` in it.
const OWN_FOLDERS: &[&str] = &["/etc", "/var"];

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

    /// Copies this disk to `target` with those layers below it that lie in the folder `own`, beside it; layers
    /// elsewhere are named as they are. None of them may change meanwhile. The copies may be moved together. Blocks.
    pub fn copy_with_layers(&self, target: &Path, own: &Path) -> Result<(), OverlayError> {
        files::copy_sparse(&self.path, target)?;
        let mut upper = target.to_owned();
        for number in 1.. {
            let Some(below) = qcow2::backing(&upper)?.filter(|below| below.starts_with(own)) else {
                break;
            };
            let copy = target.with_extension(format!("{number}.qcow2"));
            files::copy_sparse(&below, &copy)?;
            // Named relative to the layer above, wherever the two are moved.
            qcow2::rename_backing(&upper, Path::new(copy.file_name().unwrap_or_default()))?;
            upper = copy;
        }
        Ok(())
    }

    /// Tells whether it reads through to a layer in the folder `own`.
    pub fn has_layers_in(&self, own: &Path) -> Result<bool, OverlayError> {
        let below = qcow2::backing(&self.path)?;
        Ok(below.is_some_and(|below| below.starts_with(own)))
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

    /// How a guest with a root of its own keeps its changes on its private disk.
    pub fn layers() -> Layers {
        Layers {
            disk: Mount {
                target: LAYERS_MOUNT_POINT.to_owned(),
                ..DataDisk::mount()
            },
            folders: OWN_FOLDERS
                .iter()
                .map(|folder| (*folder).to_owned())
                .collect(),
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
    fn a_copy_takes_its_own_layers_along() {
        let folder = tempfile::tempdir().unwrap();
        let (own, kept) = (folder.path().join("own"), folder.path().join("kept"));
        for folder in [&own, &kept] {
            std::fs::create_dir(folder).unwrap();
        }
        let base = folder.path().join("base");
        std::fs::write(&base, b"").unwrap();
        let lowest = own.join("1.qcow2");
        qcow2::write_overlay(&lowest, 1 << 20, &base, qcow2::Backing::Raw).unwrap();
        let lowest = DataDisk {
            path: lowest,
            bytes: 1 << 20,
        };
        let middle = lowest.overlay(&own.join("2.qcow2")).unwrap();
        let top = middle.overlay(&own.join("3.qcow2")).unwrap();
        assert!(top.has_layers_in(&own).unwrap() && !lowest.has_layers_in(&own).unwrap());

        let target = kept.join("disk.qcow2");
        top.copy_with_layers(&target, &own).unwrap();
        let below = |name: &str| qcow2::backing(&kept.join(name)).unwrap().unwrap();
        assert_eq!(below("disk.qcow2"), Path::new("disk.1.qcow2"));
        assert_eq!(below("disk.1.qcow2"), Path::new("disk.2.qcow2"));
        assert_eq!(below("disk.2.qcow2"), base);
        assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 3);
    }

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
