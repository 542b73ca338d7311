//! The folder that a lab's machines and their host have in common: a FUSE file system whose operations the host answers.
//!
//! The kernel's messages go over the channel as they are; each tells its length at its beginning. Here they are only cut and
//! written: what they mean is the host's and the kernel's. When the stream ends the device is closed, so the kernel fails
//! everything under way and everything after: nobody hangs. The mount stays, and says so, until it is mounted anew.
//!
//! What the loop itself did in that folder would wait for the loop for ever, see [`refuse_within`].

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::mounts;
use super::services::Services;
use super::work::{Input, Kind, Outlet, Progress, Work, failure, refusal};
use crate::protocol::{
    Failure, Lane, Reply, SHARED_DATA_BYTES_MAX, SHARED_FOLDER, SHARED_MESSAGE_BYTES_MAX,
    shared_message_bytes,
};

const DEVICE: &str = "/dev/fuse";
const FILESYSTEM: &str = "fuse";

/// The kernel's end of the file system. Dropping it fails whatever is under way there.
#[derive(Debug)]
pub(super) struct Share {
    device: File,
    /// The kernel's message that is being sent, and how much of it was.
    request: Vec<u8>,
    sent: usize,
    chunks: Vec<Vec<u8>>,
    /// The beginning of the host's next message.
    answer: Vec<u8>,
    ended: bool,
}

/// Refuses what the loop would do in the folder by itself.
pub(super) fn refuse_within(
    path: &str,
    operation: impl FnOnce() -> String,
) -> Result<(), Failure> {
    if Path::new(path).starts_with(SHARED_FOLDER) {
        return Err(refusal(
            operation(),
            format!(
                "`{path}` is in the folder that the agent itself serves; a shell in the machine can use it, and the host has its own way to it"
            ),
        ));
    }
    Ok(())
}

impl Share {
    /// Mounts the file system, in place of one that an earlier conversation left.
    pub(super) fn begin() -> Result<Self, Failure> {
        let device =
            mount_anew().map_err(|error| failure(format!("mount {SHARED_FOLDER}"), &error))?;
        Ok(Self {
            device,
            request: Vec::with_capacity(SHARED_MESSAGE_BYTES_MAX),
            sent: 0,
            chunks: Vec::new(),
            answer: Vec::new(),
            ended: false,
        })
    }

    /// Hands the host's messages to the kernel.
    fn answer(&mut self, outlet: &mut Outlet<'_>) -> Result<(), Failure> {
        for chunk in self.chunks.drain(..) {
            self.answer.extend_from_slice(&chunk);
            outlet.consumed(chunk.len());
        }
        let mut rest = self.answer.as_slice();
        while let Some(bytes) = shared_message_bytes(rest)
            .map_err(|_| refusal("answer the kernel", "the host sent no FUSE message"))?
            && let Some((message, after)) = rest.split_at_checked(bytes)
        {
            match rustix::io::write(&self.device, message) {
                // Whoever asked was killed meanwhile.
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failure("answer the kernel", &errno.into())),
            }
            rest = after;
        }
        self.answer.drain(..self.answer.len() - rest.len());
        Ok(())
    }

    /// Takes the kernel's next message; false once the file system was unmounted.
    fn ask(&mut self) -> Result<bool, Failure> {
        match rustix::io::read(&self.device, spare_capacity(&mut self.request)) {
            Ok(_) => Ok(true),
            // Whoever asked was killed meanwhile.
            Err(Errno::AGAIN | Errno::INTR | Errno::NOENT) => Ok(true),
            Err(Errno::NODEV | Errno::CONNABORTED) => Ok(false),
            Err(errno) => Err(failure(format!("read {DEVICE}"), &errno.into())),
        }
    }

    fn send(&mut self, outlet: &mut Outlet<'_>) {
        while self.sent < self.request.len() && outlet.room() > 0 {
            let rest = &self.request[self.sent..];
            let count = rest.len().min(outlet.room());
            outlet.data(Lane::Main, &rest[..count]);
            self.sent += count;
        }
        if self.sent == self.request.len() {
            self.request.clear();
            self.sent = 0;
        }
    }
}

fn mount_anew() -> io::Result<File> {
    while mounts::is_mounted(SHARED_FOLDER, FILESYSTEM) {
        unmount(
            SHARED_FOLDER,
            UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
        )?;
    }
    fs::create_dir_all(SHARED_FOLDER)?;
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(DEVICE)?;
    // Everybody may use it: owners are not kept, so there is nothing to tell users apart by.
    let options = format!(
        "fd={},rootmode=40755,user_id=0,group_id=0,allow_other,max_read={SHARED_DATA_BYTES_MAX}",
        device.as_raw_fd()
    );
    let options = std::ffi::CString::new(options)?;
    mount(
        "shared",
        SHARED_FOLDER,
        FILESYSTEM,
        MountFlags::NOSUID | MountFlags::NODEV,
        Some(options.as_c_str()),
    )?;
    Ok(device)
}

impl Work for Share {
    fn kind(&self) -> Kind {
        Kind::Share
    }

    fn interests<'a>(&'a self, may_send: bool, interests: &mut Vec<PollFd<'a>>) {
        if may_send && self.request.is_empty() {
            interests.push(PollFd::new(&self.device, PollFlags::IN));
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Data(chunk) => self.chunks.push(chunk),
            Input::End | Input::Kill => self.ended = true,
            Input::Signal(_) | Input::Resize(_) => {}
        }
    }

    fn advance(
        &mut self,
        _now: Instant,
        _services: &Services,
        outlet: &mut Outlet<'_>,
    ) -> Result<Progress, Failure> {
        self.answer(outlet)?;
        // One message each time: others get their turn.
        let is_mounted = !self.request.is_empty() || outlet.room() == 0 || self.ask()?;
        self.send(outlet);
        Ok(match self.ended || !is_mounted {
            true => Progress::Done(Reply::Nothing),
            false => Progress::Going,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_within(path: &str, is_within: bool) {
        let refused = refuse_within(path, || "use it".to_owned());
        assert_eq!(refused.is_err(), is_within, "{path}");
    }

    #[test]
    fn what_lies_in_the_folder_is_refused() {
        check_within("/tmp/shared", true);
        check_within("/tmp//shared/", true);
        check_within("/tmp/shared/a/b", true);
        check_within("/tmp/shared-not", false);
        check_within("/tmp", false);
        check_within("tmp/shared", false);
    }
}
