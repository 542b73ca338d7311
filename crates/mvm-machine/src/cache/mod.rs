//! The cache: one directory per user, entries named by the hash of their inputs, safe between processes.
//!
//! What an entry holds is known by the module that makes it: [`crate::kernel`], [`crate::image`],
//! [`crate::data_disk`].
//!
//! An entry is a directory. It is made under a temporary name beside its place, flushed, and renamed, so
//! whoever sees it sees all of it. Making takes the entry's lock; a second process that wants the same
//! entry waits and then finds it. The temporary name tells the key, and only the lock's owner may use it: a
//! temporary directory whose lock is free belongs to a process that died, and is removed, by the watcher of
//! [`crate::process`] or by whoever makes the next entry.

mod key;
mod storage;
#[cfg(test)]
mod tests;

use std::fs::{self, File, FileTimes, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub(crate) use self::key::Fingerprint;
pub use self::key::{ContentKey, KeyBuilder};
pub use self::storage::{BYTES_MAX_DEFAULT, Entry, Freed};
use rustix::fs::{FlockOperation, flock};

use crate::files::{self, FileError, Naming};
use crate::process::{Keeper, PathGuard};

/// A cache could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Neither a cache directory nor a home directory is named by the environment.
    #[error(
        "could not find a place for the cache: none of MVM_CI_CACHE, XDG_CACHE_HOME and HOME is an absolute path"
    )]
    NoPlace,
    /// The directory could not be made or used.
    #[error(transparent)]
    File(#[from] FileError),
}

/// One sort of entry, and how long unused ones stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shelf {
    /// The folder's name in the cache.
    pub name: &'static str,
    /// Entries unused for longer are removed when a new one is made; `None` keeps them for ever.
    pub unused_max: Option<Duration>,
}

/// A cache directory. Cheap to clone; usable from many threads and processes at once.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the user's cache: `$MVM_CI_CACHE`, else `$XDG_CACHE_HOME/mvm-ci`, else `~/.cache/mvm-ci`.
    pub fn for_user() -> Result<Self, CacheError> {
        let variable = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let root = variable("MVM_CI_CACHE")
            .or_else(|| variable("XDG_CACHE_HOME").map(|path| path.join("mvm-ci")))
            .or_else(|| variable("HOME").map(|path| path.join(".cache/mvm-ci")))
            .ok_or(CacheError::NoPlace)?;
        Ok(Self::at(root)?)
    }

    /// Opens the cache in the given directory, which is made where it is missing.
    pub fn at(root: impl Into<PathBuf>) -> Result<Self, FileError> {
        let root = root.into();
        files::create_dir_all(&root)?;
        let root = fs::canonicalize(&root).naming("resolve", &root)?;
        Ok(Cache { root })
    }

    /// The cache's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of an entry that is there, marked as used now.
    pub fn find(&self, shelf: Shelf, key: &ContentKey) -> Option<PathBuf> {
        let place = self.place(shelf, key);
        let directory = File::open(&place).ok()?;
        // A read-only cache still serves; its entries merely look unused.
        let _ = directory.set_times(FileTimes::new().set_modified(SystemTime::now()));
        Some(place)
    }

    /// The directory of an entry, made by `make` where it is missing.
    ///
    /// `make` is given an empty directory to fill. When it fails, or the process dies meanwhile, nothing
    /// of the entry is seen by anyone. Blocks while another process makes the same entry.
    pub fn entry<E: From<FileError>>(
        &self,
        shelf: Shelf,
        key: &ContentKey,
        make: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        if let Some(place) = self.find(shelf, key) {
            return Ok(place);
        }
        let workspace = self.workspace(shelf, key)?;
        if let Some(place) = self.find(shelf, key) {
            return Ok(place);
        }
        make(workspace.path())?;
        flush(workspace.path())?;
        Ok(self.publish(shelf, key, workspace)?.path)
    }

    /// Makes a filled workspace the entry of its key, with a lease from its first moment.
    pub fn publish(
        &self,
        shelf: Shelf,
        key: &ContentKey,
        mut workspace: Workspace,
    ) -> Result<Lease, FileError> {
        let place = self.place(shelf, key);
        // Opened under its old name: nobody can remove an entry that is leased before it is seen.
        let lease = Lease::hold(workspace.path(), &place).naming("lease", workspace.path())?;
        if let Some(guard) = workspace.guard.take() {
            guard.let_go();
        }
        fs::rename(workspace.path(), &place).naming("move into place", &place)?;
        Ok(lease)
    }

    /// Finds an entry and keeps it from being removed while the lease lives.
    pub fn lease(&self, shelf: Shelf, key: &ContentKey) -> Option<Lease> {
        Lease::take(self.find(shelf, key)?)
    }

    /// [`Cache::entry`], with a lease on the entry.
    pub fn lease_entry<E: From<FileError>>(
        &self,
        shelf: Shelf,
        key: &ContentKey,
        make: impl Fn(&Path) -> Result<(), E>,
    ) -> Result<Lease, E> {
        loop {
            // Between the two it may be removed, and is made again.
            if let Some(lease) = Lease::take(self.entry(shelf, key, &make)?) {
                return Ok(lease);
            }
        }
    }

    /// An empty directory to work in, held by one process at a time and removed afterwards.
    ///
    /// Blocks while another process holds the one of the same key.
    pub fn workspace(&self, shelf: Shelf, key: &ContentKey) -> Result<Workspace, FileError> {
        let lock = self.lock(shelf, key)?;
        self.tidy(shelf, key);
        let path = self.scratch(shelf, key);
        let workspace = Workspace {
            guard: guard(&path),
            path,
            _lock: lock,
        };
        workspace.refresh()?;
        Ok(workspace)
    }

    /// Removes an entry unless somebody holds a lease on it or makes it; true if it is gone.
    pub fn remove(&self, shelf: Shelf, key: &ContentKey) -> bool {
        match Lock::try_take(&self.lock_path(shelf, key.as_str())) {
            Ok(Some(_lock)) => self.discard(shelf, key.as_str()),
            Ok(None) | Err(_) => false,
        }
    }

    fn shelf(&self, shelf: Shelf) -> PathBuf {
        self.root.join(shelf.name)
    }

    fn place(&self, shelf: Shelf, key: &ContentKey) -> PathBuf {
        self.shelf(shelf).join(key.as_str())
    }

    /// Where this process makes an entry. Should it be killed, what it left may still be being removed when another
    /// makes the same entry, which therefore works elsewhere.
    fn scratch(&self, shelf: Shelf, key: &ContentKey) -> PathBuf {
        let process = std::process::id();
        self.shelf(shelf)
            .join(format!("{UNFINISHED}{key}-{process}"))
    }

    fn lock_path(&self, shelf: Shelf, name: &str) -> PathBuf {
        self.root
            .join("locks")
            .join(format!("{}-{name}", shelf.name))
    }

    fn lock(&self, shelf: Shelf, key: &ContentKey) -> Result<Lock, FileError> {
        let path = self.lock_path(shelf, key.as_str());
        if let Some(lock) = Lock::try_take(&path)? {
            return Ok(lock);
        }
        tracing::info!(
            shelf = shelf.name,
            key = key.short(),
            "waiting for another process which makes the same entry"
        );
        Lock::take(&path)
    }

    /// Removes what dead processes left and what nobody has used for long. The caller holds the lock of `held`. Failures only
    /// cost space.
    fn tidy(&self, shelf: Shelf, held: &ContentKey) {
        let Ok(entries) = fs::read_dir(self.shelf(shelf)) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let (key, abandoned) = match name.strip_prefix(UNFINISHED) {
                Some(rest) => (rest.split('-').next().unwrap_or_default(), true),
                None => (name, false),
            };
            let is_held = key == held.as_str();
            let unused = |limit| !is_held && is_unused(&entry.path(), limit);
            if !abandoned && !shelf.unused_max.is_some_and(unused) {
                continue;
            }
            let lock = Lock::try_take(&self.lock_path(shelf, key));
            if !is_held && !matches!(lock, Ok(Some(_))) {
                continue;
            }
            if abandoned {
                tracing::debug!(entry = %entry.path().display(), "removing an unfinished cache entry");
                let _ = fs::remove_dir_all(entry.path());
            } else {
                self.discard(shelf, key);
            }
        }
        self.tidy_locks(shelf);
    }

    /// Removes lock files of dead processes, which nobody would ask for again.
    fn tidy_locks(&self, shelf: Shelf) {
        let Ok(locks) = fs::read_dir(self.root.join("locks")) else {
            return;
        };
        for lock in locks.flatten() {
            let name = lock.file_name();
            let key = name
                .to_str()
                .and_then(|name| name.strip_prefix(shelf.name)?.strip_prefix('-'));
            if key.and_then(ContentKey::named).is_some() {
                // Its drop removes the file.
                let _ = Lock::try_take(&lock.path());
            }
        }
    }

    /// Removes a finished entry that nobody holds a lease on; true if it is gone. The caller holds its lock.
    fn discard(&self, shelf: Shelf, key: &str) -> bool {
        let place = self.shelf(shelf).join(key);
        let process = std::process::id();
        let doomed = self
            .shelf(shelf)
            .join(format!("{UNFINISHED}{key}-{process}"));
        let Ok(directory) = File::open(&place) else {
            return false;
        };
        if flock(&directory, FlockOperation::NonBlockingLockExclusive).is_err()
            || fs::rename(&place, &doomed).is_err()
        {
            return false;
        }
        tracing::debug!(entry = %place.display(), "removing from the cache");
        fs::remove_dir_all(&doomed).is_ok()
    }
}

/// Begins the name of an entry that is being made or removed.
const UNFINISHED: &str = ".unfinished-";

fn is_unused(entry: &Path, limit: Duration) -> bool {
    fs::metadata(entry)
        .and_then(|metadata| metadata.modified())
        .ok()
        .and_then(|used| SystemTime::now().duration_since(used).ok())
        .is_some_and(|age| age > limit)
}

/// Keeps a cache entry from being removed, by this and by other processes.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    directory: File,
}

impl Lease {
    /// Holds a directory that is about to get the name `path`.
    fn hold(directory: &Path, path: &Path) -> io::Result<Lease> {
        let directory = File::open(directory)?;
        flock(&directory, FlockOperation::LockShared)?;
        Ok(Lease {
            path: path.to_owned(),
            directory,
        })
    }

    /// `None` if the entry was removed before it could be taken.
    fn take(path: PathBuf) -> Option<Lease> {
        let lease = Lease::hold(&path, &path).ok()?;
        let (held, named) = (lease.directory.metadata().ok()?, fs::metadata(&path).ok()?);
        let same = (held.dev(), held.ino()) == (named.dev(), named.ino());
        same.then_some(lease)
    }

    /// The entry's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A directory that is removed when dropped or when this process is killed, unless it was published, and its lock.
pub struct Workspace {
    path: PathBuf,
    /// Absent where we could not be watched; what a killed process left then waits for the next to tidy up.
    guard: Option<PathGuard>,
    // Dropped after the directory is gone.
    _lock: Lock,
}

impl Workspace {
    /// Where to work.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Empties it.
    pub(crate) fn refresh(&self) -> Result<(), FileError> {
        self.clear()?;
        files::create_dir_all(&self.path)
    }

    fn clear(&self) -> Result<(), FileError> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).naming("remove", &self.path)
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            tracing::warn!(%error, "an unfinished cache entry stays until the next run");
        }
    }
}

/// An exclusive lock on a file, which goes away with the lock.
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn take(path: &Path) -> Result<Self, FileError> {
        loop {
            let file = Self::open(path)?;
            file.lock().naming("lock", path)?;
            if let Some(lock) = Self::confirm(path, file) {
                return Ok(lock);
            }
        }
    }

    fn try_take(path: &Path) -> Result<Option<Self>, FileError> {
        loop {
            let file = Self::open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error).naming("lock", path),
            }
            if let Some(lock) = Self::confirm(path, file) {
                return Ok(Some(lock));
            }
        }
    }

    fn open(path: &Path) -> Result<File, FileError> {
        if let Some(parent) = path.parent() {
            files::create_dir_all(parent)?;
        }
        File::options()
            .create(true)
            .append(true)
            .open(path)
            .naming("open the lock", path)
    }

    /// The former owner removes the file as it lets go: a lock on a file which is no longer the one at
    /// `path` keeps nobody out.
    fn confirm(path: &Path, file: File) -> Option<Self> {
        let (held, named) = (file.metadata().ok()?, fs::metadata(path).ok()?);
        let same = (held.dev(), held.ino()) == (named.dev(), named.ino());
        same.then(|| Lock {
            path: path.to_owned(),
            _file: file,
        })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn guard(path: &Path) -> Option<PathGuard> {
    let guarded = Keeper::get().and_then(|keeper| keeper.guard_path(path));
    guarded
        .inspect_err(|error| tracing::warn!(%error, "a cache entry is made without a guard"))
        .ok()
}

/// Brings an entry to the disk before its name does: after a power cut the name must not stand for less.
fn flush(directory: &Path) -> Result<(), FileError> {
    let handle = files::open(directory)?;
    rustix::fs::syncfs(&handle)
        .map_err(io::Error::from)
        .naming("flush", directory)
}
