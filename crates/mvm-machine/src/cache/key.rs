//! Content keys: the hash of everything that goes into a cached thing, and the memory of big files' hashes.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::Cache;
use crate::files::{self, FileError, Naming};

/// Names a cached thing by the hash of all its inputs: equal inputs, equal key, on every host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContentKey(String);

impl ContentKey {
    /// Begins a key for one sort of thing; `sort` also names the version of its making, so that a change
    /// in how it is made leaves the old entries behind.
    pub fn of(sort: &str) -> KeyBuilder {
        let mut hasher = blake3::Hasher::new();
        feed(&mut hasher, sort.as_bytes());
        KeyBuilder { hasher }
    }

    /// The key that a cache entry's directory is named after, if it is one.
    pub(super) fn named(name: &str) -> Option<ContentKey> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_key = name.len() == 2 * blake3::OUT_LEN && name.bytes().all(is_digit);
        is_key.then(|| ContentKey(name.to_owned()))
    }

    /// The key as lower-case hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first digits, enough to tell entries apart in a message.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for ContentKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Collects the inputs of a [`ContentKey`]. Order counts, and so do the borders between inputs.
#[derive(Debug, Clone)]
pub struct KeyBuilder {
    hasher: blake3::Hasher,
}

impl KeyBuilder {
    /// Adds one input.
    pub fn bytes(mut self, input: &[u8]) -> Self {
        feed(&mut self.hasher, input);
        self
    }

    /// Adds one input that is text.
    pub fn text(self, input: &str) -> Self {
        self.bytes(input.as_bytes())
    }

    /// Adds a number.
    pub fn number(self, input: u64) -> Self {
        self.bytes(&input.to_le_bytes())
    }

    /// Adds another key.
    pub fn key(self, input: &ContentKey) -> Self {
        self.text(input.as_str())
    }

    /// Ends the collection.
    pub fn finish(self) -> ContentKey {
        ContentKey(self.hasher.finalize().to_hex().to_string())
    }
}

/// The length goes in first, or `ab` + `c` and `a` + `bc` would be one key.
fn feed(hasher: &mut blake3::Hasher, input: &[u8]) {
    hasher.update(&(input.len() as u64).to_le_bytes());
    hasher.update(input);
}

/// Below this a hash costs less than looking up the remembered one.
const REMEMBER_BYTES_MIN: u64 = 1 << 20;

/// A file younger than this may change again within the same time stamp, so its hash is not remembered.
const SETTLED: Duration = Duration::from_secs(2);

/// What a file looks like from outside; it changes with every write to it.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Fingerprint {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    fingerprint: Fingerprint,
    key: ContentKey,
}

impl Cache {
    /// The key of a file's content.
    ///
    /// The hash of a big file is remembered under its path, size, inode and time stamps, so that a second
    /// run need not read a hundred megabytes again.
    pub fn file_key(&self, path: &Path) -> Result<ContentKey, FileError> {
        let file = files::open(path)?;
        let metadata = file.metadata().naming("examine", path)?;
        if metadata.len() < REMEMBER_BYTES_MIN {
            return hash(file, path);
        }
        let fingerprint = Fingerprint::of(&metadata);
        let place = self.root().join("hashes").join(
            ContentKey::of("path")
                .bytes(path.as_os_str().as_bytes())
                .finish()
                .0,
        );
        if let Some(known) = std::fs::read(&place)
            .ok()
            .and_then(|text| serde_json::from_slice::<Remembered>(&text).ok())
            && known.fingerprint == fingerprint
        {
            return Ok(known.key);
        }
        let key = hash(file, path)?;
        if is_settled(&metadata)
            && let Ok(text) = serde_json::to_vec(&Remembered {
                fingerprint,
                key: key.clone(),
            })
            && let Err(error) = files::replace(&place, &text)
        {
            tracing::debug!(%error, "the hash of a file is not remembered");
        }
        Ok(key)
    }
}

fn is_settled(metadata: &Metadata) -> bool {
    metadata
        .modified()
        .ok()
        .and_then(|modified| SystemTime::now().duration_since(modified).ok())
        .is_some_and(|age| age > SETTLED)
}

fn hash(mut file: File, path: &Path) -> Result<ContentKey, FileError> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).naming("read", path)?;
        if count == 0 {
            return Ok(ContentKey(hasher.finalize().to_hex().to_string()));
        }
        hasher.update(&buffer[..count]);
    }
}
