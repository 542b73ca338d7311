//! Recording what passes and what is dropped to a file, which Wireshark and tshark open.
//!
//! How frames are recorded and what the file holds is told at [`mvm_fabric::PacketCapture`].

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak},
};

use mvm_fabric::{
    PacketCapture, PacketCaptureOptions, PacketCaptureSummary, Port, Stopped, Switch, Tap, TapError,
};

use super::{Network, NetworkError, Shared, lock};
use crate::event::Event;

impl Network {
    /// Records all cards in view to a new file, from now on and until the returned guard is finished or dropped.
    ///
    /// It goes on in a lab that is restored. Each card is an interface of the file, named as `n1 eth1`; dropped frames
    /// are in it, with a comment that tells why. At most a gibibyte is recorded; what is missed is counted.
    ///
    /// # Errors
    ///
    /// If the file cannot be made, or the switch has stopped.
    pub fn capture(&self, file: &Path) -> Result<Capture, NetworkError> {
        self.capture_of(&self.names(), file)
    }

    /// Records as [`Network::capture`] does, but of the cards of these machines only.
    ///
    /// A frame is recorded at the card that it comes from and at the one that it is for, as far as those are
    /// recorded.
    ///
    /// # Errors
    ///
    /// If there is no such machine, the file cannot be made, or the switch has stopped.
    pub fn capture_of(&self, machines: &[&str], file: &Path) -> Result<Capture, NetworkError> {
        let wiring = &self.shared.wiring;
        let mut interfaces = BTreeMap::new();
        let links = self.switch().links()?;
        for name in machines {
            let places = wiring.places[self.machine(name)?].iter();
            for place in places.filter(|place| self.views(place.segment)) {
                interfaces.insert(place.port, links.name(place.port).to_string());
            }
        }
        let capture =
            PacketCapture::create(file, PacketCaptureOptions::DEFAULT).map_err(|source| {
                NetworkError::CaptureFile {
                    path: file.to_owned(),
                    source,
                }
            })?;
        let running = Arc::new(Running {
            capture,
            interfaces,
            tap: Mutex::default(),
        });
        running.tap(&self.switch())?;
        let mut captures = lock(&self.shared.captures);
        captures.retain(|capture| capture.strong_count() > 0);
        captures.push(Arc::downgrade(&running));
        self.shared.recorder.record(Event::Note {
            text: self.said(format!(
                "capture of {} to {}",
                machines.join(", "),
                file.display()
            )),
        });
        Ok(Capture {
            running: Some(running),
            shared: Arc::clone(&self.shared),
            path: file.to_owned(),
        })
    }
}

/// Lets the captures that run record another switch, which has the same ports.
pub(super) fn follow(captures: &[Weak<Running>], switch: &Switch) -> Result<(), Stopped> {
    captures
        .iter()
        .filter_map(Weak::upgrade)
        .try_for_each(|capture| capture.tap(switch))
}

/// A capture of the network, until this is finished or dropped; made by [`Network::capture`].
#[must_use = "dropped at once, it ends at once"]
pub struct Capture {
    /// `None` once finished.
    running: Option<Arc<Running>>,
    shared: Arc<Shared>,
    path: PathBuf,
}

impl Capture {
    /// Ends it, waits until the file is written, and tells what is in it.
    ///
    /// # Errors
    ///
    /// If the file could not be written, as on a full disk; it ends with what was written before.
    pub fn finish(mut self) -> Result<PacketCaptureSummary, NetworkError> {
        self.end()
            .unwrap_or_else(|| Ok(PacketCaptureSummary::default()))
    }

    fn end(&mut self) -> Option<Result<PacketCaptureSummary, NetworkError>> {
        let running = self.running.take()?;
        drop(lock(&running.tap).take());
        let finished = running.capture.finish().map_err(NetworkError::from);
        if let Ok(told) = &finished {
            let missed = told.lost + told.left_out;
            self.shared.recorder.record(Event::Note {
                text: format!(
                    "captured {} frames sent by machines, {} that they got and {} dropped to {}{}",
                    told.received,
                    told.sent,
                    told.dropped,
                    self.path.display(),
                    match missed {
                        0 => String::new(),
                        _ => format!("; {missed} records are missing"),
                    }
                ),
            });
        }
        Some(finished)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.end() {
            let text = error.to_string();
            self.shared.recorder.record(Event::Warning { text });
        }
    }
}

/// A capture under way.
pub(super) struct Running {
    capture: PacketCapture,
    interfaces: BTreeMap<Port, String>,
    /// Of the switch of now.
    tap: Mutex<Option<Tap>>,
}

impl Running {
    fn tap(&self, switch: &Switch) -> Result<(), Stopped> {
        let mut tap = lock(&self.tap);
        *tap = match switch.tap(&self.capture, self.interfaces.clone()) {
            Ok(tap) => Some(tap),
            Err(TapError::Stopped(stopped)) => return Err(stopped),
            Err(error) => unreachable!("these ports are tapped once: {error}"),
        };
        Ok(())
    }
}
