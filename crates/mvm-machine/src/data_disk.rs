//! A machine's private disk: a sparse ext4 image, copied from a cached template.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    cache::{Cache, ContentKey, Shelf},
    elf::find_program,
    files::{self, FileError, Naming},
};

const TEMPLATES: Shelf = Shelf {
    name: "data-disks",
    unused_max: Some(Duration::from_secs(14 * 24 * 3600)),
};
const TEMPLATE_NAME: &str = "ext4.img";

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
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Makes a new empty disk of `bytes` at `path`. Takes the space that the guest will write, not more.
pub fn create(cache: &Cache, path: &Path, bytes: u64) -> Result<(), DataDiskError> {
    let key = ContentKey::of("ext4 template 1").number(bytes).finish();
    let entry = cache.entry::<DataDiskError>(TEMPLATES, &key, |place| {
        format(&place.join(TEMPLATE_NAME), bytes)
    })?;
    copy_sparse(&entry.join(TEMPLATE_NAME), path).naming("copy the data disk to", path)?;
    Ok(())
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

/// Copies only the parts that hold data, by reference where the file system can.
fn copy_sparse(source: &Path, target: &Path) -> io::Result<()> {
    let mut source = File::open(source)?;
    let mut target = File::options().write(true).create_new(true).open(target)?;
    if rustix::fs::ioctl_ficlone(target.as_fd(), source.as_fd()).is_ok() {
        return Ok(());
    }
    let bytes = source.metadata()?.len();
    target.set_len(bytes)?;
    let mut at = 0;
    while let Some(data) = next_data(&source, at)? {
        let hole = rustix::fs::seek(&source, rustix::fs::SeekFrom::Hole(data))?;
        source.seek(SeekFrom::Start(data))?;
        target.seek(SeekFrom::Start(data))?;
        io::copy(&mut io::Read::take(&mut source, hole - data), &mut target)?;
        at = hole;
    }
    Ok(())
}

fn next_data(file: &File, at: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(data) => Ok(Some(data)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_disk_is_sparse_whole_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("cache")).unwrap();
        let disk = folder.path().join("disk");
        create(&cache, &disk, 256 << 20).unwrap();
        let metadata = std::fs::metadata(&disk).unwrap();
        assert_eq!(metadata.len(), 256 << 20);
        assert!(
            metadata.blocks() * 512 < 32 << 20,
            "{} blocks are used",
            metadata.blocks()
        );
        let checked = Command::new(find_program("e2fsck").unwrap())
            .args(["-fn"])
            .arg(&disk)
            .output()
            .unwrap();
        assert!(checked.status.success(), "{checked:?}");
        assert!(
            create(&cache, &disk, 256 << 20).is_err(),
            "a disk that is there must not be overwritten"
        );
    }
}
