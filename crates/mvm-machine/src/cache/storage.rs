//! How much the cache holds, and how it is kept within a bound: what was used longest ago goes first.

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::SystemTime};

use rustix::fs::{FlockOperation, flock};

use super::{Cache, ContentKey, Shelf, UNFINISHED};
use crate::files;

/// What the cache may hold where nobody says otherwise.
pub const BYTES_MAX_DEFAULT: u64 = 8 << 30;

/// One entry of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub shelf: Shelf,
    /// Its name.
    pub key: ContentKey,
    /// What it takes on the disk, holes left out.
    pub bytes: u64,
    /// When it was used last.
    pub used: SystemTime,
    /// Whether a process holds a lease on it.
    pub in_use: bool,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// How many entries.
    pub entries: usize,
    /// What they took.
    pub bytes: u64,
}

impl Cache {
    /// Lists the entries of some shelves, those used longest ago first. Entries that vanish meanwhile are left out.
    pub fn entries(&self, shelves: &[Shelf]) -> Vec<Entry> {
        let mut entries: Vec<Entry> = shelves
            .iter()
            .flat_map(|shelf| self.entries_of(*shelf))
            .collect();
        entries.sort_by_key(|entry| entry.used);
        entries
    }

    /// Removes entries of some shelves, those used longest ago first, until all together take at most `bytes_max`.
    /// Entries in use stay, so it may be more.
    pub fn shrink(&self, shelves: &[Shelf], bytes_max: u64) -> Freed {
        let entries = self.entries(shelves);
        let mut left: u64 = entries.iter().map(|entry| entry.bytes).sum();
        let mut freed = Freed::default();
        for entry in entries {
            if left <= bytes_max {
                break;
            }
            if self.remove(entry.shelf, &entry.key) {
                left -= entry.bytes;
                freed.bytes += entry.bytes;
                freed.entries += 1;
            }
        }
        freed
    }

    fn entries_of(&self, shelf: Shelf) -> Vec<Entry> {
        let Ok(listed) = fs::read_dir(self.shelf(shelf)) else {
            return Vec::new();
        };
        let entry = |listed: fs::DirEntry| {
            let name = listed.file_name().into_string().ok()?;
            let key = ContentKey::named(&name).filter(|_| !name.starts_with(UNFINISHED))?;
            let directory = fs::File::open(listed.path()).ok()?;
            let used = directory.metadata().ok()?.modified().ok()?;
            Some(Entry {
                shelf,
                key,
                bytes: bytes(&listed.path()),
                used,
                in_use: flock(&directory, FlockOperation::NonBlockingLockExclusive).is_err(),
            })
        };
        listed.flatten().filter_map(entry).collect()
    }
}

/// What the files below `directory` take on the disk.
fn bytes(directory: &Path) -> u64 {
    let files = files::walk(directory).unwrap_or_default();
    let blocks = files
        .iter()
        .filter_map(|file| fs::symlink_metadata(file).ok())
        .map(|metadata| metadata.blocks());
    // The kernel counts in blocks of 512 bytes, whatever the file system's are.
    blocks.sum::<u64>() * 512
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::files::FileError;

    const SHELF: Shelf = Shelf {
        name: "things",
        unused_max: None,
    };

    /// An entry of 1 MiB that was used so many hours ago.
    fn put(cache: &Cache, text: &str, hours: u64) -> ContentKey {
        let key = ContentKey::of("test").text(text).finish();
        let path = cache
            .entry::<FileError>(SHELF, &key, |place| {
                files::write(&place.join("f"), &[1; 1 << 20])
            })
            .unwrap();
        let used = SystemTime::now() - Duration::from_secs(3600 * hours);
        let times = fs::FileTimes::new().set_modified(used);
        fs::File::open(path).unwrap().set_times(times).unwrap();
        key
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_what_is_in_use_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        let keys = [
            put(&cache, "a", 4),
            put(&cache, "b", 3),
            put(&cache, "c", 2),
            put(&cache, "d", 1),
        ];
        // The lease is a use too, so the time is set back after it.
        let lease = cache.lease(SHELF, &keys[0]).unwrap();
        put(&cache, "a", 4);
        let entries = cache.entries(&[SHELF]);
        let order: Vec<_> = entries.iter().map(|entry| entry.key.clone()).collect();
        assert_eq!(order, keys);
        assert_eq!(
            entries.iter().map(|entry| entry.in_use).collect::<Vec<_>>(),
            [true, false, false, false]
        );
        let freed = cache.shrink(&[SHELF], 2 * entries[0].bytes);
        assert_eq!((freed.entries, freed.bytes), (2, 2 * entries[0].bytes));
        let left: Vec<_> = cache
            .entries(&[SHELF])
            .into_iter()
            .map(|entry| entry.key)
            .collect();
        assert_eq!(left, [keys[0].clone(), keys[3].clone()]);
        drop(lease);
        assert_eq!(cache.shrink(&[SHELF], 0).entries, 2);
        assert_eq!(cache.entries(&[SHELF]), []);
    }

    #[test]
    fn what_is_no_entry_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        files::write(&folder.path().join("things/readme"), b"hello").unwrap();
        assert_eq!(cache.entries(&[SHELF]), []);
        assert_eq!(cache.shrink(&[SHELF], 0), Freed::default());
        assert!(folder.path().join("things/readme").exists());
    }
}
