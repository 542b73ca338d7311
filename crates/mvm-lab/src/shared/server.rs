//! What the requests of a machine's kernel do to the folder on the host.
//!
//! Nothing outside of the folder is reached: a path is resolved by the host's kernel without links and mounts, and beneath
//! the folder only (`openat2(2)`); a link is read, not followed; and what is then opened is the very file that was looked at.
//! Files are plain ones, folders and links: no device, pipe or socket, at which a program of the host could hang, and no
//! program that runs as somebody else.

use std::{
    collections::HashMap,
    io::IoSlice,
    mem::MaybeUninit,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use rustix::{
    buffer::spare_capacity,
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, RawDir, RenameFlags, ResolveFlags, SeekFrom, Stat,
        chmod, fstat, fstatvfs, ftruncate, linkat, mkdirat, open, openat2, readlinkat,
        renameat_with, seek, statat, symlinkat, unlinkat, utimensat,
    },
    io::{Errno, ReadWriteFlags, pread, pwritev2},
};

use super::{
    fuse::{self, Answer, Change, Malformed, Name, Operation, Request},
    nodes::{Identity, Nodes, first_number},
};

/// How many files and folders a machine may have open at once: each costs the host a descriptor.
const HANDLES_MAX: usize = 128;
/// A listing is read in pieces of this size.
const LISTING_BYTES: usize = 16 * 1024;
/// No set-user-ID and set-group-ID: the files are the host's user's.
const MODE_BITS: u32 = 0o1777;

/// The folder as one machine's kernel knows it.
#[derive(Debug)]
pub(super) struct Server {
    folder: OwnedFd,
    nodes: Nodes,
    handles: HashMap<u64, Handle>,
    last_handle: u64,
}

/// What the machine has open.
#[derive(Debug)]
struct Handle {
    node: u64,
    file: OwnedFd,
}

/// A node held on to, so that it can be used under a path that leads to nothing else.
struct Held {
    _file: Option<OwnedFd>,
    path: String,
    stat: Stat,
}

impl Server {
    /// Opens the folder, which is there. What its kernel is told in a session has no meaning in another.
    pub(super) fn open(folder: &Path, session: u64) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = open(folder, flags, Mode::empty())?;
        // Without it nothing could be told to be beneath the folder.
        openat2(&folder, ".", flags, Mode::empty(), beneath())?;
        Ok(Self {
            folder,
            nodes: Nodes::of(session),
            handles: HashMap::new(),
            last_handle: first_number(session),
        })
    }

    /// Answers a message of the kernel, if it waits for an answer. Blocks.
    ///
    /// # Errors
    ///
    /// For what is no message.
    pub(super) fn answer(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
        let request = Request::read(message)?;
        let answer = request
            .operation
            .and_then(|operation| self.carry_out(request.node, operation));
        Ok(request
            .is_answered
            .then(|| fuse::message(request.unique, answer)))
    }

    fn carry_out(&mut self, node: u64, operation: Operation<'_>) -> Result<Answer, Errno> {
        match operation {
            Operation::Lookup(name) => self.entry(node, name),
            Operation::Forget(forgotten) => {
                for (node, times) in forgotten {
                    self.nodes.forget(node, times);
                }
                Ok(Answer::empty())
            }
            Operation::Attributes { handle } => {
                let stat = match handle {
                    Some(handle) => fstat(self.handle(handle)?)?,
                    None => self.hold(node)?.stat,
                };
                Ok(Answer::attributes(&stat))
            }
            Operation::Change(change) => self.change(node, &change),
            Operation::ReadLink => self.read_link(node),
            Operation::SymbolicLink { name, target } => {
                symlinkat(target, self.folder(node)?, name.get())?;
                self.entry(node, name)
            }
            Operation::MakeNode { name, mode } => {
                if FileType::from_raw_mode(mode) != FileType::RegularFile {
                    return Err(Errno::PERM);
                }
                let folder = self.folder(node)?;
                create(&folder, name, OFlags::WRONLY, mode)?;
                self.entry(node, name)
            }
            Operation::MakeFolder { name, mode } => self.make_folder(node, name, mode),
            Operation::Unlink(name) => self.remove(node, name, AtFlags::empty()),
            Operation::RemoveFolder(name) => self.remove(node, name, AtFlags::REMOVEDIR),
            Operation::Rename {
                name,
                new_folder,
                new_name,
                flags,
            } => self.rename((node, name), (new_folder, new_name), flags),
            Operation::Link { node: linked, name } => {
                let (folder, linked_name) = self.nodes.place(linked)?;
                let (from, to) = (self.folder(folder)?, self.folder(node)?);
                linkat(from, linked_name, to, name.get(), AtFlags::empty())?;
                self.entry(node, name)
            }
            Operation::Open { flags } => {
                let file = self.open_file(node, opening(flags))?;
                Ok(Answer::opened(self.keep(node, file)?))
            }
            Operation::Create { name, flags, mode } => self.create(node, name, flags, mode),
            Operation::Read {
                handle,
                offset,
                bytes,
            } => {
                let mut content = Vec::with_capacity(bytes);
                if bytes > 0 {
                    pread(self.handle(handle)?, spare_capacity(&mut content), offset)?;
                }
                content.truncate(bytes);
                Ok(Answer::content(&content))
            }
            Operation::Write {
                handle,
                offset,
                flags,
                content,
            } => {
                let is_appended = flags & OFlags::APPEND.bits() != 0;
                // The machine does not know where the end is by now; the host's kernel does.
                let how = match is_appended {
                    true => ReadWriteFlags::APPEND,
                    false => ReadWriteFlags::empty(),
                };
                let content = [IoSlice::new(content)];
                let bytes = pwritev2(self.handle(handle)?, &content, offset, how)?;
                Ok(Answer::written(bytes))
            }
            Operation::OpenFolder => {
                let path = self.nodes.path(node)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let folder = self.open_beneath(&path, flags)?;
                Ok(Answer::opened_folder(self.keep(node, folder)?))
            }
            Operation::ReadFolder {
                handle,
                offset,
                bytes,
            } => self.list(handle, offset, bytes),
            Operation::Release { handle } => {
                self.handles.remove(&handle).ok_or(Errno::BADF)?;
                Ok(Answer::empty())
            }
            Operation::FileSystem => Ok(Answer::file_system(&fstatvfs(&self.folder)?)),
            Operation::Destroy => {
                self.handles.clear();
                Ok(Answer::empty())
            }
        }
    }

    /// Looks a name up and tells the kernel of what it leads to.
    fn entry(&mut self, folder: u64, name: Name<'_>) -> Result<Answer, Errno> {
        let stat = statat(self.folder(folder)?, name.get(), AtFlags::SYMLINK_NOFOLLOW)?;
        let node = self.nodes.found(folder, name, &stat)?;
        Ok(Answer::entry(node, &stat))
    }

    fn change(&mut self, node: u64, change: &Change) -> Result<Answer, Errno> {
        let held = self.hold(node)?;
        if let Some(mode) = change.mode {
            chmod(&held.path, permissions(mode))?;
        }
        if let Some(size) = change.size {
            match change.handle {
                Some(handle) => ftruncate(self.handle(handle)?, size)?,
                None => ftruncate(self.open_file(node, OFlags::WRONLY)?, size)?,
            }
        }
        if let Some(times) = &change.times {
            utimensat(CWD, &held.path, times, AtFlags::empty())?;
        }
        Ok(Answer::attributes(&self.hold(node)?.stat))
    }

    fn read_link(&self, node: u64) -> Result<Answer, Errno> {
        let (folder, name) = self.nodes.place(node)?;
        let target = readlinkat(self.folder(folder)?, name, Vec::new())?;
        Ok(Answer::content(target.as_bytes()))
    }

    fn make_folder(&mut self, node: u64, name: Name<'_>, mode: u32) -> Result<Answer, Errno> {
        mkdirat(self.folder(node)?, name.get(), Mode::RWXU)?;
        let path = self.nodes.path(node)?.join(name.get());
        let made = self.open_beneath(&path, OFlags::PATH | OFlags::DIRECTORY)?;
        // As the machine has it, whatever this process's mask says.
        chmod(path_of(&made), permissions(mode))?;
        self.entry(node, name)
    }

    fn remove(&mut self, node: u64, name: Name<'_>, how: AtFlags) -> Result<Answer, Errno> {
        unlinkat(self.folder(node)?, name.get(), how)?;
        self.nodes.removed(node, name);
        Ok(Answer::empty())
    }

    fn rename(
        &mut self,
        from: (u64, Name<'_>),
        to: (u64, Name<'_>),
        flags: u32,
    ) -> Result<Answer, Errno> {
        let flags = RenameFlags::from_bits_retain(flags);
        // Two names that change places, and what stays behind on a layer, are nobody's in a test.
        if !RenameFlags::NOREPLACE.contains(flags) {
            return Err(Errno::INVAL);
        }
        let (old, new) = (self.folder(from.0)?, self.folder(to.0)?);
        renameat_with(old, from.1.get(), new, to.1.get(), flags)?;
        self.nodes.moved(from, to);
        Ok(Answer::empty())
    }

    fn create(
        &mut self,
        node: u64,
        name: Name<'_>,
        flags: u32,
        mode: u32,
    ) -> Result<Answer, Errno> {
        let is_exclusive = flags & OFlags::EXCL.bits() != 0;
        let created = create(&self.folder(node)?, name, opening(flags), mode);
        let file = match created {
            // Another machine was first.
            Err(Errno::EXIST) if !is_exclusive => None,
            created => Some(created?),
        };
        let stat = statat(self.folder(node)?, name.get(), AtFlags::SYMLINK_NOFOLLOW)?;
        let found = self.nodes.found(node, name, &stat)?;
        let opened = file
            .map_or_else(|| self.open_file(found, opening(flags)), Ok)
            .and_then(|file| self.keep(found, file));
        match opened {
            Ok(handle) => Ok(Answer::entry(found, &stat).and_opened(handle)),
            Err(errno) => {
                // The kernel hears nothing of it.
                self.nodes.forget(found, 1);
                Err(errno)
            }
        }
    }

    fn list(&self, handle: u64, offset: u64, bytes_max: usize) -> Result<Answer, Errno> {
        let folder = self.handle(handle)?;
        seek(folder, SeekFrom::Start(offset))?;
        let mut buffer = [MaybeUninit::uninit(); LISTING_BYTES];
        let mut entries = RawDir::new(folder, &mut buffer);
        let mut answer = Answer::empty();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let fits = answer.add_entry(
                entry.ino(),
                entry.next_entry_cookie(),
                entry.file_type(),
                entry.file_name().to_bytes(),
                bytes_max,
            );
            if !fits {
                break;
            }
        }
        Ok(answer)
    }

    /// Opens a plain file; nothing happens to what is none.
    fn open_file(&self, node: u64, flags: OFlags) -> Result<OwnedFd, Errno> {
        let held = self.hold(node)?;
        match FileType::from_raw_mode(held.stat.st_mode) {
            FileType::RegularFile => open(&held.path, flags | OFlags::CLOEXEC, Mode::empty()),
            FileType::Directory => Err(Errno::ISDIR),
            FileType::Symlink => Err(Errno::LOOP),
            _ => Err(Errno::PERM),
        }
    }

    /// Holds on to what a node is, by its place, or by what the machine has open of it if that place is another's.
    fn hold(&self, node: u64) -> Result<Held, Errno> {
        let by_place = || {
            let path = self.nodes.path(node)?;
            let file = self.open_beneath(&path, OFlags::PATH | OFlags::NOFOLLOW)?;
            let stat = fstat(&file)?;
            let identity = self.nodes.identity(node);
            if identity.is_some_and(|identity| identity != Identity::of(&stat)) {
                return Err(Errno::STALE);
            }
            let path = path_of(&file);
            Ok(Held {
                _file: Some(file),
                path,
                stat,
            })
        };
        by_place().or_else(|errno| {
            let mut opened = self.handles.values().filter(|handle| handle.node == node);
            let file = &opened.next().ok_or(errno)?.file;
            Ok(Held {
                _file: None,
                path: path_of(file),
                stat: fstat(file)?,
            })
        })
    }

    fn folder(&self, node: u64) -> Result<OwnedFd, Errno> {
        let path = self.nodes.path(node)?;
        self.open_beneath(&path, OFlags::PATH | OFlags::DIRECTORY)
    }

    fn open_beneath(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        openat2(
            &self.folder,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            beneath(),
        )
    }

    fn handle(&self, handle: u64) -> Result<&OwnedFd, Errno> {
        let handle = self.handles.get(&handle).ok_or(Errno::BADF)?;
        Ok(&handle.file)
    }

    fn keep(&mut self, node: u64, file: OwnedFd) -> Result<u64, Errno> {
        if self.handles.len() >= HANDLES_MAX {
            return Err(Errno::NFILE);
        }
        self.last_handle += 1;
        self.handles.insert(self.last_handle, Handle { node, file });
        Ok(self.last_handle)
    }
}

fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV
}

/// A path that leads to what is open and nowhere else, and does not go on where that is a link.
fn path_of(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Makes a new file, with the mode that the machine wants, whatever this process's mask says.
fn create(folder: &OwnedFd, name: Name<'_>, flags: OFlags, mode: u32) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat2(
        folder,
        name.get(),
        flags,
        Mode::RUSR | Mode::WUSR,
        beneath(),
    )?;
    rustix::fs::fchmod(&file, permissions(mode))?;
    Ok(file)
}

/// How a file is opened here if the machine opens it so; where writes go, each of them tells.
fn opening(flags: u32) -> OFlags {
    OFlags::from_bits_retain(flags) & (OFlags::RWMODE | OFlags::TRUNC)
}

fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & MODE_BITS)
}
