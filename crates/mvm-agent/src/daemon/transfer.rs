//! Files from and to the host.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use super::services::Services;
use super::work::{Input, Kind, Outlet, Progress, Work, failure, refusal};
use crate::protocol::{DATA_BYTES_MAX, Failure, Lane, Reply, StreamId};

/// The permission bits of a mode; the type bits are not the host's business.
const PERMISSION_BITS: u32 = 0o7777;

/// A file that is being written under another name. Dropping it before it has its own removes it.
#[derive(Debug)]
pub(super) struct Upload {
    target: PathBuf,
    temporary: PathBuf,
    file: File,
    mode: u32,
    chunks: Vec<Vec<u8>>,
    ended: bool,
    in_place: bool,
    refused: bool,
}

impl Upload {
    pub(super) fn begin(path: &str, mode: u32, stream: StreamId) -> Result<Self, Failure> {
        let operation = || format!("write `{path}`");
        let target = PathBuf::from(path);
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(refusal(operation(), "the path names no file"));
        };
        if !target.is_absolute() {
            return Err(refusal(operation(), "the path is not absolute"));
        }
        if target.is_dir() {
            return Err(refusal(operation(), "there is a directory"));
        }
        fs::create_dir_all(parent)
            .map_err(|error| failure(format!("create `{}`", parent.display()), &error))?;
        let temporary = parent.join(temporary_name(name, stream));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary);
        let file = file.map_err(|error| failure(operation(), &error))?;
        let (chunks, ended, in_place, refused) = (Vec::new(), false, false, false);
        Ok(Self {
            target,
            temporary,
            file,
            mode,
            chunks,
            ended,
            in_place,
            refused,
        })
    }

    fn write(&mut self, outlet: &mut Outlet<'_>) -> io::Result<()> {
        for chunk in self.chunks.drain(..) {
            self.file.write_all(&chunk)?;
            outlet.consumed(chunk.len());
        }
        Ok(())
    }

    fn put_in_place(&mut self) -> io::Result<()> {
        self.file
            .set_permissions(fs::Permissions::from_mode(self.mode & PERMISSION_BITS))?;
        // Else a crash after the rename could leave the name with nothing behind it.
        self.file.sync_all()?;
        fs::rename(&self.temporary, &self.target)?;
        self.in_place = true;
        Ok(())
    }
}

/// A name in the same directory, so that the rename stays within one file system.
fn temporary_name(name: &std::ffi::OsStr, StreamId(stream): StreamId) -> std::ffi::OsString {
    const NAME_BYTES_MAX: usize = 200;
    let mut temporary =
        std::ffi::OsString::from(format!(".mvm-upload-{}-{stream}", std::process::id()));
    if name.len() <= NAME_BYTES_MAX {
        temporary.push("-");
        temporary.push(name);
    }
    temporary
}

impl Work for Upload {
    fn kind(&self) -> Kind {
        Kind::Transfer
    }

    fn interests<'a>(&'a self, _may_send: bool, _interests: &mut Vec<PollFd<'a>>) {}

    fn input(&mut self, input: Input) {
        match input {
            Input::Data(chunk) => self.chunks.push(chunk),
            Input::End => self.ended = true,
            Input::Kill => self.refused = true,
            Input::Signal(_) | Input::Resize(_) => {}
        }
    }

    fn advance(
        &mut self,
        _now: Instant,
        _services: &Services,
        outlet: &mut Outlet<'_>,
    ) -> Result<Progress, Failure> {
        let operation = |target: &Path| format!("write `{}`", target.display());
        if self.refused {
            return Err(refusal(operation(&self.target), "the host gave up"));
        }
        self.write(outlet)
            .map_err(|error| failure(operation(&self.target), &error))?;
        if !self.ended {
            return Ok(Progress::Going);
        }
        self.put_in_place()
            .map_err(|error| failure(operation(&self.target), &error))?;
        Ok(Progress::Done(Reply::Nothing))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.in_place {
            // It may have been removed with its directory.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// A file that is being read.
#[derive(Debug)]
pub(super) struct Download {
    path: String,
    file: File,
    mode: u32,
}

impl Download {
    pub(super) fn begin(path: &str) -> Result<Self, Failure> {
        let operation = || format!("read `{path}`");
        // Without O_NONBLOCK, opening a pipe would wait for its writer.
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path);
        let file = opened.map_err(|error| failure(operation(), &error))?;
        let metadata = file
            .metadata()
            .map_err(|error| failure(operation(), &error))?;
        if !metadata.is_file() {
            return Err(refusal(
                operation(),
                format!("it is {}, not a regular file", kind(metadata.file_type())),
            ));
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            mode: metadata.permissions().mode() & PERMISSION_BITS,
        })
    }
}

fn kind(file_type: fs::FileType) -> &'static str {
    if file_type.is_dir() {
        "a directory"
    } else if file_type.is_fifo() || file_type.is_socket() {
        "a pipe or socket"
    } else {
        "a device"
    }
}

impl Work for Download {
    fn kind(&self) -> Kind {
        Kind::Transfer
    }

    fn interests<'a>(&'a self, may_send: bool, interests: &mut Vec<PollFd<'a>>) {
        // A regular file is always ready: the loop comes back until all is sent, and others get their turn.
        if may_send {
            interests.push(PollFd::new(&self.file, PollFlags::IN));
        }
    }

    fn input(&mut self, _input: Input) {}

    fn advance(
        &mut self,
        _now: Instant,
        _services: &Services,
        outlet: &mut Outlet<'_>,
    ) -> Result<Progress, Failure> {
        let room = outlet.room();
        if room == 0 {
            return Ok(Progress::Going);
        }
        let mut buffer = [0; DATA_BYTES_MAX];
        match self.file.read(&mut buffer[..room]) {
            Ok(0) => Ok(Progress::Done(Reply::File { mode: self.mode })),
            Ok(count) => {
                outlet.data(Lane::Main, &buffer[..count]);
                Ok(Progress::Going)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Progress::Going),
            Err(error) => Err(failure(format!("read `{}`", self.path), &error)),
        }
    }
}
