//! File access whose errors name the path: the few calls the cache, the kernel and the images share.
//!
//! What is cached and under which key is in [`crate::cache`].

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A file could not be read, written or moved.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} {}: {cause}{}", path.display(), advice(cause))]
pub struct FileError {
    /// What was tried, as a verb: `read`, `create the directory`.
    pub action: &'static str,
    /// The file it was tried on.
    pub path: PathBuf,
    /// What the operating system answered.
    pub cause: io::Error,
}

fn advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space there, or name a roomier cache directory in MVM_CI_CACHE"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; name a writable cache directory in MVM_CI_CACHE",
        _ => "",
    }
}

/// Adds the path and what was tried to an [`io::Result`].
pub(crate) trait Naming<T> {
    /// Turns the bare error into a [`FileError`].
    fn naming(self, action: &'static str, path: &Path) -> Result<T, FileError>;
}

impl<T> Naming<T> for io::Result<T> {
    fn naming(self, action: &'static str, path: &Path) -> Result<T, FileError> {
        self.map_err(|cause| FileError {
            action,
            path: path.to_owned(),
            cause,
        })
    }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).naming("read", path)
}

pub(crate) fn open(path: &Path) -> Result<File, FileError> {
    File::open(path).naming("open", path)
}

pub(crate) fn create(path: &Path) -> Result<File, FileError> {
    File::create(path).naming("create", path)
}

pub(crate) fn create_dir_all(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).naming("create the directory", path)
}

/// Writes the whole file, with its parent directories.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), FileError> {
    if let Some(parent) = path.parent() {
        create_dir_all(parent)?;
    }
    fs::write(path, content).naming("write", path)
}

/// Puts `content` at `path` in one step: a reader sees the old file or the new one, never a part.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    create_dir_all(parent)?;
    let mut new = tempfile::NamedTempFile::new_in(parent).naming("create a file in", parent)?;
    io::Write::write_all(&mut new, content).naming("write", new.path())?;
    new.as_file().sync_all().naming("flush", new.path())?;
    new.persist(path)
        .map_err(|error| error.error)
        .naming("write", path)?;
    Ok(())
}

/// Copies only the parts that hold data, by reference where the file system can. `target` must not be there.
pub fn copy_sparse(source: &Path, target: &Path) -> Result<(), FileError> {
    let mut from = open(source)?;
    let mut to = File::options()
        .write(true)
        .create_new(true)
        .open(target)
        .naming("create", target)?;
    if rustix::fs::ioctl_ficlone(&to, &from).is_ok() {
        return Ok(());
    }
    let bytes = from.metadata().naming("examine", source)?.len();
    to.set_len(bytes).naming("size", target)?;
    for data in data_ranges(&from).naming("read", source)? {
        from.seek(SeekFrom::Start(data.start))
            .naming("read", source)?;
        to.seek(SeekFrom::Start(data.start))
            .naming("write", target)?;
        // Within the kernel, from page cache to page cache.
        io::copy(&mut (&mut from).take(data.end - data.start), &mut to).naming("write", target)?;
    }
    Ok(())
}

/// The parts of a file that are not holes, in order.
pub(crate) fn data_ranges(file: &File) -> io::Result<Vec<Range<u64>>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    loop {
        let start = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
            Ok(start) => start,
            // Beyond here there is nothing but a hole.
            Err(rustix::io::Errno::NXIO) => return Ok(ranges),
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(start))?;
        ranges.push(start..end);
        at = end;
    }
}

/// Every file below `root` that is not a directory, in a stable order; symbolic links are not followed.
pub(crate) fn walk(root: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).naming("list", &directory)? {
            let entry = entry.naming("list", &directory)?;
            if entry.file_type().naming("examine", &entry.path())?.is_dir() {
                pending.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}
