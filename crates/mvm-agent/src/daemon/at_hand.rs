//! What PID 1 opens and looks up while it boots, so that a machine resumed becomes somebody with few system calls.
//!
//! Under an emulator each path through the kernel costs most when it is taken for the first time after a restore:
//! opening a file and looking a card up cost more than writing to them. What is done with these is
//! [`super::identity`]'s and [`super::network`]'s.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::netlink::Netlink;
use super::network::Card;

/// What every hosts file begins with.
pub(super) const LOCALHOST_LINES: &str = "127.0.0.1 localhost\n::1 localhost\n";

/// What is at hand. It is kept when it is of no use any more: closing it takes paths of its own.
#[derive(Debug)]
pub(super) struct AtHand {
    /// Nothing may have changed the machine yet.
    pub(super) is_current: bool,
    pub(super) random: File,
    /// Absent where an identity may put other files in their place.
    pub(super) files: Option<OpenFiles>,
    pub(super) netlink: Netlink,
    pub(super) cards: Vec<Card>,
}

/// The files that tell who a machine is.
#[derive(Debug)]
pub(super) struct OpenFiles {
    pub(super) hostname: OpenFile,
    pub(super) machine_id: OpenFile,
    pub(super) hosts: OpenFile,
}

impl AtHand {
    pub(super) fn new(
        netlink: Netlink,
        cards: Vec<Card>,
        files: Option<OpenFiles>,
    ) -> io::Result<Self> {
        Ok(Self {
            is_current: true,
            random: File::options().write(true).open("/dev/urandom")?,
            files,
            netlink,
            cards,
        })
    }
}

impl OpenFiles {
    pub(super) fn begin() -> io::Result<Self> {
        Ok(Self {
            hostname: OpenFile::begin("/etc/hostname", "\n")?,
            // What machine-id(5) has there until there is an id.
            machine_id: OpenFile::begin("/etc/machine-id", "uninitialized\n")?,
            hosts: OpenFile::begin("/etc/hosts", LOCALHOST_LINES)?,
        })
    }
}

/// A file that holds something already, which the identity will write over.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    bytes: u64,
}

impl OpenFile {
    /// Opens a file; one that is new or empty gets this content, so that it has its place in memory.
    fn begin(path: &str, content: &str) -> io::Result<Self> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        let mut bytes = file.metadata()?.len();
        if bytes == 0 {
            file.write_all_at(content.as_bytes(), 0)?;
            bytes = content.len() as u64;
        }
        Ok(Self { file, bytes })
    }

    /// Writes a new content over what was there at the start. Once only.
    pub(super) fn write_over(&self, content: &str) -> io::Result<()> {
        self.file.write_all_at(content.as_bytes(), 0)?;
        let bytes = content.len() as u64;
        if bytes < self.bytes {
            self.file.set_len(bytes)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(before: Option<&str>, content: &str) {
        let folder = std::env::temp_dir().join(format!("mvm-at-hand-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{}-{}", before.map_or(0, str::len), content.len()));
        if let Some(before) = before {
            std::fs::write(&path, before).unwrap();
        }
        let open = OpenFile::begin(path.to_str().unwrap(), "begun\n").unwrap();
        let begun = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            begun,
            before.filter(|text| !text.is_empty()).unwrap_or("begun\n")
        );
        open.write_over(content).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        std::fs::remove_file(&path).unwrap();
        // The other cases may still use it.
        let _ = std::fs::remove_dir(&folder);
    }

    #[test]
    fn what_is_written_over_is_all_there_is() {
        check(None, "a longer content\n");
        check(None, "a\n");
        check(Some(""), "ab\n");
        check(Some("something much longer than that\n"), "abc\n");
    }
}
