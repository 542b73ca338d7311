//! The part of the FUSE protocol that is spoken here: requests as types, answers as bytes.
//!
//! Layouts and numbers are those of the kernel's `include/uapi/linux/fuse.h`, version 7.31 and later, in the byte order of
//! this host, which is the machine's. What a request does is [`super::server`]'s; the first one of a mount, by which
//! kernel and file system agree, is answered by the agent.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use mvm_agent::protocol::SHARED_DATA_BYTES_MAX;
use rustix::{
    fs::{FileType, Stat, StatVfs, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT},
    io::Errno,
};

/// The operations that have no answer.
const FORGET: u32 = 2;
const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;

const ANSWER_HEADER_BYTES: usize = 16;
const NAME_BYTES_MAX: usize = 255;

/// The kernel keeps nothing of the file's content: another machine may write it.
const OPEN_DIRECT_IO: u32 = 1;

/// A message that has no answer, since not even its header is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// What the kernel asks.
#[derive(Debug)]
pub(super) struct Request<'m> {
    pub(super) unique: u64,
    pub(super) node: u64,
    /// Whether the kernel waits for an answer.
    pub(super) is_answered: bool,
    pub(super) operation: Result<Operation<'m>, Errno>,
}

/// The name of an entry in a folder; never one that leads elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name<'m>(&'m OsStr);

/// What is asked about a request's node.
#[derive(Debug)]
pub(super) enum Operation<'m> {
    Lookup(Name<'m>),
    Forget(Vec<(u64, u64)>),
    Attributes {
        handle: Option<u64>,
    },
    Change(Change),
    ReadLink,
    SymbolicLink {
        name: Name<'m>,
        target: &'m OsStr,
    },
    MakeNode {
        name: Name<'m>,
        mode: u32,
    },
    MakeFolder {
        name: Name<'m>,
        mode: u32,
    },
    Unlink(Name<'m>),
    RemoveFolder(Name<'m>),
    Rename {
        name: Name<'m>,
        new_folder: u64,
        new_name: Name<'m>,
        flags: u32,
    },
    Link {
        node: u64,
        name: Name<'m>,
    },
    Open {
        flags: u32,
    },
    Create {
        name: Name<'m>,
        flags: u32,
        mode: u32,
    },
    Read {
        handle: u64,
        offset: u64,
        bytes: usize,
    },
    Write {
        handle: u64,
        offset: u64,
        flags: u32,
        content: &'m [u8],
    },
    OpenFolder,
    ReadFolder {
        handle: u64,
        offset: u64,
        bytes: usize,
    },
    Release {
        handle: u64,
    },
    FileSystem,
    /// The kernel will ask no more.
    Destroy,
}

/// What becomes of a node; what is absent stays. Owners are not among it: everything is root's.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) handle: Option<u64>,
    pub(super) mode: Option<u32>,
    pub(super) size: Option<u64>,
    pub(super) times: Option<Timestamps>,
}

impl<'m> Name<'m> {
    fn new(bytes: &'m [u8]) -> Result<Self, Errno> {
        match bytes {
            b"" | b"." | b".." => Err(Errno::INVAL),
            _ if bytes.contains(&b'/') => Err(Errno::INVAL),
            _ if bytes.len() > NAME_BYTES_MAX => Err(Errno::NAMETOOLONG),
            _ => Ok(Self(OsStr::from_bytes(bytes))),
        }
    }

    pub(super) fn get(self) -> &'m OsStr {
        self.0
    }
}

impl<'m> Request<'m> {
    /// Reads a message that is whole.
    pub(super) fn read(message: &'m [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields(message);
        let mut header = || {
            let length = fields.u32()?;
            let (opcode, unique, node) = (fields.u32()?, fields.u64()?, fields.u64()?);
            // Whose process it is makes no difference.
            fields.skip(16)?;
            Ok::<_, Errno>((length, opcode, unique, node))
        };
        let (length, opcode, unique, node) = header().map_err(|_| Malformed)?;
        if usize::try_from(length) != Ok(message.len()) {
            return Err(Malformed);
        }
        Ok(Self {
            unique,
            node,
            is_answered: !matches!(opcode, FORGET | DESTROY | BATCH_FORGET),
            operation: Operation::read(opcode, node, fields),
        })
    }
}

impl<'m> Operation<'m> {
    fn read(opcode: u32, node: u64, mut fields: Fields<'m>) -> Result<Self, Errno> {
        Ok(match opcode {
            1 => Self::Lookup(fields.name()?),
            FORGET => Self::Forget(vec![(node, fields.u64()?)]),
            3 => {
                let by_handle = fields.u32()? & 1 != 0;
                fields.skip(4)?;
                let handle = fields.u64()?;
                Self::Attributes {
                    handle: by_handle.then_some(handle),
                }
            }
            4 => Self::Change(Change::read(&mut fields)?),
            5 => Self::ReadLink,
            6 => Self::SymbolicLink {
                name: fields.name()?,
                target: OsStr::from_bytes(fields.text()?),
            },
            8 => {
                let mode = fields.u32()?;
                fields.skip(12)?;
                let name = fields.name()?;
                Self::MakeNode { name, mode }
            }
            9 => {
                let mode = fields.u32()?;
                fields.skip(4)?;
                let name = fields.name()?;
                Self::MakeFolder { name, mode }
            }
            10 => Self::Unlink(fields.name()?),
            11 => Self::RemoveFolder(fields.name()?),
            12 => {
                let new_folder = fields.u64()?;
                Self::rename(new_folder, 0, fields)?
            }
            13 => Self::Link {
                node: fields.u64()?,
                name: fields.name()?,
            },
            14 => Self::Open {
                flags: fields.u32()?,
            },
            15 => {
                let (handle, offset, bytes) = fields.place()?;
                Self::Read {
                    handle,
                    offset,
                    bytes,
                }
            }
            16 => {
                let (handle, offset, bytes) = fields.place()?;
                fields.skip(12)?;
                let flags = fields.u32()?;
                fields.skip(4)?;
                let content = fields.0;
                if content.len() != bytes {
                    return Err(Errno::INVAL);
                }
                Self::Write {
                    handle,
                    offset,
                    flags,
                    content,
                }
            }
            17 => Self::FileSystem,
            18 | 29 => Self::Release {
                handle: fields.u64()?,
            },
            27 => Self::OpenFolder,
            28 => {
                let (handle, offset, bytes) = fields.place()?;
                Self::ReadFolder {
                    handle,
                    offset,
                    bytes,
                }
            }
            35 => {
                let (flags, mode) = (fields.u32()?, fields.u32()?);
                fields.skip(8)?;
                let name = fields.name()?;
                Self::Create { name, flags, mode }
            }
            DESTROY => Self::Destroy,
            BATCH_FORGET => {
                let count = fields.u32()?;
                fields.skip(4)?;
                let forgotten = (0..count).map(|_| Ok((fields.u64()?, fields.u64()?)));
                Self::Forget(forgotten.collect::<Result<_, Errno>>()?)
            }
            45 => {
                let (new_folder, flags) = (fields.u64()?, fields.u32()?);
                fields.skip(4)?;
                Self::rename(new_folder, flags, fields)?
            }
            // The kernel does without: locks are each machine's own, nothing is synced, everybody may do everything.
            _ => return Err(Errno::NOSYS),
        })
    }

    fn rename(new_folder: u64, flags: u32, mut fields: Fields<'m>) -> Result<Self, Errno> {
        Ok(Self::Rename {
            name: fields.name()?,
            new_folder,
            new_name: fields.name()?,
            flags,
        })
    }
}

impl Change {
    fn read(fields: &mut Fields<'_>) -> Result<Self, Errno> {
        let valid = fields.u32()?;
        fields.skip(4)?;
        let (handle, size) = (fields.u64()?, fields.u64()?);
        fields.skip(8)?;
        let (accessed, modified) = (fields.u64()?, fields.u64()?);
        fields.skip(8)?;
        let (accessed_ns, modified_ns) = (fields.u32()?, fields.u32()?);
        fields.skip(4)?;
        let mode = fields.u32()?;
        fields.skip(16)?;
        let is = |bit: u32| valid & 1 << bit != 0;
        let time = |given, now, seconds: u64, nanoseconds: u32| Timespec {
            tv_sec: seconds.cast_signed(),
            tv_nsec: match (given, now) {
                (_, true) => UTIME_NOW,
                (true, false) => i64::from(nanoseconds),
                (false, false) => UTIME_OMIT,
            },
        };
        Ok(Self {
            handle: is(6).then_some(handle),
            mode: is(0).then_some(mode),
            size: is(3).then_some(size),
            times: (is(4) || is(5) || is(7) || is(8)).then(|| Timestamps {
                last_access: time(is(4), is(7), accessed, accessed_ns),
                last_modification: time(is(5), is(8), modified, modified_ns),
            }),
        })
    }
}

/// The rest of a message.
struct Fields<'m>(&'m [u8]);

impl<'m> Fields<'m> {
    fn u32(&mut self) -> Result<u32, Errno> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(u32::from_ne_bytes(*bytes))
    }

    fn u64(&mut self) -> Result<u64, Errno> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(u64::from_ne_bytes(*bytes))
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Errno> {
        self.0 = self.0.get(bytes..).ok_or(Errno::INVAL)?;
        Ok(())
    }

    /// Bytes up to a zero.
    fn text(&mut self) -> Result<&'m [u8], Errno> {
        let end = self.0.iter().position(|byte| *byte == 0);
        let (text, rest) = self.0.split_at(end.ok_or(Errno::INVAL)?);
        self.0 = &rest[1..];
        Ok(text)
    }

    fn name(&mut self) -> Result<Name<'m>, Errno> {
        Name::new(self.text()?)
    }

    /// Handle, offset and size of what is read or written, the latter within our bounds.
    fn place(&mut self) -> Result<(u64, u64, usize), Errno> {
        let (handle, offset) = (self.u64()?, self.u64()?);
        let bytes = usize::try_from(self.u32()?).map_err(|_| Errno::INVAL)?;
        // What the kernel asks of files beyond the end of their numbers fails there too.
        if i64::try_from(offset).is_err() {
            return Err(Errno::INVAL);
        }
        Ok((handle, offset, bytes.min(SHARED_DATA_BYTES_MAX)))
    }
}

/// An answer that grows.
#[derive(Debug)]
pub(super) struct Answer(Vec<u8>);

impl Answer {
    pub(super) fn empty() -> Self {
        Self(vec![0; ANSWER_HEADER_BYTES])
    }

    /// What a name leads to. It may lead elsewhere at once, and the attributes be others.
    pub(super) fn entry(node: u64, stat: &Stat) -> Self {
        let mut answer = Self::empty();
        answer.u64(node);
        // Node numbers come once only, so there is one generation; nothing stays true for any time.
        answer.0.extend([0; 32]);
        answer.attributes_of(stat);
        answer
    }

    pub(super) fn attributes(stat: &Stat) -> Self {
        let mut answer = Self::empty();
        answer.0.extend([0; 16]);
        answer.attributes_of(stat);
        answer
    }

    pub(super) fn opened_folder(handle: u64) -> Self {
        let mut answer = Self::empty();
        answer.handle(handle, 0);
        answer
    }

    pub(super) fn opened(handle: u64) -> Self {
        Self::empty().and_opened(handle)
    }

    pub(super) fn and_opened(mut self, handle: u64) -> Self {
        self.handle(handle, OPEN_DIRECT_IO);
        self
    }

    pub(super) fn written(bytes: usize) -> Self {
        let mut answer = Self::empty();
        answer.u32(bytes as u32);
        answer.u32(0);
        answer
    }

    pub(super) fn content(bytes: &[u8]) -> Self {
        let mut answer = Self::empty();
        answer.0.extend(bytes);
        answer
    }

    pub(super) fn file_system(figures: &StatVfs) -> Self {
        let mut answer = Self::empty();
        for number in [
            figures.f_blocks,
            figures.f_bfree,
            figures.f_bavail,
            figures.f_files,
            figures.f_ffree,
        ] {
            answer.u64(number);
        }
        answer.u32(figures.f_bsize as u32);
        answer.u32(NAME_BYTES_MAX as u32);
        answer.u32(figures.f_frsize as u32);
        answer.0.extend([0; 28]);
        answer
    }

    /// Adds an entry of a folder, `next` being where the one after it begins; false if that is more than `bytes_max`.
    pub(super) fn add_entry(
        &mut self,
        inode: u64,
        next: u64,
        file_type: FileType,
        name: &[u8],
        bytes_max: usize,
    ) -> bool {
        let bytes = (24 + name.len()).next_multiple_of(8);
        let end = self.0.len() + bytes;
        if end > ANSWER_HEADER_BYTES + bytes_max {
            return false;
        }
        self.u64(inode);
        self.u64(next);
        self.u32(name.len() as u32);
        self.u32(file_type.as_raw_mode() >> 12);
        self.0.extend(name);
        self.0.resize(end, 0);
        true
    }

    fn attributes_of(&mut self, stat: &Stat) {
        self.u64(stat.st_ino);
        self.u64(stat.st_size.cast_unsigned());
        self.u64(stat.st_blocks.cast_unsigned());
        for seconds in [stat.st_atime, stat.st_mtime, stat.st_ctime] {
            self.u64(seconds.cast_unsigned());
        }
        for nanoseconds in [stat.st_atime_nsec, stat.st_mtime_nsec, stat.st_ctime_nsec] {
            self.u32(nanoseconds as u32);
        }
        self.u32(stat.st_mode);
        self.u32(stat.st_nlink as u32);
        // Whoever it belongs to here, in the machine it is root's; devices are none there.
        self.0.extend([0; 12]);
        self.u32(stat.st_blksize as u32);
        self.u32(0);
    }

    fn handle(&mut self, handle: u64, flags: u32) {
        self.u64(handle);
        self.u32(flags);
        self.u32(0);
    }

    fn u32(&mut self, number: u32) {
        self.0.extend(number.to_ne_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.0.extend(number.to_ne_bytes());
    }
}

/// The message that answers the request `unique`.
pub(super) fn message(unique: u64, answer: Result<Answer, Errno>) -> Vec<u8> {
    let (Answer(mut message), error) = match answer {
        Ok(answer) => (answer, 0),
        Err(errno) => (Answer::empty(), -errno.raw_os_error()),
    };
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message[4..8].copy_from_slice(&error.to_ne_bytes());
    message[8..16].copy_from_slice(&unique.to_ne_bytes());
    message
}
