//! The core of the switch: what becomes of a frame, and of the links between ports.
//!
//! No I/O and no clock here: frames, time and the progress of sending are arguments, and what is to be
//! sent waits in a queue per port. Taking a segment down as a plain value and making one from it is in
//! `segment::state`. Sockets are in `worker`, the thread's handle in `switch`.

mod state;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::addresses::AddressTable;
use crate::counters::{Cause, Counters, Drops, PortCounters, Traffic};
use crate::frame::Frame;
use crate::queue::Queue;
use crate::rule::{Link, Port, Rules, Verdict};

pub use state::{CapturedFrame, CapturedLink, CapturedPort, SegmentState, StateError};

/// The bounds of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many ports there may be.
    pub ports_max: usize,
    /// How many bytes may wait for one machine, four per frame included.
    pub queue_bytes_max: usize,
    /// How many stations are remembered behind one port. Frames to others are flooded.
    pub addresses_per_port_max: usize,
    /// How long a station is remembered after its last frame.
    pub address_age_max: Duration,
}

impl Limits {
    /// The bounds used by [`crate::Switch`].
    pub const DEFAULT: Limits = Limits {
        // The cut matrix is a square: a thousand ports make a megabyte of it.
        ports_max: 1024,
        // Some fifteen milliseconds of the fastest guest seen (600 Mbit/s), seven hundred full frames.
        queue_bytes_max: 1024 * 1024,
        // One per network card, and many containers behind bridges inside a guest.
        addresses_per_port_max: 256,
        // What IEEE 802.1D recommends and every bridge does.
        address_age_max: Duration::from_secs(300),
    };
}

/// A port could not be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddPortError {
    /// Another port has the name.
    #[error("the name {name:?} is taken by another port")]
    NameTaken {
        /// The name asked for.
        name: String,
    },
    /// The segment is full.
    #[error("all {ports_max} ports are in use")]
    TooManyPorts {
        /// The bound from [`Limits`].
        ports_max: usize,
    },
}

/// Links could not be changed; nothing was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The port belongs to another switch.
    #[error("port number {} is not of this switch, which has {ports}", port.index())]
    UnknownPort {
        /// The port given.
        port: Port,
        /// How many ports there are.
        ports: usize,
    },
    /// Both ends of a link are the same port.
    #[error("{name:?} has no link to itself")]
    SamePort {
        /// The name of the port.
        name: Arc<str>,
    },
    /// A port is in two groups of a partition, or twice in one.
    #[error("{name:?} is named twice in the partition")]
    NamedTwice {
        /// The name of the port.
        name: Arc<str>,
    },
}

#[derive(Debug)]
struct PortState {
    name: Arc<str>,
    up: bool,
    queue: Queue,
    received: Traffic,
    sent: Traffic,
    dropped_from: Drops,
    dropped_to: Drops,
}

/// One Ethernet segment: ports, learned stations, rules, queues.
///
/// Ports are never removed, only down, so a [`Port`] stays valid as long as its segment.
///
/// Methods that take a [`Port`] and return no error panic if it is not of this segment.
#[derive(Debug)]
pub struct Segment {
    limits: Limits,
    ports: Vec<PortState>,
    names: HashMap<Arc<str>, Port>,
    addresses: AddressTable,
    rules: Rules,
}

impl Segment {
    /// Makes a segment without ports.
    pub fn new(limits: Limits) -> Segment {
        Segment {
            limits,
            ports: Vec::new(),
            names: HashMap::new(),
            addresses: AddressTable::new(limits.addresses_per_port_max, limits.address_age_max),
            rules: Rules::default(),
        }
    }

    /// Adds a port, which is up, and whose links are all whole, even while others are partitioned.
    ///
    /// # Errors
    ///
    /// If the name is taken or the segment is full.
    pub fn add_port(&mut self, name: &str) -> Result<Port, AddPortError> {
        let Limits {
            ports_max,
            queue_bytes_max,
            ..
        } = self.limits;
        if self.names.contains_key(name) {
            return Err(AddPortError::NameTaken {
                name: name.to_owned(),
            });
        }
        let number = u32::try_from(self.ports.len()).ok();
        let Some(number) = number.filter(|_| self.ports.len() < ports_max) else {
            return Err(AddPortError::TooManyPorts { ports_max });
        };
        let port = Port(number);
        let name: Arc<str> = name.into();
        self.names.insert(Arc::clone(&name), port);
        self.ports.push(PortState {
            name,
            up: true,
            queue: Queue::new(queue_bytes_max),
            received: Traffic::default(),
            sent: Traffic::default(),
            dropped_from: Drops::default(),
            dropped_to: Drops::default(),
        });
        self.addresses.add_port();
        self.rules.cuts.add_port();
        Ok(port)
    }

    /// Finds a port by its name.
    pub fn port(&self, name: &str) -> Option<Port> {
        self.names.get(name).copied()
    }

    /// The name of a port.
    pub fn name(&self, port: Port) -> &Arc<str> {
        &self.ports[port.index()].name
    }

    /// All ports, in the order they were added.
    pub fn ports(&self) -> impl Iterator<Item = Port> + use<> {
        (0..self.ports.len() as u32).map(Port)
    }

    /// Marks a port as having a machine again. Its counters and links are as they were.
    pub fn raise(&mut self, port: Port) {
        self.ports[port.index()].up = true;
    }

    /// Marks a port as having no machine: what waits for it is dropped, and its stations are forgotten.
    pub fn lower(&mut self, port: Port) {
        self.ports[port.index()].up = false;
        self.addresses.forget(port);
        for from in self.ports[port.index()].queue.clear() {
            self.drop_copy(Link { from, to: port }, Cause::PortDown);
        }
    }

    /// Takes a frame from the machine behind `from` and queues it for the ports it is for.
    ///
    /// The source is learned. A frame for a known station goes to its port, any other to all other ports.
    /// `now` never goes back from call to call.
    pub fn forward(&mut self, from: Port, bytes: &[u8], now: Instant) {
        let ingress = &mut self.ports[from.index()];
        ingress.received.add_frame(bytes.len());
        if !ingress.up {
            ingress.dropped_from.add_frame(Cause::PortDown);
            return;
        }
        let Some(frame) = Frame::parse(bytes) else {
            ingress.dropped_from.add_frame(Cause::Runt);
            return;
        };
        self.addresses.learn(frame.source(), from, now);
        match self.addresses.find(frame.target(), now) {
            Some(to) if to == from => self.drop_frame(from, Cause::SelfAddressed),
            Some(to) => self.pass(Link { from, to }, &frame, now),
            None => self.flood(from, &frame, now),
        }
    }

    /// Counts that the stream of a machine cannot be told apart into frames. The caller lowers the port.
    pub fn count_malformed(&mut self, from: Port) {
        self.drop_frame(from, Cause::Malformed);
    }

    /// What is to be sent to the machine behind `port` next: frames, each with its length in front as four
    /// bytes, big end first. Empty if nothing waits.
    pub fn pending(&self, port: Port) -> &[u8] {
        self.ports[port.index()].queue.pending()
    }

    /// The first bytes of [`Segment::pending`] if they are the rest of a frame of which a part is sent; empty
    /// if none is.
    pub fn begun(&self, port: Port) -> &[u8] {
        self.ports[port.index()].queue.begun()
    }

    /// Notes that the first `bytes` of [`Segment::pending`] are sent.
    ///
    /// # Panics
    ///
    /// If there were not as many.
    pub fn sent(&mut self, port: Port, bytes: usize) {
        let egress = &mut self.ports[port.index()];
        let completed = egress.queue.sent(bytes);
        egress.sent.add(completed);
    }

    /// Cuts one direction.
    ///
    /// Here and in all cuts below, frames that wait in the queue of a cut direction are dropped, except one
    /// that is partly sent.
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn cut_one_way(&mut self, from: Port, to: Port) -> Result<(), LinkError> {
        self.check_pair(from, to)?;
        self.rules.cuts.set(Link { from, to }, true);
        self.drop_cut();
        Ok(())
    }

    /// Cuts both directions of a pair.
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn cut(&mut self, a: Port, b: Port) -> Result<(), LinkError> {
        self.check_pair(a, b)?;
        self.rules.cuts.set(Link { from: a, to: b }, true);
        self.rules.cuts.set(Link { from: b, to: a }, true);
        self.drop_cut();
        Ok(())
    }

    /// Makes both directions of a pair whole, however they were cut.
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn heal(&mut self, a: Port, b: Port) -> Result<(), LinkError> {
        self.check_pair(a, b)?;
        self.rules.cuts.set(Link { from: a, to: b }, false);
        self.rules.cuts.set(Link { from: b, to: a }, false);
        Ok(())
    }

    /// Makes all directions whole.
    pub fn heal_all(&mut self) {
        self.rules.cuts.set_all(|_| false);
    }

    /// Cuts both directions between `one` and every other port there is now, and leaves the others alone.
    ///
    /// # Errors
    ///
    /// If the port is unknown.
    pub fn isolate(&mut self, one: Port) -> Result<(), LinkError> {
        self.check_port(one)?;
        for other in self.ports().filter(|other| *other != one) {
            self.rules.cuts.set(
                Link {
                    from: one,
                    to: other,
                },
                true,
            );
            self.rules.cuts.set(
                Link {
                    from: other,
                    to: one,
                },
                true,
            );
        }
        self.drop_cut();
        Ok(())
    }

    /// Splits the segment: ports of different groups exchange no frames, ports of one group all do.
    ///
    /// Ports that are not named form one more group together. Earlier cuts are replaced, so one partition
    /// can follow another with no healed moment between.
    ///
    /// # Errors
    ///
    /// If a port is unknown or named twice.
    pub fn partition<G: AsRef<[Port]>>(&mut self, groups: &[G]) -> Result<(), LinkError> {
        let mut group_of = vec![None; self.ports.len()];
        for (group, ports) in groups.iter().enumerate() {
            for port in ports.as_ref() {
                self.check_port(*port)?;
                if group_of[port.index()].replace(group).is_some() {
                    return Err(LinkError::NamedTwice {
                        name: Arc::clone(self.name(*port)),
                    });
                }
            }
        }
        self.rules
            .cuts
            .set_all(|link| group_of[link.from.index()] != group_of[link.to.index()]);
        self.drop_cut();
        Ok(())
    }

    /// Tells whether one direction is cut.
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn is_cut(&self, link: Link) -> Result<bool, LinkError> {
        self.check_pair(link.from, link.to)?;
        Ok(self.rules.cuts.is_cut(link))
    }

    /// What all ports have seen so far.
    pub fn counters(&self) -> Counters {
        let ports = self
            .ports()
            .zip(&self.ports)
            .map(|(port, state)| PortCounters {
                port,
                name: Arc::clone(&state.name),
                up: state.up,
                received: state.received,
                sent: state.sent,
                queued: state.queue.waiting(),
                dropped_from: state.dropped_from,
                dropped_to: state.dropped_to,
            });
        Counters {
            ports: ports.collect(),
        }
    }

    fn flood(&mut self, from: Port, frame: &Frame<'_>, now: Instant) {
        if self.ports.len() == 1 {
            self.drop_frame(from, Cause::NoOtherPort);
            return;
        }
        for to in self.ports().filter(|to| *to != from) {
            self.pass(Link { from, to }, frame, now);
        }
    }

    /// Takes one copy of a frame past the rules into the queue of its egress port.
    fn pass(&mut self, link: Link, frame: &Frame<'_>, now: Instant) {
        match self.rules.judge(link, frame, now) {
            Verdict::Pass => self.deliver(link, frame.bytes()),
            Verdict::Drop(cause) => self.drop_copy(link, cause),
        }
    }

    fn deliver(&mut self, link: Link, bytes: &[u8]) {
        let egress = &mut self.ports[link.to.index()];
        if !egress.up {
            self.drop_copy(link, Cause::PortDown);
        } else if !egress.queue.push(link.from, bytes) {
            self.drop_copy(link, Cause::QueueFull);
        }
    }

    /// Drops what waits in queues and came over a direction that is now cut.
    fn drop_cut(&mut self) {
        for to in self.ports() {
            let cuts = &self.rules.cuts;
            let queue = &mut self.ports[to.index()].queue;
            if queue.pending().is_empty() {
                continue;
            }
            for from in queue.remove(|from| cuts.is_cut(Link { from, to })) {
                self.drop_copy(Link { from, to }, Cause::Cut);
            }
        }
    }

    fn drop_copy(&mut self, link: Link, cause: Cause) {
        self.ports[link.from.index()].dropped_from.add_frame(cause);
        self.ports[link.to.index()].dropped_to.add_frame(cause);
    }

    fn drop_frame(&mut self, from: Port, cause: Cause) {
        self.ports[from.index()].dropped_from.add_frame(cause);
    }

    pub(crate) fn check_port(&self, port: Port) -> Result<(), LinkError> {
        let ports = self.ports.len();
        if port.index() < ports {
            Ok(())
        } else {
            Err(LinkError::UnknownPort { port, ports })
        }
    }

    fn check_pair(&self, a: Port, b: Port) -> Result<(), LinkError> {
        self.check_port(a)?;
        self.check_port(b)?;
        if a == b {
            return Err(LinkError::SamePort {
                name: Arc::clone(self.name(a)),
            });
        }
        Ok(())
    }
}
