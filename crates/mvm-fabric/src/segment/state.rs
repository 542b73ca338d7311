//! A segment as a plain value: taken down from a running one, and checked and made into one again.
//!
//! What is kept is what decides about frames later and what keeps the books balanced: ports, queues, cuts
//! and counters. Stations are not kept: frames for them are flooded until they speak again, as after any
//! reconnection. Sockets, and bytes of frames not received as a whole, are `worker`'s.

use serde::{Deserialize, Serialize};

use super::{AddPortError, Limits, LinkError, Segment};
use crate::counters::{Drops, Traffic};
use crate::frame::{FRAME_BYTES_MAX, FRAME_BYTES_MIN};
use crate::rule::{Link, Port};

/// A segment between two frames.
///
/// Its fields are open, for it is only a value: whatever stands in it, [`Segment::restore`] checks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentState {
    /// The ports, in the order they were added. Numbers of ports below are positions here.
    pub ports: Vec<CapturedPort>,
    /// The directions that are cut.
    pub cuts: Vec<CapturedLink>,
}

/// A port of a captured segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedPort {
    /// Its name.
    pub name: String,
    /// Whether it had a machine. Nothing waits for one that had none.
    pub up: bool,
    /// The frames that waited for its machine, in the order of their delivery. One that was sent in part is
    /// here as a whole.
    pub waiting: Vec<CapturedFrame>,
    /// As in [`PortCounters`](crate::PortCounters).
    pub received: Traffic,
    /// As in [`PortCounters`](crate::PortCounters).
    pub sent: Traffic,
    /// As in [`PortCounters`](crate::PortCounters).
    pub dropped_from: Drops,
    /// As in [`PortCounters`](crate::PortCounters).
    pub dropped_to: Drops,
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

/// A state is none that a segment can be in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A name stands there twice, or there are too many ports.
    #[error(transparent)]
    Port(#[from] AddPortError),
    /// A waiting frame or a cut names a port that is not there, or has one port at both ends.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A waiting frame has a size that no frame in a queue has.
    #[error(
        "a frame of {frame_bytes} bytes waits for {name:?}; frames have {FRAME_BYTES_MIN} to {FRAME_BYTES_MAX}"
    )]
    FrameSize {
        /// The name of the egress port.
        name: String,
        /// The size of the frame.
        frame_bytes: usize,
    },
    /// More waits for a port than its queue holds.
    #[error("more than {queue_bytes_max} bytes wait for {name:?}")]
    QueueFull {
        /// The name of the egress port.
        name: String,
        /// The bound from [`Limits`].
        queue_bytes_max: usize,
    },
    /// Frames wait for a port without a machine.
    #[error("{frames} frames wait for {name:?}, which is down")]
    PortDown {
        /// The name of the egress port.
        name: String,
        /// How many frames.
        frames: usize,
    },
    /// A counter is larger than any switch counts.
    #[error("the counters of {name:?} are too large to be true")]
    Counters {
        /// The name of the port.
        name: String,
    },
}

impl Segment {
    /// Takes the segment down as a value, which changes nothing.
    ///
    /// What machines got of a frame they did not get as a whole is forgotten: a state is for new connections,
    /// and those begin with whole frames.
    pub fn capture(&self) -> SegmentState {
        let ports = self.ports.iter().map(|port| CapturedPort {
            name: port.name.to_string(),
            up: port.up,
            waiting: captured_frames(port.queue.frames()),
            received: port.received,
            sent: port.sent,
            dropped_from: port.dropped_from,
            dropped_to: port.dropped_to,
        });
        let cuts = self.rules.cuts.iter().map(|link| CapturedLink {
            from: link.from.0,
            to: link.to.0,
        });
        SegmentState {
            ports: ports.collect(),
            cuts: cuts.collect(),
        }
    }

    /// Makes a segment that goes on where the captured one was, except that it knows no station yet.
    ///
    /// A frame that waits on a cut direction, which only one sent in part did, is dropped for that cut: its
    /// new machine has no part of it.
    ///
    /// # Errors
    ///
    /// If no segment within `limits` can be in the state. It may come from anywhere.
    pub fn restore(limits: Limits, state: &SegmentState) -> Result<Segment, StateError> {
        let mut segment = Segment::new(limits);
        for captured in &state.ports {
            segment.restore_port(captured)?;
        }
        for link in &state.cuts {
            let (from, to) = (Port(link.from), Port(link.to));
            segment.check_pair(from, to)?;
            segment.rules.cuts.set(Link { from, to }, true);
        }
        // Ingress ports may come after egress ports, hence only now.
        for (to, captured) in segment.ports().zip(&state.ports) {
            segment.restore_queue(to, captured)?;
        }
        segment.drop_cut();
        Ok(segment)
    }

    fn restore_port(&mut self, captured: &CapturedPort) -> Result<(), StateError> {
        let CapturedPort {
            name,
            up,
            waiting,
            received,
            sent,
            dropped_from,
            dropped_to,
        } = captured;
        let port = self.add_port(name)?;
        if !up && !waiting.is_empty() {
            return Err(StateError::PortDown {
                name: name.clone(),
                frames: waiting.len(),
            });
        }
        let traffic = [received, sent].into_iter().all(Traffic::is_plausible);
        let drops = [dropped_from, dropped_to]
            .into_iter()
            .all(Drops::is_plausible);
        if !(traffic && drops) {
            return Err(StateError::Counters { name: name.clone() });
        }
        let restored = &mut self.ports[port.index()];
        restored.up = *up;
        restored.received = *received;
        restored.sent = *sent;
        restored.dropped_from = *dropped_from;
        restored.dropped_to = *dropped_to;
        Ok(())
    }

    fn restore_queue(&mut self, to: Port, captured: &CapturedPort) -> Result<(), StateError> {
        for CapturedFrame { from, bytes } in &captured.waiting {
            let link = Link {
                from: Port(*from),
                to,
            };
            self.check_pair(link.from, link.to)?;
            if !(FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&bytes.len()) {
                return Err(StateError::FrameSize {
                    name: captured.name.clone(),
                    frame_bytes: bytes.len(),
                });
            }
            if !self.ports[to.index()].queue.restore(link.from, bytes) {
                return Err(StateError::QueueFull {
                    name: captured.name.clone(),
                    queue_bytes_max: self.limits.queue_bytes_max,
                });
            }
        }
        Ok(())
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
