//! The directory a job runs in: a given one, or a private one that is removed with all that is in it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::Directory;

/// What the names of private directories begin with.
const PREFIX: &str = "mvm-exec-";

/// A job's directory; removed when dropped, if it is private.
pub(super) struct Scratch {
    path: PathBuf,
    private: bool,
}

impl Scratch {
    /// Makes the directory if it is to be private; otherwise leaves the look at it to those who use it.
    pub(super) fn of(directory: &Directory) -> Result<Self, String> {
        match directory {
            Directory::Given(path) => Ok(Self {
                path: path.clone(),
                private: false,
            }),
            Directory::Private { under } => make(under).map_err(|error| {
                format!(
                    "could not make a private directory under {}: {error}",
                    under.display()
                )
            }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.private {
            remove(&self.path);
        }
    }
}

fn make(under: &Path) -> io::Result<Scratch> {
    let under = under.canonicalize()?;
    loop {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let path = under.join(format!("{PREFIX}{:016x}", u64::from_ne_bytes(random)));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {
                return Ok(Scratch {
                    path,
                    private: true,
                });
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// Removes a private directory whose supervisor is dead. The path came from there, so it is looked at first.
pub(crate) fn remove_private(path: &Path) {
    let name = path.file_name().and_then(|name| name.to_str());
    if path.is_absolute() && name.is_some_and(|name| name.starts_with(PREFIX)) {
        remove(path);
    }
}

/// Removes a tree, folders without write permission included: package managers leave such. What cannot be
/// removed even so stays; there is nobody to tell.
fn remove(path: &Path) {
    if fs::remove_dir_all(path).is_err() {
        unlock(path);
        let _ = fs::remove_dir_all(path);
    }
}

fn unlock(folder: &Path) {
    let _ = fs::set_permissions(folder, Permissions::from_mode(0o700));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            unlock(&entry.path());
        }
    }
}
