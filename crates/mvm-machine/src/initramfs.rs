//! Writes an initramfs: a cpio archive in the "newc" format, uncompressed and reproducible.
//!
//! Uncompressed, because unpacking costs an emulated guest more than copying. Source: Linux,
//! Documentation/driver-api/early-userspace/buffer-format. What is in it is decided in [`crate::image`].

use std::collections::BTreeMap;

/// One entry of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Folder { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Link { target: String },
    CharacterDevice { major: u32, minor: u32 },
}

/// The archive's tree, by path without a leading slash. Folders on the way are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    entries: BTreeMap<String, Entry>,
}

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

impl Tree {
    /// Puts an entry at an absolute path, in place of what was there.
    pub(crate) fn put(&mut self, path: &str, entry: Entry) {
        let path = path.trim_matches('/');
        for (at, _) in path.match_indices('/') {
            self.entries
                .entry(path[..at].to_owned())
                .or_insert(Entry::Folder { mode: 0o755 });
        }
        self.entries.insert(path.to_owned(), entry);
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.put(
            path,
            Entry::File {
                mode,
                content: content.into(),
            },
        );
    }

    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.put(
            path,
            Entry::Link {
                target: target.to_owned(),
            },
        );
    }

    pub(crate) fn contains(&self, path: &str) -> bool {
        self.entries.contains_key(path.trim_matches('/'))
    }

    /// Returns the archive.
    pub(crate) fn archive(&self) -> Vec<u8> {
        let mut archive = Vec::new();
        // Parents sort before their children, as the kernel's unpacker needs them.
        for ((path, entry), inode) in self.entries.iter().zip(1u32..) {
            let (mode, device, content) = match entry {
                Entry::Folder { mode } => (FOLDER | mode, (0, 0), &[][..]),
                Entry::File { mode, content } => (FILE | mode, (0, 0), content.as_slice()),
                Entry::Link { target } => (LINK | 0o777, (0, 0), target.as_bytes()),
                Entry::CharacterDevice { major, minor } => {
                    (CHARACTER_DEVICE | 0o600, (*major, *minor), &[][..])
                }
            };
            append(&mut archive, path, inode, mode, device, content);
        }
        append(&mut archive, "TRAILER!!!", 0, 0, (0, 0), &[]);
        archive
    }
}

fn append(
    archive: &mut Vec<u8>,
    path: &str,
    inode: u32,
    mode: u32,
    device: (u32, u32),
    content: &[u8],
) {
    let size = u32::try_from(content.len()).expect("an initramfs file is far below 4 GiB");
    let name_size = u32::try_from(path.len() + 1).expect("a path is short");
    // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    let fields = [
        inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0,
    ];
    archive.extend_from_slice(b"070701");
    for field in fields {
        archive.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    archive.extend_from_slice(path.as_bytes());
    archive.push(0);
    pad(archive);
    archive.extend_from_slice(content);
    pad(archive);
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn another_cpio_reads_what_we_write() {
        let mut tree = Tree::default();
        tree.file("/etc/mvm/boot.json", 0o640, "{}");
        tree.link("/bin/sh", "busybox");
        tree.put("/tmp", Entry::Folder { mode: 0o1777 });
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("archive");
        std::fs::write(&archive, tree.archive()).unwrap();
        let busybox = crate::image::busybox(&crate::cache::Cache::for_user().unwrap()).unwrap();
        let listed = Command::new(busybox)
            .args(["cpio", "-tv"])
            .stdin(Stdio::from(std::fs::File::open(archive).unwrap()))
            .output()
            .unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        for expected in [
            "-rw-r-----",
            "etc/mvm/boot.json",
            "bin/sh -> busybox",
            "drwxrwxrwt",
        ] {
            assert!(text.contains(expected), "{expected} is not in {text}");
        }
    }

    #[test]
    fn order_of_making_does_not_matter() {
        let mut one = Tree::default();
        one.file("/a/b", 0o644, "1");
        one.file("/c", 0o644, "2");
        let mut other = Tree::default();
        other.file("/c", 0o644, "2");
        other.file("/a/b", 0o644, "1");
        assert_eq!(one.archive(), other.archive());
    }
}
