//! Unpacks chosen files of a Debian package, without dpkg: `ar` around a compressed `tar`.
//!
//! Which package, and where from, is decided in [`crate::apt`]. A package is untrusted input here: sizes
//! are bounded, and no path leads out of the target directory.

use std::fs;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use crate::codec::{Bounded, Codec};
use crate::files::{self, FileError, Naming};

/// A package could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// The archive's structure is not that of a Debian package.
    #[error("could not read {} as a Debian package: {reason}", package.display())]
    Malformed {
        /// The package's file.
        package: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The content could not be decoded, or is longer than allowed.
    #[error("could not unpack {}: {cause}", package.display())]
    Content {
        /// The package's file.
        package: PathBuf,
        /// What the decoder said.
        cause: io::Error,
    },
    /// A wanted entry would be written outside the target directory.
    #[error("could not unpack {}: its entry {} leads out of the target directory", package.display(), entry.display())]
    Escape {
        /// The package's file.
        package: PathBuf,
        /// The offending entry.
        entry: PathBuf,
    },
    /// A wanted entry is a link or a device.
    #[error("could not unpack {}: its entry {} is not a regular file", package.display(), entry.display())]
    NotAFile {
        /// The package's file.
        package: PathBuf,
        /// The offending entry.
        entry: PathBuf,
    },
    /// The result could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What one package may unpack to; a Debian kernel with all its modules is 110 MB, Ubuntu's 400 MB.
const UNPACKED_BYTES_MAX: u64 = 2 << 30;

/// Unpacks the regular files for which `wanted` names a place relative to `target`.
///
/// `wanted` is asked with each entry's path without the leading `./`. Directories on the way are made;
/// modes are kept, owners and times are not. Returns the files written, in the archive's order.
pub fn unpack(
    package: &Path,
    target: &Path,
    mut wanted: impl FnMut(&Path) -> Option<PathBuf>,
) -> Result<Vec<PathBuf>, DebError> {
    let mut input = BufReader::new(files::open(package)?);
    let content = |cause| DebError::Content {
        package: package.to_owned(),
        cause,
    };
    let (name, size) =
        find_data(&mut input)
            .map_err(content)?
            .map_err(|reason| DebError::Malformed {
                package: package.to_owned(),
                reason,
            })?;
    let codec = codec_of(&name).ok_or_else(|| DebError::Malformed {
        package: package.to_owned(),
        reason: format!("the compression of its member {name} is not known"),
    })?;
    let member = BufReader::new(input.take(size));
    let data = Bounded::new(codec.reader(member).map_err(content)?, UNPACKED_BYTES_MAX);
    let mut archive = tar::Archive::new(data);
    let mut written = Vec::new();
    for entry in archive.entries().map_err(content)? {
        let mut entry = entry.map_err(content)?;
        let path = entry.path().map_err(content)?.into_owned();
        let path = path.strip_prefix("./").unwrap_or(&path);
        if entry.header().entry_type().is_dir() {
            continue;
        }
        let Some(place) = wanted(path) else { continue };
        let escape = || DebError::Escape {
            package: package.to_owned(),
            entry: path.to_owned(),
        };
        if !is_inside(path) || !is_inside(&place) {
            return Err(escape());
        }
        if !entry.header().entry_type().is_file() {
            return Err(DebError::NotAFile {
                package: package.to_owned(),
                entry: path.to_owned(),
            });
        }
        let place = target.join(place);
        files::create_dir_all(place.parent().ok_or_else(escape)?)?;
        let mode = entry.header().mode().map_err(content)? & 0o777;
        // A link or file already there is an earlier entry of the same package: never written through.
        let mut file = fs::File::create_new(&place).naming("create", &place)?;
        io::copy(&mut entry, &mut file).map_err(content)?;
        file.set_permissions(fs::Permissions::from_mode(mode))
            .naming("set the mode of", &place)?;
        written.push(place);
    }
    Ok(written)
}

fn is_inside(path: &Path) -> bool {
    path.components().next().is_some()
        && path
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

fn codec_of(member: &str) -> Option<Codec> {
    match member {
        "data.tar" => Some(Codec::Plain),
        "data.tar.gz" => Some(Codec::Gzip),
        "data.tar.xz" => Some(Codec::Xz),
        "data.tar.zst" => Some(Codec::Zstd),
        _ => None,
    }
}

const AR_MAGIC: &[u8; 8] = b"!<arch>\n";

/// An `ar` member's header: name, date, owner, group, mode, size, end mark, as fixed-width text.
const AR_HEADER_BYTES: usize = 60;

/// No package has more members than a handful.
const MEMBERS_MAX: usize = 16;

/// Leaves the reader at the beginning of the `data.tar` member; its name and size, or what is wrong.
///
/// Read here and not by the `ar` crate because that one sets aside as much memory as a header claims.
fn find_data(input: &mut impl Read) -> io::Result<Result<(String, u64), String>> {
    let mut magic = [0; AR_MAGIC.len()];
    if !fill(input, &mut magic)? || &magic != AR_MAGIC {
        return Ok(Err("it does not begin like an ar archive".to_owned()));
    }
    for _ in 0..MEMBERS_MAX {
        let mut header = [0; AR_HEADER_BYTES];
        if !fill(input, &mut header)? {
            return Ok(Err("it ends before a data.tar member".to_owned()));
        }
        let name = String::from_utf8_lossy(&header[..16])
            .trim_end()
            .trim_end_matches('/')
            .to_owned();
        let size = std::str::from_utf8(&header[48..58])
            .ok()
            .and_then(|size| size.trim_end().parse::<u64>().ok());
        let (Some(size), b"`\n") = (size, &header[58..]) else {
            return Ok(Err(format!("the header of its member {name:?} is broken")));
        };
        if name.starts_with("data.tar") {
            return Ok(Ok((name, size)));
        }
        let padded = size + size % 2;
        if io::copy(&mut input.take(padded), &mut io::sink())? < padded {
            return Ok(Err(format!("its member {name:?} is cut off")));
        }
    }
    Ok(Err(format!(
        "there is no data.tar among its first {MEMBERS_MAX} members"
    )))
}

/// Fills the buffer; false at the end of the input.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(name: &str, content: &[u8]) -> Vec<u8> {
        let mut bytes = format!(
            "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
            0,
            0,
            0,
            100_644,
            content.len()
        )
        .into_bytes();
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(2), b'\n');
        bytes
    }

    fn package(data_name: &str, data: &[u8]) -> Vec<u8> {
        [
            AR_MAGIC.to_vec(),
            member("debian-binary", b"2.0\n"),
            member("control.tar", b"odd"),
            member(data_name, data),
        ]
        .concat()
    }

    /// The path goes into the header as it is: the tar crate itself refuses to write a bad one.
    fn tar_of(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o4755);
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn run(package: &[u8], wanted: &str) -> Result<Vec<(String, Vec<u8>)>, DebError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("p.deb");
        fs::write(&file, package).unwrap();
        let target = directory.path().join("out");
        let written = unpack(&file, &target, |path| {
            path.to_str()?.contains(wanted).then(|| path.to_owned())
        })?;
        Ok(written
            .into_iter()
            .map(|path| {
                (
                    path.strip_prefix(&target)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned(),
                    fs::read(&path).unwrap(),
                )
            })
            .collect())
    }

    const FILE: tar::EntryType = tar::EntryType::Regular;

    #[test]
    fn wanted_files_come_out_of_every_compression() {
        let tar = tar_of(&[
            ("./boot/", tar::EntryType::Directory, b""),
            ("./boot/vmlinuz", FILE, b"kernel"),
            ("./usr/share/doc", FILE, b"text"),
        ]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &tar).unwrap();
        for package in [
            package("data.tar", &tar),
            package("data.tar.gz/", &gzip.finish().unwrap()),
            package("data.tar.zst", &zstd::encode_all(&tar[..], 1).unwrap()),
        ] {
            assert_eq!(
                run(&package, "boot").unwrap(),
                [("boot/vmlinuz".to_owned(), b"kernel".to_vec())]
            );
        }
    }

    #[track_caller]
    fn refuses(package: &[u8], expected: &str) {
        let message = run(package, "").unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn bad_packages_are_refused() {
        let good = package("data.tar", &tar_of(&[("./a", FILE, &[7; 2000])]));
        refuses(b"", "does not begin like an ar archive");
        refuses(b"MZ not a package", "does not begin like an ar archive");
        refuses(&good[..134], "cut off");
        refuses(&good[..140], "ends before a data.tar member");
        refuses(&good[..1500], "unpack");
        refuses(&package("data.tar.lzma", b""), "data.tar.lzma is not known");
        refuses(&package("data.tar.xz", b"not xz at all"), "unpack");
        refuses(&[AR_MAGIC.as_slice(), &[b'x'; 60]].concat(), "is broken");
        refuses(&package("other", b""), "ends before a data.tar");
    }

    #[test]
    fn no_entry_leads_out() {
        for path in ["../evil", "/etc/passwd", "./a/../../evil"] {
            refuses(
                &package("data.tar", &tar_of(&[(path, FILE, b"x")])),
                "leads out",
            );
        }
        refuses(
            &package(
                "data.tar",
                &tar_of(&[("./a", tar::EntryType::Symlink, b"")]),
            ),
            "not a regular file",
        );
        refuses(
            &package(
                "data.tar",
                &tar_of(&[("./a", FILE, b"1"), ("./a", FILE, b"2")]),
            ),
            "exists",
        );
    }

    #[test]
    fn modes_lose_their_special_bits() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("p.deb");
        fs::write(&file, package("data.tar", &tar_of(&[("./a", FILE, b"x")]))).unwrap();
        let written = unpack(&file, directory.path(), |path| Some(path.to_owned())).unwrap();
        assert_eq!(
            fs::metadata(&written[0]).unwrap().permissions().mode() & 0o7777,
            0o755
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_damaged_package_never_panics(position in 0..4000_usize, byte in any::<u8>(), cut in 0..4000_usize) {
            let mut package = package("data.tar", &tar_of(&[("./a", FILE, &[7; 2000]), ("./b", FILE, b"b")]));
            if let Some(place) = package.get_mut(position) {
                *place = byte;
            }
            package.truncate(cut.max(1));
            let _ = run(&package, "");
        }
    }
}
