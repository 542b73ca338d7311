//! Which packet captures record which ports of a switch, and what they make of events.
//!
//! How records are kept and written is in `packet_capture`. Taps are set and taken away between two frames, by
//! `worker::taps`.

use std::collections::BTreeMap;

use crate::counters::Cause;
use crate::link::Port;
use crate::links::Links;
use crate::packet_capture::{InterfaceId, Kind, Record, Recorder};
use crate::segment::{Event, Observer};

/// The number of a tap of one switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TapId(pub(crate) u64);

/// A capture records the port already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AlreadyTapped(pub(crate) Port);

/// All taps of a switch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taps {
    /// Each capture once, so that an event is one record in it, however many taps it touches.
    captures: Vec<Tapped>,
}

/// What one capture records.
#[derive(Clone, Debug)]
struct Tapped {
    recorder: Recorder,
    ports: BTreeMap<Port, Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    tap: TapId,
    interface: InterfaceId,
}

impl Taps {
    pub(crate) fn is_empty(&self) -> bool {
        self.captures.is_empty()
    }

    /// Adds a tap of ports, each under the name of an interface.
    pub(crate) fn add(
        &mut self,
        tap: TapId,
        recorder: Recorder,
        interfaces: &BTreeMap<Port, String>,
    ) -> Result<(), AlreadyTapped> {
        let tapped = self.of_capture(recorder);
        let taken = |port: &&Port| tapped.ports.contains_key(port);
        if let Some(port) = interfaces.keys().find(taken) {
            return Err(AlreadyTapped(*port));
        }
        for (port, name) in interfaces {
            let interface = tapped.recorder.interface(name);
            tapped.ports.insert(*port, Place { tap, interface });
        }
        Ok(())
    }

    /// Takes a tap away.
    pub(crate) fn remove(&mut self, tap: TapId) {
        for tapped in &mut self.captures {
            tapped.ports.retain(|_, place| place.tap != tap);
        }
        self.captures.retain(|tapped| !tapped.ports.is_empty());
    }

    fn of_capture(&mut self, recorder: Recorder) -> &mut Tapped {
        let known = self
            .captures
            .iter()
            .position(|tapped| tapped.recorder.is_same(&recorder));
        let index = known.unwrap_or_else(|| {
            self.captures.push(Tapped {
                recorder,
                ports: BTreeMap::new(),
            });
            self.captures.len() - 1
        });
        &mut self.captures[index]
    }
}

impl Observer for Taps {
    fn observe(&mut self, event: Event<'_>, links: &Links) {
        for tapped in &self.captures {
            tapped.record(event, links);
        }
    }
}

impl Tapped {
    fn record(&self, event: Event<'_>, links: &Links) {
        match event {
            Event::Received { from, bytes } => {
                self.add(self.interface(from), Kind::Received, bytes);
            }
            Event::Sent { to, bytes } => self.add(self.interface(to), Kind::Sent, bytes),
            Event::Dropped {
                from,
                to,
                cause,
                bytes,
            } => {
                let egress = to.and_then(|to| self.interface(to));
                let interface = egress.or_else(|| self.interface(from));
                if interface.is_some() {
                    let comment = &comment(cause, from, to, links);
                    self.add(interface, Kind::Dropped { comment }, bytes);
                }
            }
        }
    }

    fn interface(&self, port: Port) -> Option<InterfaceId> {
        self.ports.get(&port).map(|place| place.interface)
    }

    fn add(&self, interface: Option<InterfaceId>, kind: Kind<'_>, bytes: &[u8]) {
        if let Some(interface) = interface {
            self.recorder.record(&Record {
                interface,
                kind,
                bytes,
            });
        }
    }
}

/// Tells why and where a frame was dropped.
fn comment(cause: Cause, from: Port, to: Option<Port>, links: &Links) -> String {
    let from = links.name(from);
    match to {
        Some(to) => format!("dropped: {cause} ({from} to {})", links.name(to)),
        None => format!("dropped: {cause} (from {from})"),
    }
}
