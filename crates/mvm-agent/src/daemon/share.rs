//! The folder that a lab's machines and their host have in common: a FUSE file system whose operations the host answers.
//!
//! The kernel's messages go over a port of their own as they are; what they mean is the host's and the kernel's. A thread of
//! its own passes them on, and shares nothing with the loop: a command's `sendfile` from that folder into its output holds
//! the very pipe that the loop reads until the file system has answered.
//!
//! When the conversation ends the device is closed, so the kernel fails everything under way and everything after: nobody
//! hangs. The mount stays, and says so, until it is mounted anew.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::thread::JoinHandle;

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::pipe::{PipeFlags, pipe_with};

use super::work::failure;
use super::{mounts, port};
use crate::boot::SHARED_PORT_NAME;
use crate::protocol::{
    Failure, Nonce, SHARED_DATA_BYTES_MAX, SHARED_FOLDER, SHARED_MESSAGE_BYTES_MAX, read_shared,
    write_shared,
};
use crate::wire::Decoder;

const DEVICE: &str = "/dev/fuse";
const FILESYSTEM: &str = "fuse";
const READ_BYTES: usize = 64 * 1024;

/// The folder while it is served. Dropping it fails whatever is under way there.
#[derive(Debug)]
pub(super) struct Share {
    /// Closed to stop the thread.
    stop: Option<OwnedFd>,
    relay: Option<JoinHandle<()>>,
}

impl Share {
    /// Mounts the file system, in place of one that is served no longer.
    pub(super) fn begin(session: Nonce) -> Result<Self, Failure> {
        begin(session).map_err(|error| failure(format!("mount {SHARED_FOLDER}"), &error))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        drop(self.stop.take());
        // It never waits for anything but this and its two ends.
        self.relay.take().map(JoinHandle::join);
    }
}

fn begin(session: Nonce) -> io::Result<Share> {
    let port = port::open(SHARED_PORT_NAME)?;
    let device = mount_anew()?;
    let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
    let relay = Relay {
        session,
        device,
        port,
        decoder: Decoder::new(),
        outgoing: Vec::new(),
    };
    let relay = std::thread::Builder::new().spawn(move || {
        // Whoever uses the folder sees that it is gone.
        let _ = relay.run(&stopped);
    })?;
    Ok(Share {
        stop: Some(stop),
        relay: Some(relay),
    })
}

fn mount_anew() -> io::Result<File> {
    while mounts::is_mounted(SHARED_FOLDER, FILESYSTEM) {
        unmount(SHARED_FOLDER, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
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
    mount(
        "shared",
        SHARED_FOLDER,
        FILESYSTEM,
        MountFlags::NOSUID | MountFlags::NODEV,
        Some(CString::new(options)?.as_c_str()),
    )?;
    Ok(device)
}

/// What goes between the kernel and the port.
struct Relay {
    session: Nonce,
    device: File,
    port: OwnedFd,
    decoder: Decoder,
    /// The packet of the kernel's last message, as far as the port has not taken it.
    outgoing: Vec<u8>,
}

impl Relay {
    /// Relays until it is stopped, the file system is unmounted, or the host is gone.
    fn run(mut self, stopped: &OwnedFd) -> io::Result<()> {
        loop {
            let is_idle = self.outgoing.is_empty();
            let mut port_flags = PollFlags::IN;
            port_flags.set(PollFlags::OUT, !is_idle);
            let mut interests = vec![
                PollFd::new(stopped, PollFlags::IN),
                PollFd::new(&self.port, port_flags),
            ];
            // One message at a time: the others wait in the kernel.
            if is_idle {
                interests.push(PollFd::new(&self.device, PollFlags::IN));
            }
            match poll(&mut interests, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let ready: Vec<_> = interests.iter().map(PollFd::revents).collect();
            if !ready[0].is_empty() || ready[1].contains(PollFlags::HUP) {
                return Ok(());
            }
            if ready[1].contains(PollFlags::IN) {
                self.answer()?;
            }
            if is_idle && !ready[2].is_empty() {
                self.ask()?;
            }
            self.send()?;
        }
    }

    /// Hands the host's messages to the kernel.
    fn answer(&mut self) -> io::Result<()> {
        let mut buffer = [0; READ_BYTES];
        let Some(count) = would_block(rustix::io::read(&self.port, &mut buffer))? else {
            return Ok(());
        };
        let mut bytes = &buffer[..count];
        while let Some(content) = self.decoder.next(&mut bytes) {
            let Some(message) = read_shared(self.session, &content) else {
                continue;
            };
            match rustix::io::write(&self.device, message) {
                // Whoever asked was killed meanwhile.
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Takes the kernel's next message.
    fn ask(&mut self) -> io::Result<()> {
        let mut message = Vec::with_capacity(SHARED_MESSAGE_BYTES_MAX);
        match rustix::io::read(&self.device, spare_capacity(&mut message)) {
            // Whoever asked was killed meanwhile.
            Err(Errno::NOENT) => {}
            read => {
                if would_block(read)?.is_some() {
                    write_shared(self.session, &message, &mut self.outgoing);
                }
            }
        }
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match would_block(rustix::io::write(&self.port, &self.outgoing))? {
                Some(count) => drop(self.outgoing.drain(..count)),
                None => break,
            }
        }
        Ok(())
    }
}

/// `None` for what can be done later.
fn would_block(done: Result<usize, Errno>) -> io::Result<Option<usize>> {
    match done {
        Ok(count) => Ok(Some(count)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
