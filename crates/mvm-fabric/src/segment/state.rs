//! A segment as a plain value: taken down from a running one, and checked and made into one again.
//!
//! What is kept is what decides about frames later and what keeps the books balanced: ports, queues, links,
//! frames in flight, and counters. Stations are not kept: frames for them are flooded until they speak again,
//! as after any reconnection. Sockets, and bytes of frames not received as a whole, are `worker`'s.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{AddPortError, Limits, LinkError, Segment};
use crate::counters::Tally;
use crate::direction::Pace;
use crate::frame::{FRAME_BYTES_MAX, FRAME_BYTES_MIN};
use crate::impairment::Impairment;
use crate::link::{Link, Port, Scope, Vlan};

/// No segment is as old, and no frame takes as long: numbers from a file are held below it, so that
/// reckoning on from them cannot overflow.
const TIME_MAX: Duration = Duration::from_secs(1 << 42);

/// Nor does as much wait in a rate queue, which holds at most 4 GiB and one frame.
const BACKLOG_BITS_MAX: u64 = 1 << 36;

/// A segment between two frames.
///
/// Its fields are open, for it is only a value: whatever stands in it, [`Segment::restore`] checks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentState {
    /// The time of the segment. One restored goes on from there, so all times below keep their distance.
    pub now: Duration,
    /// What random choices are made from.
    pub seed: u64,
    /// The ports, in the order they were added. Numbers of ports below are positions here.
    pub ports: Vec<CapturedPort>,
    /// The directions that are cut.
    pub cuts: Vec<CapturedLink>,
    /// What is wrong with which directions.
    pub impairments: Vec<(CapturedScope, Impairment)>,
    /// What impaired directions remember.
    pub directions: Vec<CapturedDirection>,
    /// The frames in flight, in the order in which they arrive.
    pub in_flight: Vec<CapturedFlight>,
}

/// A port of a captured segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedPort {
    /// Its name.
    pub name: String,
    /// Where it belongs. Nothing waits for it that came from elsewhere, nor is on its way to it.
    pub vlan: Vlan,
    /// Whether it had a machine. Nothing waits for one that had none, nor is on its way to it.
    pub up: bool,
    /// The frames that waited for its machine, in the order of their delivery. One that was sent in part is
    /// here as a whole.
    pub waiting: Vec<CapturedFrame>,
    /// Its counters.
    pub tally: Tally,
}

/// A frame that waited for its egress port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedFrame {
    /// The number of its ingress port.
    pub from: u32,
    /// The frame, without the length that is put in front of it.
    pub bytes: Vec<u8>,
}

/// One direction between two ports, each by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedLink {
    /// The ingress port.
    pub from: u32,
    /// The egress port.
    pub to: u32,
}

/// A [`Scope`], each port by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CapturedScope {
    /// Every direction.
    All,
    /// Every direction that begins at a port.
    From(u32),
    /// Every direction that ends at a port.
    To(u32),
    /// One direction.
    Link(CapturedLink),
}

/// What a direction remembers from frame to frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedDirection {
    /// Which direction.
    pub link: CapturedLink,
    /// How many random numbers it has drawn.
    pub drawn: u64,
    /// Whether bursty loss is in its bad state.
    pub bad: bool,
    /// When the last frame that keeps its place arrives.
    pub last_due: Duration,
    /// When all that waits in the rate queue has passed.
    pub busy_until: Duration,
    /// How many bits waited there at the time `reckoned`.
    pub backlog_bits: u64,
    /// When that was.
    pub reckoned: Duration,
}

/// A frame in flight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedFlight {
    /// Its direction.
    pub link: CapturedLink,
    /// When it arrives, by the clock of which [`SegmentState::now`] is the time.
    pub due: Duration,
    /// The frame.
    pub bytes: Vec<u8>,
}

/// A state is none that a segment can be in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A name stands there twice, or there are too many ports.
    #[error(transparent)]
    Port(#[from] AddPortError),
    /// A waiting frame or a cut names a port that is not there, or has one port at both ends.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A frame is on its way between ports of two VLANs.
    #[error("a frame from another VLAN is on its way to {name:?}")]
    OtherVlan {
        /// The name of the egress port.
        name: String,
    },
    /// A frame has a size that no frame in a queue or in flight has.
    #[error(
        "a frame of {frame_bytes} bytes is on its way to {name:?}; frames have {FRAME_BYTES_MIN} to {FRAME_BYTES_MAX}"
    )]
    FrameSize {
        /// The name of the egress port.
        name: String,
        /// The size of the frame.
        frame_bytes: usize,
    },
    /// More waits for a port than its queue holds.
    #[error("more than {bytes_max} bytes wait for {name:?}")]
    QueueFull {
        /// The name of the egress port.
        name: String,
        /// The bounds from [`Limits`] of what waits and what is in flight, together.
        bytes_max: usize,
    },
    /// More is on its way to a port than may be.
    #[error("more than {bytes_max} bytes are in flight to {name:?}")]
    InFlightFull {
        /// The name of the egress port.
        name: String,
        /// The bound from [`Limits`].
        bytes_max: usize,
    },
    /// Frames wait for a port without a machine, or are on their way to it.
    #[error("frames are on their way to {name:?}, which is down")]
    PortDown {
        /// The name of the egress port.
        name: String,
    },
    /// A counter is larger than any switch counts.
    #[error("the counters of {name:?} are too large to be true")]
    Counters {
        /// The name of the port.
        name: String,
    },
    /// A time is later than any segment lasts, or later than now where it must be past.
    #[error("the time {} s is after {} s, the latest that makes sense", time.as_secs(), time_max.as_secs())]
    Time {
        /// The time.
        time: Duration,
        /// The latest that makes sense.
        time_max: Duration,
    },
    /// More waits in the queue of a rate than fits.
    #[error("{bits} bits wait for the rate of a link, which is more than fits")]
    Backlog {
        /// How many bits.
        bits: u64,
    },
}

impl Segment {
    /// Takes the segment down as a value, which changes nothing.
    ///
    /// What machines got of a frame they did not get as a whole is forgotten: a state is for new connections,
    /// and those begin with whole frames.
    pub fn capture(&self, now: Duration) -> SegmentState {
        let ports = self.ports().zip(&self.ports);
        let ports = ports.map(|(number, port)| CapturedPort {
            name: self.name(number).to_string(),
            vlan: port.vlan,
            up: port.up,
            waiting: captured_frames(port.queue.frames()),
            tally: port.tally,
        });
        let links = self.links();
        let impairments = links.impairments();
        let directions = self.transit.directions.iter();
        let in_flight = self.transit.flight.iter();
        SegmentState {
            now,
            seed: links.seed(),
            ports: ports.collect(),
            cuts: links.cuts().map(captured_link).collect(),
            impairments: impairments
                .map(|(scope, impairment)| (captured_scope(scope), *impairment))
                .collect(),
            directions: directions
                .map(|(link, direction)| CapturedDirection {
                    link: captured_link(*link),
                    drawn: direction.chance.drawn(),
                    bad: direction.bad,
                    last_due: direction.last_due,
                    busy_until: direction.pace.busy_until,
                    backlog_bits: direction.pace.backlog_bits,
                    reckoned: direction.pace.reckoned,
                })
                .collect(),
            in_flight: in_flight
                .map(|(link, due, bytes)| CapturedFlight {
                    link: captured_link(link),
                    due,
                    bytes: bytes.clone(),
                })
                .collect(),
        }
    }

    /// Makes a segment that goes on where the captured one was, except that it knows no station yet. Its time
    /// goes on from [`SegmentState::now`].
    ///
    /// A frame that waits on a cut direction, which only one sent in part did, is dropped for that cut: its
    /// new machine has no part of it.
    ///
    /// # Errors
    ///
    /// If no segment within `limits` can be in the state. It may come from anywhere.
    pub fn restore(limits: Limits, state: &SegmentState) -> Result<Segment, StateError> {
        check_time(state.now, TIME_MAX)?;
        let mut segment = Segment::new(limits, state.seed);
        for captured in &state.ports {
            segment.restore_port(captured)?;
        }
        // Nothing is on its way yet, so nothing is ended by this.
        segment.change(|links| {
            for link in &state.cuts {
                links.cut_link(restored_link(*link))?;
            }
            for (scope, impairment) in &state.impairments {
                links.impair(restored_scope(*scope), *impairment)?;
            }
            Ok(())
        })?;
        for captured in &state.directions {
            segment.restore_direction(captured, state.now)?;
        }
        // Ingress ports may come after egress ports, hence only now.
        for (to, captured) in segment.ports().zip(&state.ports) {
            segment.restore_queue(to, captured)?;
        }
        for captured in &state.in_flight {
            segment.restore_flight(captured)?;
        }
        let changed = segment.transit.settle();
        segment.apply(changed);
        Ok(segment)
    }

    fn restore_port(&mut self, captured: &CapturedPort) -> Result<(), StateError> {
        let CapturedPort {
            name,
            vlan,
            up,
            waiting,
            tally,
        } = captured;
        let port = self.add_port_in(*vlan, name)?;
        if !up && !waiting.is_empty() {
            return Err(StateError::PortDown { name: name.clone() });
        }
        if !tally.is_plausible() {
            return Err(StateError::Counters { name: name.clone() });
        }
        let restored = &mut self.ports[port.index()];
        restored.up = *up;
        restored.tally = *tally;
        Ok(())
    }

    fn restore_direction(
        &mut self,
        captured: &CapturedDirection,
        now: Duration,
    ) -> Result<(), StateError> {
        let link = restored_link(captured.link);
        self.links().check_link(link)?;
        check_time(captured.reckoned, now)?;
        check_time(captured.last_due, TIME_MAX)?;
        check_time(captured.busy_until, TIME_MAX)?;
        if captured.backlog_bits > BACKLOG_BITS_MAX {
            return Err(StateError::Backlog {
                bits: captured.backlog_bits,
            });
        }
        let mut direction = self.transit.fresh_direction(link);
        direction.chance.skip(captured.drawn);
        direction.bad = captured.bad;
        direction.last_due = captured.last_due;
        direction.pace = Pace {
            busy_until: captured.busy_until,
            backlog_bits: captured.backlog_bits,
            reckoned: captured.reckoned,
        };
        self.transit.directions.insert(link, direction);
        Ok(())
    }

    fn restore_queue(&mut self, to: Port, captured: &CapturedPort) -> Result<(), StateError> {
        let extra_bytes = self.limits.in_flight_bytes_max;
        for CapturedFrame { from, bytes } in &captured.waiting {
            let link = Link {
                from: Port(*from),
                to,
            };
            self.check_frame(link, bytes)?;
            let queue = &mut self.ports[to.index()].queue;
            if !queue.restore(link.from, bytes, extra_bytes) {
                return Err(StateError::QueueFull {
                    name: captured.name.clone(),
                    bytes_max: self.limits.queue_bytes_max + extra_bytes,
                });
            }
        }
        Ok(())
    }

    fn restore_flight(&mut self, captured: &CapturedFlight) -> Result<(), StateError> {
        let CapturedFlight { link, due, bytes } = captured;
        let link = restored_link(*link);
        self.check_frame(link, bytes)?;
        check_time(*due, TIME_MAX)?;
        if !self.ports[link.to.index()].up {
            return Err(StateError::PortDown {
                name: self.name(link.to).to_string(),
            });
        }
        if !self.transit.flight.has_room(link.to, bytes.len()) {
            return Err(StateError::InFlightFull {
                name: self.name(link.to).to_string(),
                bytes_max: self.limits.in_flight_bytes_max,
            });
        }
        let flight = &mut self.transit.flight;
        flight.insert(link, *due, bytes.len(), bytes.clone());
        Ok(())
    }

    fn check_frame(&self, link: Link, bytes: &[u8]) -> Result<(), StateError> {
        self.links().check_link(link)?;
        let vlan = |port: Port| self.ports[port.index()].vlan;
        if vlan(link.from) != vlan(link.to) {
            return Err(StateError::OtherVlan {
                name: self.name(link.to).to_string(),
            });
        }
        if (FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&bytes.len()) {
            Ok(())
        } else {
            Err(StateError::FrameSize {
                name: self.name(link.to).to_string(),
                frame_bytes: bytes.len(),
            })
        }
    }
}

fn check_time(time: Duration, time_max: Duration) -> Result<(), StateError> {
    if time <= time_max {
        Ok(())
    } else {
        Err(StateError::Time { time, time_max })
    }
}

fn captured_frames<'a>(frames: impl Iterator<Item = (Port, &'a [u8])>) -> Vec<CapturedFrame> {
    frames
        .map(|(from, bytes)| CapturedFrame {
            from: from.0,
            bytes: bytes.to_vec(),
        })
        .collect()
}

fn captured_link(link: Link) -> CapturedLink {
    CapturedLink {
        from: link.from.0,
        to: link.to.0,
    }
}

fn restored_link(link: CapturedLink) -> Link {
    Link {
        from: Port(link.from),
        to: Port(link.to),
    }
}

fn captured_scope(scope: Scope) -> CapturedScope {
    match scope {
        Scope::All => CapturedScope::All,
        Scope::From(port) => CapturedScope::From(port.0),
        Scope::To(port) => CapturedScope::To(port.0),
        Scope::Link(link) => CapturedScope::Link(captured_link(link)),
    }
}

fn restored_scope(scope: CapturedScope) -> Scope {
    match scope {
        CapturedScope::All => Scope::All,
        CapturedScope::From(port) => Scope::From(Port(port)),
        CapturedScope::To(port) => Scope::To(Port(port)),
        CapturedScope::Link(link) => Scope::Link(restored_link(link)),
    }
}
