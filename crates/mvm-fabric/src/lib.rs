//! A user-space Ethernet switch whose links can be cut.
//!
//! Two layers live here. [`Segment`] is the core: ports, learned addresses, rules, egress queues and
//! counters. It does no I/O and reads no clock, so a simulated network can use it as it is. [`Switch`]
//! is the rim: one thread that moves frames between the sockets of virtual machines and a segment.
//! What machines are, and when to disturb them, is decided elsewhere (`mvm-machine`, `mvm-lab`).
//!
//! ```text
//!  QEMU  ──socket──▶ deframer ─┐                                   ┌─▶ queue ──socket──▶  QEMU
//!  (ingress port)              ▼                                   │       (egress port)
//!                           runt? ─▶ learn source ─▶ egress ports ─┤ rules, once per direction
//!                                                                  └─▶ drop, counted by cause
//! ```
//!
//! # Invariants
//!
//! - Every copy of a frame is delivered, waits in a queue, or is counted under one [`Cause`].
//! - Frames of one direction (ingress port, egress port) keep their order, and never return to their port.
//! - A change of links takes effect between two frames. It concerns Ethernet frames, so IPv4, IPv6 and
//!   everything else are cut alike.
//! - Memory is bounded by [`Limits`] per port, whatever guests send or fail to read.
//! - A held switch sends no machine a new frame. Captured and restored, it has each waiting frame still, once
//!   and in its place, and its counters go on.
//!
//! # What is deliberately absent
//!
//! No spanning tree: a loop made inside guests makes a storm, bounded only by the queues. No back-pressure:
//! a machine that reads too slowly loses frames, as behind a real switch. No VLAN awareness: tags pass
//! unseen. Bytes the kernel has accepted for a machine cannot be called back by a later cut.

// Not `forbid`, for the one call in `socket`.
#![deny(unsafe_code)]

mod addresses;
mod counters;
mod cuts;
mod deframer;
mod frame;
mod queue;
mod rule;
mod segment;
mod socket;
mod switch;
mod worker;

pub use counters::{Cause, Counters, Drops, PortCounters, Traffic};
pub use frame::{FRAME_BYTES_MAX, FRAME_BYTES_MIN};
pub use rule::{Link, Port};
pub use segment::{
    AddPortError, CapturedFrame, CapturedLink, CapturedPort, Limits, LinkError, Segment,
    SegmentState, StateError,
};
pub use socket::Connection;
pub use switch::{
    AttachError, CaptureError, ChangeError, Drained, RestoreError, STATE_VERSION, Stopped, Switch,
    SwitchState, Unread, UnreadError,
};
