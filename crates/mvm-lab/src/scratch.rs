//! A folder for what must not outlive a run: removed when dropped, and by the watcher if we are killed.

use std::io;

use mvm_machine::process::{Keeper, PathGuard};

/// Makes a new folder among the host's temporary files, guarded before anything is in it.
pub fn folder() -> io::Result<PathGuard> {
    let keeper = Keeper::get().map_err(io::Error::other)?;
    let folder = tempfile::Builder::new().prefix("mvm-ci-").tempdir()?;
    keeper.guard_path(&folder.keep()).map_err(io::Error::other)
}
