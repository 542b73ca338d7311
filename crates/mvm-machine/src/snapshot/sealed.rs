//! A folder of frozen files and the manifest that tells whether they are still what they were.
//!
//! Every file is hashed when the folder is sealed, and again on the first use after the host booted, since a power
//! cut may have kept the names and lost the content. After that, size, inode and times must do for the
//! large ones: hashing a machine's memory would take longer than starting it. Small files are hashed every time.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::ticks;
use crate::{
    cache::Fingerprint,
    files::{self, FileError, Naming},
};

const VERSION: u32 = 1;
const MANIFEST: &str = "manifest.json";
const VERIFIED: &str = "verified.json";
/// Files up to this size are hashed at each use.
const SMALL_BYTES_MAX: u64 = 8 << 20;
/// Memory files are mostly holes; what is read of them is hashed in pieces of this size, zero ones left out.
const PIECE_BYTES: usize = 64 << 10;

/// A sealed folder is not, or no longer, what it should be.
#[derive(Debug, thiserror::Error)]
pub enum StaleError {
    /// It was written by another version of this program.
    #[error("its format has version {found}, this program writes {VERSION}")]
    Version {
        /// The version it has.
        found: u32,
    },
    /// The manifest is not one.
    #[error("its manifest cannot be read: {0}")]
    Manifest(#[source] serde_json::Error),
    /// A file changed, or was cut short.
    #[error("its file {name} has changed")]
    Changed {
        /// The file's name.
        name: String,
    },
    /// Guests that measured one tick rate would keep wrong time under another.
    #[error(
        "it was made where the processor counts {made_khz} kHz, here it counts {found_khz} kHz"
    )]
    Ticks {
        /// The rate where it was made.
        made_khz: u64,
        /// The rate here.
        found_khz: u64,
    },
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    version: u32,
    ticks_khz: Option<u64>,
    files: BTreeMap<String, String>,
    content: Value,
}

/// That all files were hashed since the host booted, and what they looked like then.
#[derive(Serialize, Deserialize, PartialEq)]
struct Verified {
    boot_id: String,
    files: BTreeMap<String, Fingerprint>,
}

/// Seals a folder: hashes all files in it, which must not change any more, and writes the manifest with `content`.
/// Blocks.
pub fn seal<T: Serialize>(folder: &Path, content: &T) -> Result<(), FileError> {
    let mut hashes = BTreeMap::new();
    for path in files::walk(folder)? {
        hashes.insert(name_of(folder, &path), hash(&path)?);
    }
    let manifest = Manifest {
        version: VERSION,
        ticks_khz: ticks::khz(),
        files: hashes,
        content: serde_json::to_value(content)
            .map_err(io::Error::other)
            .naming("describe", folder)?,
    };
    let text = serde_json::to_vec_pretty(&manifest)
        .map_err(io::Error::other)
        .naming("describe", folder)?;
    files::write(&folder.join(MANIFEST), &text)?;
    remember(folder, manifest.files.keys())
}

/// Opens a sealed folder and returns what was sealed with it, if all files are as they were. Blocks.
pub fn open<T: DeserializeOwned>(folder: &Path) -> Result<T, StaleError> {
    let manifest: Manifest = serde_json::from_slice(&files::read(&folder.join(MANIFEST))?)
        .map_err(StaleError::Manifest)?;
    if manifest.version != VERSION {
        return Err(StaleError::Version {
            found: manifest.version,
        });
    }
    if let (Some(made_khz), Some(found_khz)) = (manifest.ticks_khz, ticks::khz())
        && !ticks::agree(made_khz, found_khz)
    {
        return Err(StaleError::Ticks {
            made_khz,
            found_khz,
        });
    }
    let known = files::read(&folder.join(VERIFIED))
        .ok()
        .and_then(|text| serde_json::from_slice::<Verified>(&text).ok())
        .filter(|verified| verified.boot_id == boot_id());
    for (name, sealed) in &manifest.files {
        let path = folder.join(name);
        let metadata = std::fs::metadata(&path).naming("examine", &path)?;
        let looks_same = known
            .as_ref()
            .and_then(|verified| verified.files.get(name))
            .is_some_and(|fingerprint| *fingerprint == Fingerprint::of(&metadata));
        let hashed = !looks_same || metadata.len() <= SMALL_BYTES_MAX;
        // Once verified, a file that looks different was written to, whatever it holds.
        if (known.is_some() && !looks_same) || (hashed && hash(&path)? != *sealed) {
            return Err(StaleError::Changed { name: name.clone() });
        }
    }
    if known.is_none() {
        remember(folder, manifest.files.keys())?;
    }
    serde_json::from_value(manifest.content).map_err(StaleError::Manifest)
}

fn remember<'a>(folder: &Path, names: impl Iterator<Item = &'a String>) -> Result<(), FileError> {
    let mut verified = Verified {
        boot_id: boot_id(),
        files: BTreeMap::new(),
    };
    for name in names {
        let path = folder.join(name);
        let metadata = std::fs::metadata(&path).naming("examine", &path)?;
        verified
            .files
            .insert(name.clone(), Fingerprint::of(&metadata));
    }
    let text = serde_json::to_vec(&verified)
        .map_err(io::Error::other)
        .naming("describe", folder)?;
    files::replace(&folder.join(VERIFIED), &text)
}

fn name_of(folder: &Path, path: &Path) -> String {
    let name: PathBuf = path.strip_prefix(folder).unwrap_or(path).to_owned();
    name.to_string_lossy().into_owned()
}

/// Changes with every boot of the host.
fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// Hashes a file's length and its pieces that are not all zero, each with its place: holes and zeros are alike.
fn hash(path: &Path) -> Result<String, FileError> {
    let file = files::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let bytes = file.metadata().naming("examine", path)?.len();
    hasher.update(&bytes.to_le_bytes());
    let mut piece = vec![0; PIECE_BYTES];
    let mut hashed_to = 0;
    for range in files::data_ranges(&file).naming("read", path)? {
        let first = range.start / PIECE_BYTES as u64;
        for number in first..range.end.div_ceil(PIECE_BYTES as u64) {
            let at = number * PIECE_BYTES as u64;
            // Two ranges may touch one piece.
            if at < hashed_to {
                continue;
            }
            let count = read_piece(&file, &mut piece, at).naming("read", path)?;
            hashed_to = at + PIECE_BYTES as u64;
            if piece[..count].iter().any(|byte| *byte != 0) {
                hasher.update(&at.to_le_bytes());
                hasher.update(&piece[..count]);
            }
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn read_piece(file: &File, piece: &mut [u8], at: u64) -> io::Result<usize> {
    let mut count = 0;
    while count < piece.len() {
        match file.read_at(&mut piece[count..], at + count as u64)? {
            0 => break,
            read => count += read,
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let memory = files::create(&folder.path().join("ram")).unwrap();
        memory.set_len(64 << 20).unwrap();
        memory.write_all_at(b"memory", 20 << 20).unwrap();
        files::write(&folder.path().join("state"), b"state").unwrap();
        seal(folder.path(), &"what it is").unwrap();
        folder
    }

    #[track_caller]
    fn check_changed(folder: &Path, expected: &str) {
        match open::<String>(folder) {
            Err(StaleError::Changed { name }) => assert_eq!(name, expected),
            other => panic!("{other:?}"),
        }
    }

    fn forget_verification(folder: &Path) {
        std::fs::remove_file(folder.join(VERIFIED)).unwrap();
    }

    #[test]
    fn what_was_sealed_is_opened() {
        let folder = sealed();
        assert_eq!(open::<String>(folder.path()).unwrap(), "what it is");
        forget_verification(folder.path());
        assert_eq!(open::<String>(folder.path()).unwrap(), "what it is");
        assert!(
            folder.path().join(VERIFIED).exists(),
            "the next use is quick again"
        );
    }

    #[test]
    fn a_moved_folder_is_as_good() {
        let folder = sealed();
        let moved = folder.path().with_extension("moved");
        std::fs::rename(folder.path(), &moved).unwrap();
        assert!(open::<String>(&moved).is_ok());
        std::fs::remove_dir_all(moved).unwrap();
    }

    #[test]
    fn a_changed_file_is_found_out_verified_or_not() {
        for verified in [true, false] {
            let folder = sealed();
            if !verified {
                forget_verification(folder.path());
            }
            let path = folder.path().join("ram");
            let memory = File::options().write(true).open(path).unwrap();
            memory.write_all_at(b"x", 40 << 20).unwrap();
            check_changed(folder.path(), "ram");
        }
    }

    #[test]
    fn a_truncated_file_is_found_out() {
        for (name, bytes) in [("ram", 30 << 20), ("state", 2)] {
            let folder = sealed();
            forget_verification(folder.path());
            let path = folder.path().join(name);
            let file = File::options().write(true).open(path).unwrap();
            file.set_len(bytes).unwrap();
            check_changed(folder.path(), name);
        }
    }

    #[test]
    fn a_lost_file_a_foreign_manifest_and_garbage_are_refused() {
        let folder = sealed();
        std::fs::remove_file(folder.path().join("ram")).unwrap();
        assert!(matches!(
            open::<String>(folder.path()),
            Err(StaleError::File(_))
        ));
        let folder = sealed();
        files::write(&folder.path().join(MANIFEST), b"{}").unwrap();
        assert!(matches!(
            open::<String>(folder.path()),
            Err(StaleError::Manifest(_))
        ));
        let folder = sealed();
        let text = std::fs::read_to_string(folder.path().join(MANIFEST)).unwrap();
        let text = text.replace("\"version\": 1", "\"version\": 99");
        files::write(&folder.path().join(MANIFEST), text.as_bytes()).unwrap();
        assert!(matches!(
            open::<String>(folder.path()),
            Err(StaleError::Version { found: 99 })
        ));
    }

    #[test]
    fn another_tick_rate_is_refused() {
        let folder = sealed();
        let path = folder.path().join(MANIFEST);
        let mut manifest: Value = serde_json::from_slice(&files::read(&path).unwrap()).unwrap();
        let Some(khz) = manifest["ticks_khz"].as_u64() else {
            return;
        };
        manifest["ticks_khz"] = (khz + khz / 50).into();
        files::write(&path, manifest.to_string().as_bytes()).unwrap();
        assert!(matches!(
            open::<String>(folder.path()),
            Err(StaleError::Ticks { .. })
        ));
    }
}
