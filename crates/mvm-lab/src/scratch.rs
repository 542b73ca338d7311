//! Folders for what must not outlive a run: removed when dropped, and by the watcher if we are killed.

use std::{io, path::Path};

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

fn guarded(parent: &Path) -> io::Result<PathGuard> {
    let keeper = Keeper::get().map_err(io::Error::other)?;
    let folder = tempfile::Builder::new()
        .prefix(&format!("mvm-ci-{}-", std::process::id()))
        .tempdir_in(parent)?;
    keeper.guard_path(&folder.keep()).map_err(io::Error::other)
}
