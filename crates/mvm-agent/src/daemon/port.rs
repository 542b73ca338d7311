//! The virtio-serial port on the guest's side of the channel.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};

use crate::boot::PORT_NAME;

/// Paces the look for the port: it appears some milliseconds after its driver was loaded.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Opens the port once it is there. Without one the agent is of no use, so it waits for ever.
pub(super) fn wait_for_virtio() -> OwnedFd {
    loop {
        if let Some(port) = find().and_then(|path| {
            open(
                path,
                OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .ok()
        }) {
            return port;
        }
        sleep(LOOK_INTERVAL);
    }
}

fn find() -> Option<PathBuf> {
    fs::read_dir("/sys/class/virtio-ports")
        .ok()?
        .flatten()
        .find_map(|entry| {
            let name = fs::read_to_string(entry.path().join("name")).ok()?;
            (name.trim() == PORT_NAME).then(|| PathBuf::from("/dev").join(entry.file_name()))
        })
}
