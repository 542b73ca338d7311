//! The checkpoint of a running switch: held, emptied, captured; restored, and released.
//!
//! ```text
//!   caller                         switch                         machines
//!     ├─ hold ───────────────────────▶│  sends nothing new             │
//!     ├─ unread, until it is empty ──▶│◀──────── read what was sent ───┤
//!     ├─ stop ────────────────────────┼───────────────────────────────▶│
//!     ├─ drain, until it is quiet ───▶│◀─ what they had sent before ───┤
//!     ├─ capture ────────────────────▶│
//!     │◀──────────────────── state ───┤
//!     ╎   here it may go on by release; and elsewhere, as often as wanted:
//!     ├─ restore(state) ─────────────▶│  held                          │
//!     ├─ reattach or adopt, each ────▶│◀─────────────── connected ─────┤
//!     ├─ load and continue ───────────┼───────────────────────────────▶│
//!     └─ release ────────────────────▶│──────── what waited, in order ▶│
//! ```
//!
//! How the thread does it is in `worker::checkpoint`; what a segment's state is, in `segment::state`.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{AttachError, Stopped, Switch};
use crate::deframer::is_partial;
use crate::link::Port;
use crate::segment::{Limits, Segment, SegmentState, StateError};

/// The version of [`SwitchState`] that this crate writes, and the only one it reads.
pub const STATE_VERSION: u32 = 3;

/// A switch between two frames, as [`Switch::capture`] gives it, to be kept in a file.
///
/// Its fields are open, for it is only a value: whatever stands in it, [`Switch::restore`] checks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchState {
    /// [`STATE_VERSION`] at the time of writing.
    pub version: u32,
    /// Ports, links, counters and the frames that wait or are in flight.
    pub segment: SegmentState,
    /// By port number, what its machine had sent of a frame not yet whole; mostly nothing.
    ///
    /// It is put in front of what the port's next connection sends. That is right for a machine that goes on
    /// within the frame. A QEMU started anew does not: what its predecessor had not written is lost, and it
    /// begins with a whole frame. For such a machine clear this, or better capture when there is none.
    pub partial: Vec<Vec<u8>>,
}

/// A machine that has not read all that was sent to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The port of the machine.
    pub port: Port,
    /// What the kernel holds for it, in bytes of kernel memory: several times the frames' size if they are
    /// small, and zero only if all is read.
    pub kernel_memory_bytes: usize,
    /// Whether the kernel has taken only a part of a frame. The switch hands over the rest, held or not, as
    /// the machine reads.
    pub frame_begun: bool,
}

/// What [`Switch::drain`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drained {
    /// How many bytes were read.
    pub bytes: usize,
    /// The ports from which a part of a frame has come, and not the rest.
    pub partial: Vec<Port>,
}

impl Drained {
    /// Tells whether nothing was read and no frame is incomplete.
    pub fn is_quiet(&self) -> bool {
        self.bytes == 0 && self.partial.is_empty()
    }
}

/// It could not be told what machines have not read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadError {
    /// The kernel does not tell.
    #[error("the kernel does not tell what the machine at port number {} has not read", port.index())]
    Kernel {
        /// The port asked about.
        port: Port,
        /// What the kernel said.
        source: io::Error,
    },
    /// The switch has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// A switch could not be captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// Frames flow: what is captured now would be delivered here, too.
    #[error("the switch is not held")]
    NotHeld,
    /// The switch has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// A switch could not be made from a state.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Another version of this crate wrote the state.
    #[error("the state of the switch has version {found}, and only {STATE_VERSION} is known")]
    Version {
        /// The version of the state.
        found: u32,
    },
    /// No switch can be in the state.
    #[error("the state of the switch makes no sense: {0}")]
    State(#[from] StateError),
    /// The state has not one partial frame, perhaps empty, per port.
    #[error("the state of the switch has {partial} partial frames for {ports} ports")]
    PartialCount {
        /// How many partial frames there are.
        partial: usize,
        /// How many ports there are.
        ports: usize,
    },
    /// What a machine had sent is not the beginning of a frame, or there was no machine.
    #[error("the {bytes} bytes kept from {name:?} are not the beginning of a frame of a machine")]
    Partial {
        /// The name of the port.
        name: String,
        /// How many bytes there are.
        bytes: usize,
    },
    /// The kernel gives no descriptors or no thread.
    #[error("the switch could not be started")]
    Start {
        /// What the kernel said.
        source: io::Error,
    },
}

impl Switch {
    /// Makes a new switch that goes on where the captured one was, and is held.
    ///
    /// It has the same ports in the same order, none of them connected, with the same links, counters, and
    /// waiting frames; frames in flight take as long as they still had to, from [`Switch::release`] on. Each port that was up awaits its machine, by [`Switch::reattach`] or
    /// [`Switch::adopt`], until [`Switch::release`]; frames for it wait as long. One state may be restored
    /// many times, and the switches know nothing of each other. Stations are learned anew. Ports are found
    /// by name, and those of the captured switch are good for this one, too.
    ///
    /// A frame that was sent in part is delivered from its beginning, unless its direction is cut.
    ///
    /// # Errors
    ///
    /// If no switch within [`Limits::DEFAULT`] can be in this state, which may come from anywhere, or the
    /// kernel gives no descriptors or no thread.
    pub fn restore(state: &SwitchState) -> Result<Switch, RestoreError> {
        let SwitchState {
            version,
            segment,
            partial,
        } = state;
        if *version != STATE_VERSION {
            return Err(RestoreError::Version { found: *version });
        }
        check_partial(segment, partial)?;
        let now = segment.now;
        let segment = Segment::restore(Limits::DEFAULT, segment)?;
        Switch::launch(segment, |worker| worker.held(now, partial))
            .map_err(|source| RestoreError::Start { source })
    }

    /// Holds the switch: from the return of the call on, nothing new is sent to any machine.
    ///
    /// The rest of a frame of which a part is sent still goes out, as its machine reads: it could not tell
    /// frames apart otherwise. What machines send is read, judged and queued as ever, so a queue may
    /// overflow ([`Cause::QueueFull`](crate::Cause::QueueFull)) if the hold lasts. Everything else can be
    /// done to a held switch, too; a cut drops what waits on its direction. Does nothing to a held switch.
    ///
    /// The clock of the switch stands still: a frame in flight over an impaired link has as long to go after
    /// [`Switch::release`] as it has now.
    ///
    /// # Errors
    ///
    /// If the switch has stopped.
    pub fn hold(&self) -> Result<Instant, Stopped> {
        self.call(|worker| {
            worker.hold();
            Instant::now()
        })
    }

    /// Ends a hold: delivers what waits, in order, and goes on as usual. Does nothing to a switch not held.
    ///
    /// A restored port that has got no machine by now is down: what waits for it is dropped
    /// ([`Cause::PortDown`](crate::Cause::PortDown)), and what its machine had sent of a frame forgotten.
    ///
    /// # Errors
    ///
    /// If the switch has stopped.
    pub fn release(&self) -> Result<Instant, Stopped> {
        self.call(|worker| {
            worker.release();
            Instant::now()
        })
    }

    /// The machines that have not read all that was sent to them; empty once all have.
    ///
    /// To be asked again and again, with a bound of the caller's, while the switch is held and machines run:
    /// what a machine has not read when the switch is captured is in no state, and counted as delivered.
    /// What a machine has read but its guest has not seen is the machine's to keep.
    ///
    /// # Errors
    ///
    /// If the switch has stopped or the kernel does not tell.
    pub fn unread(&self) -> Result<Vec<Unread>, UnreadError> {
        self.call(|worker| worker.unread())?
    }

    /// Reads from every machine until there is nothing more to read, and forwards all whole frames.
    ///
    /// To be called again until [`Drained::is_quiet`], with a bound of the caller's, once the machines are
    /// stopped: a QEMU whose socket was full may write more when there is room. From one that does not stop
    /// sending, no more is read at once than its socket holds. A machine found gone takes its port down.
    ///
    /// # Errors
    ///
    /// If the switch has stopped.
    pub fn drain(&self) -> Result<Drained, Stopped> {
        self.call(|worker| worker.drain())
    }

    /// Takes the switch down as a value, which changes nothing: it can be captured again, or released.
    ///
    /// The state has what the switch has. What is in the kernel is not in it, neither towards machines
    /// ([`Switch::unread`]) nor from them ([`Switch::drain`]).
    ///
    /// # Errors
    ///
    /// If the switch is not held, or has stopped.
    pub fn capture(&self) -> Result<SwitchState, CaptureError> {
        self.call(|worker| worker.capture())?
    }

    /// Gives a port a connection made elsewhere, as [`Switch::reattach`] gives it a new one.
    ///
    /// For a machine that was started before it had a port: `end` is the [`switch_end`] of its
    /// [`Connection`], or any other connected Unix stream socket. It is made close-on-exec and non-blocking,
    /// for whoever shares it too, and its send buffer is set. What the machine has sent since it was started
    /// is read as if sent now.
    ///
    /// [`Connection`]: crate::Connection
    /// [`switch_end`]: crate::Connection::switch_end
    ///
    /// # Errors
    ///
    /// If the port is unknown or the descriptor is no such socket. The port is as before then, and the
    /// descriptor closed.
    pub fn adopt(&self, port: Port, end: OwnedFd) -> Result<(), AttachError> {
        self.call(move |worker| worker.adopt(port, end))?
    }
}

fn check_partial(segment: &SegmentState, partial: &[Vec<u8>]) -> Result<(), RestoreError> {
    if partial.len() != segment.ports.len() {
        return Err(RestoreError::PartialCount {
            partial: partial.len(),
            ports: segment.ports.len(),
        });
    }
    for (port, bytes) in segment.ports.iter().zip(partial) {
        let fits = bytes.is_empty() || (port.up && is_partial(bytes));
        if !fits {
            return Err(RestoreError::Partial {
                name: port.name.clone(),
                bytes: bytes.len(),
            });
        }
    }
    Ok(())
}
