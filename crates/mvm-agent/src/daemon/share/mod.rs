//! The folder that a lab's machines and their host have in common: a FUSE file system whose operations the host answers.
//!
//! The kernel's messages go over a port of their own as they are; what they mean is the host's and the kernel's, but for
//! their first one ([`fuse`]). A thread of its own passes them on ([`relay`]), and shares nothing with the loop but whose
//! the folder is: a command's `sendfile` from that folder into its output holds the very pipe that the loop reads until the
//! file system has answered.
//!
//! It is mounted once, before a machine is frozen for the first time: each that is resumed has it behind it. Who answers
//! comes and goes with conversations. Where nobody does everything fails, what was under way and what follows: nobody hangs.

mod fuse;
mod relay;

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, eventfd};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use self::relay::Relay;
use super::work::failure;
use super::{mounts, port};
use crate::boot::SHARED_PORT_NAME;
use crate::protocol::{
    Failure, Nonce, SHARED_DATA_BYTES_MAX, SHARED_FOLDER, SHARED_MESSAGE_BYTES_MAX,
};

const DEVICE: &str = "/dev/fuse";
const FILESYSTEM: &str = "fuse";

/// The folder, mounted.
#[derive(Debug)]
pub(super) struct Share {
    relay: JoinHandle<()>,
    desk: Arc<Desk>,
}

/// The folder while the host answers. Dropping it fails whatever is under way there.
#[derive(Debug)]
pub(super) struct Served(Arc<Desk>);

/// Who answers: what the loop tells the thread.
#[derive(Debug)]
struct Desk {
    session: Mutex<Option<Nonce>>,
    /// Readable when a session ended. The next one needs no thread to wake up: nothing waits for it.
    ended: OwnedFd,
}

impl Share {
    /// Mounts the file system, in place of one that is there no longer.
    pub(super) fn mount() -> Result<Self, Failure> {
        mount_and_relay().map_err(|error| failure(format!("mount {SHARED_FOLDER}"), &error))
    }

    /// Whether it was unmounted, or lost its port.
    pub(super) fn is_over(&self) -> bool {
        self.relay.is_finished()
    }

    /// Has the host answer; one session at a time.
    pub(super) fn serve(&self, session: Nonce) -> Served {
        self.desk.set(Some(session));
        Served(Arc::clone(&self.desk))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.set(None);
        // The counter of an eventfd that nobody read yet says all there is to say.
        let _ = rustix::io::write(&self.0.ended, &1_u64.to_ne_bytes());
    }
}

impl Desk {
    fn new() -> io::Result<Self> {
        Ok(Self {
            session: Mutex::new(None),
            ended: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    fn session(&self) -> Option<Nonce> {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, session: Option<Nonce>) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = session;
    }
}

fn mount_and_relay() -> io::Result<Share> {
    let port = port::open(SHARED_PORT_NAME)?;
    let device = mount_anew()?;
    let desk = Arc::new(Desk::new()?);
    let relay = Relay::new(device, port, Arc::clone(&desk));
    let relay = std::thread::Builder::new().spawn(move || {
        // Whoever uses the folder sees that it is gone.
        let _ = relay.run();
    })?;
    Ok(Share { relay, desk })
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
    // The kernel has asked this while it mounted, and asks nothing else before it is answered.
    let mut message = Vec::with_capacity(SHARED_MESSAGE_BYTES_MAX);
    rustix::io::read(&device, spare_capacity(&mut message))?;
    rustix::io::write(&device, &fuse::introduce(&message)?)?;
    Ok(device)
}
