//! The core of the switch: what becomes of a frame, and of the links between ports.
//!
//! No I/O and no clock here: frames, time and the progress of sending are arguments, and what is to be
//! sent waits in a queue per port. What impaired links do to frames is in `transit`. Taking a segment down as a
//! plain value and making one from it is in `segment::state`, what it tells of each frame in
//! `segment::observer`. Sockets are in `worker`, the thread's handle in `switch`.

mod observer;
mod state;

use std::sync::Arc;
use std::time::Duration;

use crate::addresses::AddressTable;
use crate::counters::{Cause, Counters, PortCounters, Tally, Waiting};
use crate::frame::Frame;
use crate::link::{AddPortError, Link, LinkError, Port, Vlan};
use crate::links::Links;
use crate::queue::Queue;
use crate::transit::{Changed, Fate, Transit, Verdict};

pub use observer::{Event, Observer};
pub use state::{
    CapturedDirection, CapturedFlight, CapturedFrame, CapturedLink, CapturedPort, CapturedScope,
    SegmentState, StateError,
};

/// The bounds of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many ports there may be.
    pub ports_max: usize,
    /// How many bytes may wait for one machine, four per frame included.
    pub queue_bytes_max: usize,
    /// How many bytes may be on their way to one machine over impaired links, some overhead per frame
    /// included.
    pub in_flight_bytes_max: usize,
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
        // Twenty thousand full frames: a quarter of a second at a gigabit.
        in_flight_bytes_max: 32 * 1024 * 1024,
        // One per network card, and many containers behind bridges inside a guest.
        addresses_per_port_max: 256,
        // What IEEE 802.1D recommends and every bridge does.
        address_age_max: Duration::from_secs(300),
    };
}

#[derive(Debug)]
struct PortState {
    vlan: Vlan,
    up: bool,
    queue: Queue,
    tally: Tally,
}

/// Ports, learned stations, links, queues: one Ethernet segment, or several that share nothing ([`Vlan`]).
///
/// Time is told as the [`Duration`] since any fixed moment, the same for all calls, and never goes back.
///
/// Ports are never removed, only down, so a [`Port`] stays valid as long as its segment.
///
/// Methods that take a [`Port`] and return no error panic if it is not of this segment.
#[derive(Debug)]
pub struct Segment {
    limits: Limits,
    ports: Vec<PortState>,
    addresses: AddressTable,
    transit: Transit<[u8]>,
    observer: Option<Box<dyn Observer>>,
}

impl Segment {
    /// Makes a segment without ports, whose random choices are made from `seed`.
    pub fn new(limits: Limits, seed: u64) -> Segment {
        Segment {
            limits,
            ports: Vec::new(),
            addresses: AddressTable::new(limits.addresses_per_port_max, limits.address_age_max),
            transit: Transit::new(seed, limits.in_flight_bytes_max),
            observer: None,
        }
    }

    /// Tells an observer of every frame from now on, in the place of one that was told before; `None` ends it.
    ///
    /// Unobserved, this costs nothing. It is no part of a segment's state: one restored is not observed.
    pub fn set_observer(&mut self, observer: Option<Box<dyn Observer>>) {
        self.observer = observer;
    }

    /// Adds a port of [`Vlan::DEFAULT`], which is up, and with no direction cut, even while others are partitioned.
    ///
    /// # Errors
    ///
    /// If the name is taken or the segment is full.
    pub fn add_port(&mut self, name: &str) -> Result<Port, AddPortError> {
        self.add_port_in(Vlan::DEFAULT, name)
    }

    /// Adds a port as [`Segment::add_port`] does, of another VLAN.
    ///
    /// # Errors
    ///
    /// If the name is taken, in whichever VLAN, or the segment is full.
    pub fn add_port_in(&mut self, vlan: Vlan, name: &str) -> Result<Port, AddPortError> {
        let port = self.transit.add_port(name, self.limits.ports_max)?;
        self.ports.push(PortState {
            vlan,
            up: true,
            queue: Queue::new(self.limits.queue_bytes_max),
            tally: Tally::default(),
        });
        self.addresses.add_port();
        Ok(port)
    }

    /// Finds a port by its name.
    pub fn port(&self, name: &str) -> Option<Port> {
        self.links().port(name)
    }

    /// The name of a port.
    pub fn name(&self, port: Port) -> &Arc<str> {
        self.links().name(port)
    }

    /// All ports, in the order they were added.
    pub fn ports(&self) -> impl Iterator<Item = Port> + use<> {
        self.links().ports()
    }

    /// Marks a port as having a machine again. Its counters and links are as they were.
    pub fn raise(&mut self, port: Port) {
        self.ports[port.index()].up = true;
    }

    /// Marks a port as having no machine: what is on its way to it is dropped, and its stations are forgotten.
    pub fn lower(&mut self, port: Port) {
        self.ports[port.index()].up = false;
        self.addresses.forget(port);
        let waiting = self.ports[port.index()].queue.clear();
        for (from, bytes) in waiting.frames() {
            self.drop_copy(Link { from, to: port }, Cause::PortDown, bytes);
        }
        for (link, bytes) in self.transit.drop_to(port) {
            self.drop_copy(link, Cause::PortDown, &bytes);
        }
    }

    /// Takes a frame from the machine behind `from` and queues it for the ports it is for.
    ///
    /// The source is learned. A frame for a known station goes to its port, any other to all other ports.
    /// A copy whose link is impaired may arrive later, by [`Segment::advance`].
    pub fn forward(&mut self, from: Port, bytes: &[u8], now: Duration) {
        let ingress = &mut self.ports[from.index()];
        let up = ingress.up;
        ingress.tally.received.add_frame(bytes.len());
        if self.observer.is_some() {
            self.tell(Event::Received { from, bytes });
        }
        if !up {
            return self.drop_frame(from, Cause::PortDown, bytes);
        }
        let Some(frame) = Frame::parse(bytes) else {
            return self.drop_frame(from, Cause::Runt, bytes);
        };
        let vlan = self.ports[from.index()].vlan;
        let (source, target) = (frame.source().within(vlan), frame.target().within(vlan));
        self.addresses.learn(source, from, now);
        match self.addresses.find(target, now) {
            Some(to) if to == from => self.drop_frame(from, Cause::SelfAddressed, bytes),
            Some(to) => self.pass(Link { from, to }, &frame, now),
            None => self.flood(from, &frame, now),
        }
    }

    /// Counts that the stream of a machine cannot be told apart into frames, from `bytes` on, as far as they
    /// have come. The caller lowers the port.
    pub fn count_malformed(&mut self, from: Port, bytes: &[u8]) {
        self.drop_frame(from, Cause::Malformed, bytes);
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
        let completed = match &mut self.observer {
            None => egress.queue.sent(bytes),
            Some(observer) => egress.queue.sent_telling(bytes, |bytes| {
                observer.observe(Event::Sent { to: port, bytes }, self.transit.links());
            }),
        };
        egress.tally.sent.add(completed);
    }

    /// How the links are.
    pub fn links(&self) -> &Links {
        self.transit.links()
    }

    /// Changes links, between two frames. Several changes of one call take effect together.
    ///
    /// Frames on their way over a direction that is cut now are dropped. Those on their way over one with
    /// which nothing is wrong any more are queued at once for their egress port, if need be beyond the bound
    /// of its queue by as much as can be in flight.
    ///
    /// # Errors
    ///
    /// Whatever `change` returns; nothing is changed then.
    pub fn change<T>(
        &mut self,
        change: impl FnOnce(&mut Links) -> Result<T, LinkError>,
    ) -> Result<T, LinkError> {
        let (answer, changed) = self.transit.change(change)?;
        self.apply(changed);
        Ok(answer)
    }

    /// When [`Segment::advance`] next has something to do; `None` if no frame is in flight.
    pub fn next_due(&self) -> Option<Duration> {
        self.transit.next_due()
    }

    /// Queues frames in flight that have arrived by now for their egress ports, at most `frames_max` of them,
    /// and tells how many those were.
    pub fn advance(&mut self, now: Duration, frames_max: usize) -> usize {
        for done in 0..frames_max {
            let Some((link, frame)) = self.transit.pop_due(now) else {
                return done;
            };
            self.deliver(link, &frame);
        }
        frames_max
    }

    /// What all ports have seen so far.
    pub fn counters(&self) -> Counters {
        let ports = self.ports().zip(&self.ports).map(|(port, state)| {
            let waiting = Waiting {
                queued: state.queue.waiting(),
                in_flight: self.transit.flight.amount(port),
            };
            PortCounters::new(port, self.name(port), state.up, waiting, &state.tally)
        });
        Counters {
            ports: ports.collect(),
        }
    }

    fn flood(&mut self, from: Port, frame: &Frame<'_>, now: Duration) {
        let vlan = self.ports[from.index()].vlan;
        let mut alone = true;
        for to in self.ports().filter(|to| *to != from) {
            if self.ports[to.index()].vlan == vlan {
                alone = false;
                self.pass(Link { from, to }, frame, now);
            }
        }
        if alone {
            self.drop_frame(from, Cause::NoOtherPort, frame.bytes());
        }
    }

    /// Takes one copy of a frame to the queue of its egress port, or on its way there.
    fn pass(&mut self, link: Link, frame: &Frame<'_>, now: Duration) {
        // The fast path: most links are in order most of the time.
        if self.links().cell(link).is_in_order() && self.ports[link.to.index()].up {
            self.deliver(link, frame.bytes());
        } else {
            self.pass_disturbed(link, frame, now);
        }
    }

    #[cold]
    #[inline(never)]
    fn pass_disturbed(&mut self, link: Link, frame: &Frame<'_>, now: Duration) {
        if !self.ports[link.to.index()].up {
            let is_cut = self.links().cell(link).cut;
            let cause = if is_cut { Cause::Cut } else { Cause::PortDown };
            return self.drop_copy(link, cause, frame.bytes());
        }
        match self.transit.judge(link, frame.bytes(), now) {
            Verdict::Pass => self.deliver(link, frame.bytes()),
            Verdict::Drop(cause) => self.drop_copy(link, cause, frame.bytes()),
            Verdict::Deliver(delivery) => {
                let tally = &mut self.ports[link.to.index()].tally;
                tally.add_delivery(delivery.corrupted, delivery.second.is_some());
                for fate in [Some(delivery.first), delivery.second]
                    .into_iter()
                    .flatten()
                {
                    match fate {
                        Fate::Arrives(bytes) => self.deliver(link, &bytes),
                        Fate::InFlight => {}
                        Fate::Dropped(cause, bytes) => self.drop_copy(link, cause, &bytes),
                    }
                }
            }
        }
    }

    fn deliver(&mut self, link: Link, bytes: &[u8]) {
        if !self.ports[link.to.index()].queue.push(link.from, bytes) {
            self.drop_copy(link, Cause::QueueFull, bytes);
        }
    }

    /// Does for queues and counters what a change of links has done to frames in flight.
    fn apply(&mut self, changed: Changed<Vec<u8>>) {
        self.drop_cut();
        for (link, bytes) in changed.cut {
            self.drop_copy(link, Cause::Cut, &bytes);
        }
        for (link, bytes) in changed.released {
            let extra_bytes = self.limits.in_flight_bytes_max;
            let queue = &mut self.ports[link.to.index()].queue;
            if !queue.push_beyond(link.from, &bytes, extra_bytes) {
                self.drop_copy(link, Cause::QueueFull, &bytes);
            }
        }
    }

    /// Drops what waits in queues and came over a direction that is cut.
    fn drop_cut(&mut self) {
        for to in self.ports() {
            let links = self.transit.links();
            let queue = &mut self.ports[to.index()].queue;
            let removed = queue.remove(|from| links.cell(Link { from, to }).cut);
            for (from, bytes) in removed.frames() {
                self.drop_copy(Link { from, to }, Cause::Cut, bytes);
            }
        }
    }

    /// Ends a copy that has an egress port.
    fn drop_copy(&mut self, link: Link, cause: Cause, bytes: &[u8]) {
        let Link { from, to } = link;
        let egress = &mut self.ports[to.index()];
        egress.tally.dropped_to.add_frame(cause);
        self.end(from, Some(to), cause, bytes);
    }

    /// Ends a frame that has none.
    fn drop_frame(&mut self, from: Port, cause: Cause, bytes: &[u8]) {
        self.end(from, None, cause, bytes);
    }

    fn end(&mut self, from: Port, to: Option<Port>, cause: Cause, bytes: &[u8]) {
        let ingress = &mut self.ports[from.index()];
        ingress.tally.dropped_from.add_frame(cause);
        self.tell(Event::Dropped {
            from,
            to,
            cause,
            bytes,
        });
    }

    /// Out of the fast path's way: most segments are not observed.
    #[cold]
    #[inline(never)]
    fn tell(&mut self, event: Event<'_>) {
        if let Some(observer) = &mut self.observer {
            observer.observe(event, self.transit.links());
        }
    }
}
