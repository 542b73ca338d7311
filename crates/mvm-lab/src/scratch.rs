//! Folders for what must not outlive a run: for the user alone, removed when dropped, and by the watcher if we are killed.

use std::{
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use mvm_machine::{
    cache::Cache,
    process::{Keeper, PathGuard},
};

/// Makes a new folder among the host's temporary files, guarded before anything is in it.
pub fn folder() -> io::Result<PathGuard> {
    guarded(&std::env::temp_dir())
}

/// Makes a new folder on the cache's file system, so that what is in it can become part of the cache without being
/// copied; among the temporary files where the cache cannot be written.
pub(crate) fn folder_in(cache: &Cache) -> io::Result<PathGuard> {
    let running = cache.root().join("running");
    let made = std::fs::create_dir_all(&running).and_then(|()| guarded(&running));
    made.or_else(|error| {
        tracing::warn!(%error, "the cache cannot be written; using the temporary files");
        folder()
    })
}

/// Makes a new folder whose path has at most so many bytes, as the addresses of sockets want it.
pub(crate) fn folder_with_short_path(path_bytes_max: usize) -> io::Result<PathGuard> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let parents = runtime
        .filter(|folder| folder.is_absolute())
        .into_iter()
        .chain([std::env::temp_dir(), PathBuf::from("/tmp")]);
    let mut last = io::Error::from(io::ErrorKind::InvalidFilename);
    for parent in parents {
        match guarded(&parent) {
            Ok(folder) if folder.path().as_os_str().len() <= path_bytes_max => return Ok(folder),
            Ok(_) => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn guarded(parent: &Path) -> io::Result<PathGuard> {
    let keeper = Keeper::get().map_err(io::Error::other)?;
    let folder = tempfile::Builder::new()
        .prefix(&format!("mvm-ci-{}-", std::process::id()))
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(parent)?;
    keeper.guard_path(&folder.keep()).map_err(io::Error::other)
}
