//! What went in, what came out, and why the rest did not.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::link::Port;

/// Why a frame, or one copy of it, was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The direction is cut, or was cut while the frame was on its way.
    Cut,
    /// The payload is larger than the MTU of the direction.
    TooLarge,
    /// Lost by chance, as the impairment of the direction says.
    Lost,
    /// The rate of the direction leaves too much waiting already.
    RateQueueFull,
    /// Too many bytes are on their way to the egress port.
    InFlightFull,
    /// The machine behind the egress port reads too slowly: its queue is full.
    QueueFull,
    /// The egress port has no machine, or lost it while the frame waited.
    PortDown,
    /// The receiving station is behind the port the frame came from.
    SelfAddressed,
    /// A frame for everybody, or for an unknown station, on a segment with no other port.
    NoOtherPort,
    /// The frame is too short to have an Ethernet header.
    Runt,
    /// The length in front of a frame was zero or too large. Nothing after it can be told apart, so the
    /// port was taken down.
    Malformed,
}

impl Cause {
    /// Every cause, in the order of declaration.
    pub const ALL: [Cause; 11] = [
        Cause::Cut,
        Cause::TooLarge,
        Cause::Lost,
        Cause::RateQueueFull,
        Cause::InFlightFull,
        Cause::QueueFull,
        Cause::PortDown,
        Cause::SelfAddressed,
        Cause::NoOtherPort,
        Cause::Runt,
        Cause::Malformed,
    ];

    /// A short name for tables and reports.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Cut => "cut",
            Cause::TooLarge => "too large",
            Cause::Lost => "lost",
            Cause::RateQueueFull => "rate queue full",
            Cause::InFlightFull => "in flight full",
            Cause::QueueFull => "queue full",
            Cause::PortDown => "port down",
            Cause::SelfAddressed => "self-addressed",
            Cause::NoOtherPort => "no other port",
            Cause::Runt => "runt",
            Cause::Malformed => "malformed",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An amount of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// How many frames.
    pub frames: u64,
    /// Their size together, Ethernet headers included.
    pub bytes: u64,
}

/// No switch counts as far: at ten gigabytes per second that takes three years. Numbers from a file are
/// held below it, so that counting on from them and adding them up cannot overflow.
const COUNT_MAX: u64 = 1 << 60;

impl Traffic {
    /// Tells whether a switch may have counted this.
    pub(crate) fn is_plausible(&self) -> bool {
        self.frames < COUNT_MAX && self.bytes < COUNT_MAX
    }

    /// Counts one more frame.
    pub(crate) fn add_frame(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }

    /// Counts one frame less, which was counted before.
    pub(crate) fn subtract_frame(&mut self, bytes: usize) {
        self.frames -= 1;
        self.bytes -= bytes as u64;
    }

    /// Adds another amount to this one.
    pub(crate) fn add(&mut self, other: Traffic) {
        self.frames += other.frames;
        self.bytes += other.bytes;
    }
}

/// Frames not delivered, by cause.
///
/// Serialised as one number per cause, in the order of [`Cause::ALL`]; changing that changes
/// [`STATE_VERSION`](crate::STATE_VERSION).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Drops {
    frames: [u64; Cause::ALL.len()],
}

impl Drops {
    /// How many frames were dropped for `cause`.
    pub fn frames(&self, cause: Cause) -> u64 {
        self.frames[cause as usize]
    }

    /// How many frames were dropped for any cause.
    pub fn total(&self) -> u64 {
        self.frames.iter().sum()
    }

    /// The causes that occurred, each with its number of frames.
    pub fn iter(&self) -> impl Iterator<Item = (Cause, u64)> {
        Cause::ALL
            .into_iter()
            .map(|cause| (cause, self.frames(cause)))
            .filter(|(_, frames)| *frames > 0)
    }

    /// Tells whether a switch may have counted this.
    pub(crate) fn is_plausible(&self) -> bool {
        self.frames.iter().all(|frames| *frames < COUNT_MAX)
    }

    /// Counts one more frame.
    pub(crate) fn add_frame(&mut self, cause: Cause) {
        self.frames[cause as usize] += 1;
    }
}

/// The counters of one port that only grow; what each is for is told at [`PortCounters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Frames the machine sent.
    pub received: Traffic,
    /// Frames handed over to the machine.
    pub sent: Traffic,
    /// Copies for this machine that were added by duplication.
    pub duplicated: u64,
    /// Copies for this machine that were corrupted.
    pub corrupted: u64,
    /// Copies from this machine that nobody got.
    pub dropped_from: Drops,
    /// Copies for this machine that it did not get.
    pub dropped_to: Drops,
}

impl Tally {
    /// Tells whether a switch may have counted this.
    pub(crate) fn is_plausible(&self) -> bool {
        self.received.is_plausible()
            && self.sent.is_plausible()
            && self.duplicated < COUNT_MAX
            && self.corrupted < COUNT_MAX
            && self.dropped_from.is_plausible()
            && self.dropped_to.is_plausible()
    }

    /// Counts what was done to a frame for this machine.
    pub(crate) fn add_delivery(&mut self, corrupted: bool, twice: bool) {
        let copies = 1 + u64::from(twice);
        self.duplicated += u64::from(twice);
        self.corrupted += copies * u64::from(corrupted);
    }
}

/// What one port has seen since it was attached for the first time.
///
/// A frame for several ports has a copy for each, duplication adds one more, and each copy has its own fate:
/// it is sent, queued, in flight, or dropped under one cause. Drops are counted at both ends: summed over
/// all ports, the copies with an egress port in `dropped_from` and in `dropped_to` are the same ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortCounters {
    /// The port.
    pub port: Port,
    /// The name it was attached under.
    pub name: Arc<str>,
    /// Whether a machine is connected.
    pub up: bool,
    /// Frames the machine sent, whatever became of them.
    pub received: Traffic,
    /// Frames handed over to the machine as a whole.
    pub sent: Traffic,
    /// Frames waiting for the machine to read, one perhaps sent in part.
    pub queued: Traffic,
    /// Frames on their way to the machine, by rate, delay or reordering.
    pub in_flight: Traffic,
    /// Copies for this machine that were added by duplication, whatever became of them.
    pub duplicated: u64,
    /// Copies for this machine that were corrupted, whatever became of them.
    pub corrupted: u64,
    /// Copies of frames from this machine that nobody got.
    pub dropped_from: Drops,
    /// Copies of frames for this machine that it did not get.
    pub dropped_to: Drops,
}

/// What has set out for a port and is not there yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) queued: Traffic,
    pub(crate) in_flight: Traffic,
}

impl PortCounters {
    pub(crate) fn new(
        port: Port,
        name: &Arc<str>,
        up: bool,
        waiting: Waiting,
        tally: &Tally,
    ) -> PortCounters {
        PortCounters {
            port,
            name: Arc::clone(name),
            up,
            received: tally.received,
            sent: tally.sent,
            queued: waiting.queued,
            in_flight: waiting.in_flight,
            duplicated: tally.duplicated,
            corrupted: tally.corrupted,
            dropped_from: tally.dropped_from,
            dropped_to: tally.dropped_to,
        }
    }
}

/// The counters of all ports at one moment between two frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// One entry per port, in the order of attaching.
    pub ports: Vec<PortCounters>,
}

impl Counters {
    /// The counters of one port; `None` if it was attached later, or to another switch.
    pub fn port(&self, port: Port) -> Option<&PortCounters> {
        self.ports.get(port.index())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_own_cell_and_name() {
        let mut drops = Drops::default();
        for (times, cause) in (1..).zip(Cause::ALL) {
            for _ in 0..times {
                drops.add_frame(cause);
            }
        }
        let expected: Vec<(Cause, u64)> = Cause::ALL.into_iter().zip(1..).collect();
        assert_eq!(drops.iter().collect::<Vec<_>>(), expected);
        assert_eq!(drops.total(), 66);
        let names: std::collections::BTreeSet<_> =
            Cause::ALL.iter().map(|cause| cause.name()).collect();
        assert_eq!(names.len(), Cause::ALL.len());
    }
}
