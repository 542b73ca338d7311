//! The virtio-serial ports on the guest's side.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::boot::PORT_NAME;

/// Paces the look for the port: it appears some milliseconds after its driver was loaded.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Opens the port once it is there. Without one the agent is of no use, so it waits for ever.
pub(super) fn wait_for_virtio() -> OwnedFd {
    loop {
        if let Ok(port) = open(PORT_NAME) {
            return port;
        }
        sleep(LOOK_INTERVAL);
    }
}

/// Opens the port of this name, which somebody else must not have open.
pub(super) fn open(name: &str) -> io::Result<OwnedFd> {
    let path =
        find(name).ok_or_else(|| io::Error::other(format!("the machine has no port {name}")))?;
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn find(name: &str) -> Option<PathBuf> {
    fs::read_dir("/sys/class/virtio-ports")
        .ok()?
        .flatten()
        .find_map(|entry| {
            let told = fs::read_to_string(entry.path().join("name")).ok()?;
            (told.trim() == name).then(|| PathBuf::from("/dev").join(entry.file_name()))
        })
}
