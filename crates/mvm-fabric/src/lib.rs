//! A user-space Ethernet switch whose links can be cut, delayed, and made to lose what they carry.
//!
//! Three layers live here. The core of the core decides what a link does to what is sent over it, and keeps
//! what arrives later: [`Links`] are the settings, and time is an argument. [`Segment`] makes an Ethernet
//! segment of it: ports, learned addresses, egress queues and counters; it does no I/O and reads no clock.
//! [`Switch`] is the rim: one thread that moves frames between the sockets of virtual machines and a segment.
//! [`simulated`] is a network of plain messages over the same links, for tests without machines.
//! [`PacketCapture`] writes down what passed through switches and what did not. What machines are, and when to
//! disturb them, is decided elsewhere (`mvm-machine`, `mvm-lab`).
//!
//! ```text
//!  QEMU ──socket──▶ deframer ──▶ runt? ──▶ learn source ──▶ egress ports ──┐
//!  (ingress port)                             of its VLAN                  ▼
//!                           ┌─────────────── in order ─────────── link, once per direction
//!                           │                                              │ cut or impaired
//!                           │                                              ▼
//!                           │   cut? MTU? loss? ─▶ corrupt ─▶ duplicate ─▶ rate ─▶ delay ─▶ reorder
//!                           ▼                                                                  │
//!  QEMU ◀──socket── queue (egress port) ◀────────── when due ───────── in flight ◀─────────────┘
//! ```
//!
//! # Impairments
//!
//! An [`Impairment`] is set for a [`Scope`]; for each direction the most specific scope counts, as a whole. Its
//! parts compose in the order drawn above, and after duplication each copy goes on for itself. Every direction
//! has a state of its own, whichever scope impairs it: a rate is not shared by the directions of a scope.
//! Random choices are made from a seed, see [`Links::seed`].
//!
//! Cuts and impairments are apart. Healing removes cuts only, clearing removes impairments only. A cut drops
//! what is in flight; a change from one impairment to another leaves to frames in flight the times they have;
//! and a direction with which nothing is wrong any more delivers them at once.
//!
//! # Packet captures
//!
//! ```text
//!               ┌─ as each is counted ─▶ taps ──▶ buffer, bounded ──▶ writer thread ──▶ pcapng file
//!               │
//!   a frame comes from a machine · is handed over to one · is dropped, at whatever place in the drawing above
//! ```
//!
//! A segment tells its [`Observer`], if it has one, of the frame where it counts it. A switch's observer are its
//! taps ([`Switch::tap`]), which make a record for each capture of a port; a thread of the capture writes them.
//!
//! # Invariants
//!
//! - Every copy of a frame, duplicates included, is delivered, waits in a queue, is in flight, or is counted
//!   under one [`Cause`].
//! - Frames of one direction (ingress port, egress port) keep their order, except those held back by
//!   [`Reorder`]; and never return to their port.
//! - No frame arrives before the time its delay and rate give it, unless its direction is put in order.
//! - A direction with which nothing is wrong has nothing in flight, copies nothing and allocates nothing.
//! - A change of links takes effect between two frames, as a whole. It concerns Ethernet frames, so IPv4, IPv6
//!   and everything else are met alike.
//! - Memory is bounded by [`Limits`] per port, whatever guests send or fail to read, and by
//!   [`PacketCaptureOptions`] per capture, however slow the disk.
//! - An event is one packet of a capture that records its port: a copy that waited and was cut is one that was
//!   dropped, and none that has passed. A capture never makes a switch wait for a disk, nor fail with it.
//! - A held switch sends no machine a new frame, and its clock stands. Captured and restored, it has each waiting
//!   frame still, once and in its place, and each frame in flight with the time it still had to go; its random
//!   choices and its counters go on.
//!
//! # What is deliberately absent
//!
//! No spanning tree: a loop made inside guests makes a storm, bounded only by the queues. No back-pressure:
//! a machine that reads too slowly loses frames, as behind a real switch. VLANs are port-based ([`Vlan`]): tags
//! pass unseen. Bytes the kernel has accepted for a machine cannot be called back by a later cut. No rate shared by
//! several directions, and no loss that depends on what a frame carries. No filter of what is captured, and no
//! record of a copy that waits. Delays are met as well as the host schedules the thread: never early, and late by
//! what it takes to wake up.

// Not `forbid`, for the one call in `socket`.
#![deny(unsafe_code)]

mod addresses;
mod chance;
mod counters;
mod deframer;
mod direction;
mod flight;
mod frame;
mod impairment;
mod link;
mod links;
mod packet_capture;
mod partition;
mod pcapng;
mod queue;
mod segment;
pub mod simulated;
mod socket;
mod switch;
mod taps;
mod transit;
mod worker;

pub use counters::{Cause, Counters, Drops, PortCounters, Tally, Traffic};
pub use frame::{FRAME_BYTES_MAX, FRAME_BYTES_MIN};
pub use impairment::{
    Delay, GilbertElliott, Impairment, Jitter, Latency, LatencyError, Loss, Probability,
    ProbabilityError, Rate, RateError, Reorder,
};
pub use link::{AddPortError, Link, LinkError, Port, Scope, Vlan};
pub use links::Links;
pub use packet_capture::{
    PacketCapture, PacketCaptureError, PacketCaptureOptions, PacketCaptureSummary,
};
pub use segment::{
    CapturedDirection, CapturedFlight, CapturedFrame, CapturedLink, CapturedPort, CapturedScope,
    Event, Limits, Observer, Segment, SegmentState, StateError,
};
pub use socket::Connection;
pub use switch::{
    AttachError, CaptureError, ChangeError, Drained, RestoreError, STATE_VERSION, Stopped, Switch,
    SwitchOptions, SwitchState, Tap, TapError, Unread, UnreadError,
};
pub use transit::Payload;
