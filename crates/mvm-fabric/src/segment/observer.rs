//! What a segment tells of frames as they come, go and end, and who listens.
//!
//! Only the words are here. A switch listens for packet captures, see `tap`; how much came of what is counted,
//! listened to or not, in `counters`.

use std::fmt::Debug;

use crate::counters::Cause;
use crate::link::Port;
use crate::links::Links;

/// What happens to a frame, or to one copy of it, at the moment it does.
///
/// There is one event for each frame that [`PortCounters`](crate::PortCounters) count as received, sent or
/// dropped. A copy that waits or is in flight has none until that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A machine has sent a frame, whatever becomes of it.
    Received {
        /// The ingress port.
        from: Port,
        /// The frame.
        bytes: &'a [u8],
    },
    /// The whole of a copy is handed over to a machine.
    Sent {
        /// The egress port.
        to: Port,
        /// The frame as it arrives, corrupted if it was.
        bytes: &'a [u8],
    },
    /// A copy has ended.
    Dropped {
        /// The ingress port.
        from: Port,
        /// The egress port; `None` if the frame had come to none.
        to: Option<Port>,
        /// Why.
        cause: Cause,
        /// The frame as it was then, corrupted if it was. Of what cannot be told apart into frames
        /// ([`Cause::Malformed`]), whatever there is.
        bytes: &'a [u8],
    },
}

/// Listens to a segment.
pub trait Observer: Debug + Send {
    /// Notes an event. `links` know the names of ports.
    ///
    /// The segment waits for it, and so does every machine.
    fn observe(&mut self, event: Event<'_>, links: &Links);
}
