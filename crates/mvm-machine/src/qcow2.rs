//! Writes an empty copy-on-write disk: a qcow2 file that holds nothing yet and reads through to another.
//!
//! Written by us because it is four clusters of fixed content, while `qemu-img` is a package and a process of its
//! own for every disk of every machine. Reading and filling such files is QEMU's work.
//!
//! Source: QEMU, "Qcow2 Image File Format" (docs/interop/qcow2.txt), version 3.

use std::{
    ffi::OsString,
    fs::File,
    io::Write,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::FileExt,
    },
    path::{Path, PathBuf},
};

use crate::files::{FileError, Naming};

/// An overlay could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// The path of the file below does not fit into the header.
    #[error(
        "could not make a disk over {path:?}: its path has more than {BACKING_NAME_BYTES_MAX} bytes"
    )]
    NameTooLong {
        /// The file below.
        path: PathBuf,
    },
    /// The disk is larger than one cluster of first-level entries describes.
    #[error("could not make a disk of {bytes} bytes: {DISK_BYTES_MAX} are the most")]
    TooLarge {
        /// The size asked for.
        bytes: u64,
    },
    /// The file is no such disk.
    #[error("could not tell what is below the disk {path:?}")]
    NoOverlay {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What the file below an overlay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    Raw,
    Qcow2,
}

impl Backing {
    fn name(self) -> &'static str {
        match self {
            Backing::Raw => "raw",
            Backing::Qcow2 => "qcow2",
        }
    }
}

/// QEMU's own default, 64 KiB.
const CLUSTER_BITS: u32 = 16;
const CLUSTER_BYTES: usize = 1 << CLUSTER_BITS;
/// The format's own limit.
const BACKING_NAME_BYTES_MAX: usize = 1023;
/// What one first-level entry describes: a cluster of second-level entries of one cluster each.
const L1_ENTRY_BYTES: u64 = (CLUSTER_BYTES as u64 / 8) * CLUSTER_BYTES as u64;
const DISK_BYTES_MAX: u64 = L1_ENTRY_BYTES * (CLUSTER_BYTES as u64 / 8);
const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Where the header holds the length of the name of the file below.
const BACKING_BYTES_AT: u64 = 16;
const HEADER_BYTES: u32 = 104;
const BACKING_FORMAT_EXTENSION: u32 = 0xE279_2ACA;
/// The header, the refcount table, the refcount block and the first-level table: one cluster each.
const CLUSTERS: usize = 4;

/// Writes a new disk of `bytes` at `path` that reads `backing` until something is written to it.
///
/// The file must not be there yet. `backing` must not change any more, and should be an absolute path.
pub(crate) fn write_overlay(
    path: &Path,
    bytes: u64,
    backing: &Path,
    format: Backing,
) -> Result<(), OverlayError> {
    let name = backing.as_os_str().as_bytes();
    if name.len() > BACKING_NAME_BYTES_MAX {
        return Err(OverlayError::NameTooLong {
            path: backing.to_owned(),
        });
    }
    if bytes > DISK_BYTES_MAX {
        return Err(OverlayError::TooLarge { bytes });
    }
    let mut image = header(bytes, name, format);
    // The refcount table names the one refcount block, which counts each of the four clusters once.
    image.resize(CLUSTER_BYTES, 0);
    image.extend((2 * CLUSTER_BYTES as u64).to_be_bytes());
    image.resize(2 * CLUSTER_BYTES, 0);
    for _ in 0..CLUSTERS {
        image.extend(1u16.to_be_bytes());
    }
    image.resize(CLUSTERS * CLUSTER_BYTES, 0);
    let mut file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .open(path)
        .naming("create", path)?;
    file.write_all(&image).naming("write", path)?;
    Ok(())
}

/// Reads which file is below a disk, as its header names it.
pub(crate) fn backing(path: &Path) -> Result<Option<PathBuf>, OverlayError> {
    let file = File::open(path).naming("open", path)?;
    let Some((offset, bytes)) = backing_place(&file, path)? else {
        return Ok(None);
    };
    let mut name = vec![0; bytes];
    file.read_exact_at(&mut name, offset).naming("read", path)?;
    Ok(Some(OsString::from_vec(name).into()))
}

/// Names another file as the one below a disk that nobody uses; its name must be no longer than the former.
pub(crate) fn rename_backing(path: &Path, backing: &Path) -> Result<(), OverlayError> {
    let file = File::options().read(true).write(true).open(path);
    let file = file.naming("open", path)?;
    let name = backing.as_os_str().as_bytes();
    let place = backing_place(&file, path)?.filter(|(_, bytes)| name.len() <= *bytes);
    let Some((offset, _)) = place else {
        return Err(OverlayError::NameTooLong {
            path: backing.to_owned(),
        });
    };
    let length = u32::try_from(name.len()).expect("bounded by the former name's");
    file.write_all_at(name, offset).naming("write", path)?;
    file.write_all_at(&length.to_be_bytes(), BACKING_BYTES_AT)
        .naming("write", path)?;
    Ok(())
}

/// Where in the file the name of the file below is, and its length.
fn backing_place(file: &File, path: &Path) -> Result<Option<(u64, usize)>, OverlayError> {
    let mut header = [0; 20];
    file.read_exact_at(&mut header, 0).naming("read", path)?;
    let offset = u64::from_be_bytes(header[8..16].try_into().expect("eight bytes"));
    let bytes = u32::from_be_bytes(header[16..20].try_into().expect("four bytes")) as usize;
    if header[..4] != MAGIC || bytes > BACKING_NAME_BYTES_MAX {
        return Err(OverlayError::NoOverlay {
            path: path.to_owned(),
        });
    }
    Ok((offset != 0).then_some((offset, bytes)))
}

fn header(bytes: u64, backing: &[u8], format: Backing) -> Vec<u8> {
    let extension = format.name().as_bytes();
    let extension_bytes = 8 + extension.len().next_multiple_of(8);
    let backing_offset = HEADER_BYTES as usize + extension_bytes + 8;
    let mut header = Vec::with_capacity(CLUSTERS * CLUSTER_BYTES);
    let mut long = |numbers: &[u64]| {
        numbers
            .iter()
            .for_each(|number| header.extend(number.to_be_bytes()))
    };
    long(&[0x5146_49fb_0000_0003, backing_offset as u64]);
    let mut word = |numbers: &[u32]| {
        numbers
            .iter()
            .for_each(|number| header.extend(number.to_be_bytes()))
    };
    word(&[backing.len() as u32, CLUSTER_BITS]);
    header.extend(bytes.to_be_bytes());
    // No encryption; then the first-level table: its entries and its place.
    header.extend(0u32.to_be_bytes());
    header.extend((bytes.div_ceil(L1_ENTRY_BYTES) as u32).to_be_bytes());
    header.extend((3 * CLUSTER_BYTES as u64).to_be_bytes());
    // The refcount table: its place and its clusters.
    header.extend((CLUSTER_BYTES as u64).to_be_bytes());
    header.extend(1u32.to_be_bytes());
    // No snapshots, no features of any kind.
    header.extend([0; 4 + 8 + 3 * 8]);
    // Refcounts of 1 << 4 bits, and the header's own length.
    header.extend(4u32.to_be_bytes());
    header.extend(HEADER_BYTES.to_be_bytes());
    header.extend(BACKING_FORMAT_EXTENSION.to_be_bytes());
    header.extend((extension.len() as u32).to_be_bytes());
    header.extend(extension);
    header.resize(HEADER_BYTES as usize + extension_bytes, 0);
    // The extension that ends the list.
    header.extend([0; 8]);
    header.extend(backing);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;

    #[test]
    fn an_overlay_has_its_parts_in_their_places() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.qcow2");
        write_overlay(&path, 1 << 30, Path::new("/base/ext4.img"), Backing::Raw).unwrap();
        let image = files::read(&path).unwrap();
        let long = |at: usize| u64::from_be_bytes(image[at..at + 8].try_into().unwrap());
        let word = |at: usize| u32::from_be_bytes(image[at..at + 4].try_into().unwrap());
        assert_eq!(&image[..4], b"QFI\xfb");
        assert_eq!((word(4), word(20), long(24)), (3, 16, 1 << 30));
        let (at, length) = (long(8) as usize, word(16) as usize);
        assert_eq!(&image[at..at + length], b"/base/ext4.img");
        assert_eq!((word(36), long(40)), (2, 3 << 16), "the first-level table");
        assert_eq!((long(48), word(56)), (1 << 16, 1), "the refcount table");
        assert_eq!((word(96), word(100)), (4, 104));
        assert_eq!(&image[112..115], b"raw");
        assert_eq!(long(1 << 16), 2 << 16, "the refcount block");
        assert_eq!(image.len(), 4 << 16);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.qcow2");
        let long = PathBuf::from("/").join("a".repeat(1100));
        assert!(matches!(
            write_overlay(&path, 1, &long, Backing::Qcow2),
            Err(OverlayError::NameTooLong { .. })
        ));
        assert!(matches!(
            write_overlay(&path, u64::MAX, Path::new("/b"), Backing::Qcow2),
            Err(OverlayError::TooLarge { .. })
        ));
        std::fs::write(&path, "in the way").unwrap();
        assert!(write_overlay(&path, 1, Path::new("/b"), Backing::Raw).is_err());
    }
}
