//! Property: whatever happens to a segment, every copy of a frame is delivered once, waits, or is counted
//! under the right cause, and each direction keeps its order.
//!
//! Being captured and restored is one of the things that happen.
//!
//! A slow and obvious model says which copies there are and which of them must not arrive.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mvm_fabric::{Cause, Limits, Link, Port, Segment, SegmentState};
use proptest::prelude::*;
use support::{EVERYBODY, frame, sequence, station};

const PORTS: usize = 4;

/// Small, so that queues fill.
const QUEUE_BYTES: usize = 1000;

const LIMITS: Limits = Limits {
    queue_bytes_max: QUEUE_BYTES,
    ..Limits::DEFAULT
};

#[derive(Clone, Debug)]
enum Step {
    Frame {
        from: usize,
        target: u8,
        source: u8,
        bytes: usize,
    },
    Runt {
        from: usize,
        bytes: usize,
    },
    Send {
        to: usize,
        bytes: usize,
    },
    Cut(usize, usize),
    CutOneWay(usize, usize),
    Heal(usize, usize),
    Isolate(usize),
    /// The group of each port; group zero is not named.
    Partition([usize; PORTS]),
    HealAll,
    Lower(usize),
    Raise(usize),
    /// Go on with a segment made from the written state of this one, and with new connections.
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    let port = 0..PORTS;
    prop_oneof![
        12 => (port.clone(), 0..6_u8, 1..6_u8, 18..200_usize)
            .prop_map(|(from, target, source, bytes)| Step::Frame { from, target, source, bytes }),
        1 => (port.clone(), 0..14_usize).prop_map(|(from, bytes)| Step::Runt { from, bytes }),
        6 => (port.clone(), 1..400_usize).prop_map(|(to, bytes)| Step::Send { to, bytes }),
        1 => (port.clone(), port.clone()).prop_map(|(a, b)| Step::Cut(a, b)),
        1 => (port.clone(), port.clone()).prop_map(|(a, b)| Step::CutOneWay(a, b)),
        1 => (port.clone(), port.clone()).prop_map(|(a, b)| Step::Heal(a, b)),
        1 => port.clone().prop_map(Step::Isolate),
        1 => prop::array::uniform4(0..3_usize).prop_map(Step::Partition),
        1 => Just(Step::HealAll),
        1 => port.clone().prop_map(Step::Lower),
        2 => port.prop_map(Step::Raise),
        1 => Just(Step::Restore),
    ]
}

/// One copy on its way: frame, ingress, egress.
type Copy = (u32, usize, usize);

/// Frames by port and cause.
type Dropped = BTreeMap<(usize, Cause), u64>;

struct Model {
    segment: Segment,
    ports: Vec<Port>,
    now: Duration,
    up: [bool; PORTS],
    cut: BTreeSet<(usize, usize)>,
    learned: BTreeMap<u8, usize>,
    /// What each machine got of a frame it has not got as a whole.
    begun: Vec<Vec<u8>>,
    ingress_of: Vec<usize>,
    /// Copies that must arrive.
    waiting: BTreeSet<Copy>,
    delivered: Vec<Copy>,
    /// Copies that arrived and should not have.
    unexpected: Vec<Copy>,
    dropped_from: Dropped,
    dropped_to: Dropped,
    received: [u64; PORTS],
}

impl Model {
    fn new() -> Model {
        let mut segment = Segment::new(LIMITS, 0);
        let ports = (0..PORTS)
            .map(|index| segment.add_port(&format!("node{index}")).unwrap())
            .collect();
        Model {
            segment,
            ports,
            now: Duration::ZERO,
            up: [true; PORTS],
            cut: BTreeSet::new(),
            learned: BTreeMap::new(),
            begun: vec![Vec::new(); PORTS],
            ingress_of: Vec::new(),
            waiting: BTreeSet::new(),
            delivered: Vec::new(),
            unexpected: Vec::new(),
            dropped_from: Dropped::new(),
            dropped_to: Dropped::new(),
            received: [0; PORTS],
        }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Frame {
                from,
                target,
                source,
                bytes,
            } => self.forward(from, target, source, bytes),
            Step::Runt { from, bytes } => {
                self.segment
                    .forward(self.ports[from], &vec![0; bytes], self.now);
                self.received[from] += 1;
                self.drop_frame(
                    from,
                    if self.up[from] {
                        Cause::Runt
                    } else {
                        Cause::PortDown
                    },
                );
            }
            Step::Send { to, bytes } => self.send(to, bytes),
            Step::Cut(a, b) => {
                let (one, other) = (self.ports[a], self.ports[b]);
                if self.segment.change(|links| links.cut(one, other)).is_ok() {
                    self.cut.extend([(a, b), (b, a)]);
                }
            }
            Step::CutOneWay(a, b) => {
                let link = self.link(a, b);
                if self.segment.change(|links| links.cut_link(link)).is_ok() {
                    self.cut.insert((a, b));
                }
            }
            Step::Heal(a, b) => {
                let (one, other) = (self.ports[a], self.ports[b]);
                if self.segment.change(|links| links.heal(one, other)).is_ok() {
                    self.cut.retain(|pair| *pair != (a, b) && *pair != (b, a));
                }
            }
            Step::Isolate(one) => {
                let port = self.ports[one];
                self.segment.change(|links| links.isolate(port)).unwrap();
                self.cut
                    .extend(pairs().filter(|(from, to)| *from == one || *to == one));
            }
            Step::Partition(groups) => self.partition(groups),
            Step::HealAll => {
                self.heal_all();
                self.cut.clear();
            }
            Step::Lower(index) => {
                self.segment.lower(self.ports[index]);
                self.up[index] = false;
                self.learned.retain(|_, port| *port != index);
                self.begun[index].clear();
                self.drop_waiting(Cause::PortDown, |copy| copy.2 == index);
            }
            Step::Raise(index) => {
                self.segment.raise(self.ports[index]);
                self.up[index] = true;
            }
            Step::Restore => self.restore(),
        }
        self.drop_what_is_cut();
    }

    fn link(&self, from: usize, to: usize) -> Link {
        Link {
            from: self.ports[from],
            to: self.ports[to],
        }
    }

    fn heal_all(&mut self) {
        let heal_all = self.segment.change(|links| {
            links.heal_all();
            Ok(())
        });
        heal_all.unwrap();
    }

    fn forward(&mut self, from: usize, target: u8, source: u8, bytes: usize) {
        let number = self.ingress_of.len() as u32;
        let target_address = if target == 0 {
            EVERYBODY
        } else {
            station(target)
        };
        let frame = frame(target_address, station(source), number, bytes);
        self.ingress_of.push(from);
        self.received[from] += 1;
        for to in self.targets(from, target, source) {
            let copy = (number, from, to);
            let waiting_bytes = self.segment.pending(self.ports[to]).len();
            if self.cut.contains(&(from, to)) {
                self.drop_copy(copy, Cause::Cut);
            } else if !self.up[to] {
                self.drop_copy(copy, Cause::PortDown);
            } else if waiting_bytes + 4 + frame.len() > QUEUE_BYTES {
                self.drop_copy(copy, Cause::QueueFull);
            } else {
                self.waiting.insert(copy);
            }
        }
        self.segment.forward(self.ports[from], &frame, self.now);
    }

    /// The ports a frame is for; if there are none, why.
    fn targets(&mut self, from: usize, target: u8, source: u8) -> Vec<usize> {
        if !self.up[from] {
            self.drop_frame(from, Cause::PortDown);
            return Vec::new();
        }
        self.learned.insert(source, from);
        match self.learned.get(&target) {
            Some(to) if *to == from => {
                self.drop_frame(from, Cause::SelfAddressed);
                Vec::new()
            }
            Some(to) => vec![*to],
            None => (0..PORTS).filter(|to| *to != from).collect(),
        }
    }

    /// Stations and what machines had got in part are forgotten, and nothing else is.
    fn restore(&mut self) {
        let state = self.segment.capture(self.now);
        let file = postcard::to_stdvec(&state).unwrap();
        let read: SegmentState = postcard::from_bytes(&file).unwrap();
        assert_eq!(read, state);
        self.segment = Segment::restore(LIMITS, &read).unwrap();
        let again = Segment::restore(LIMITS, &self.segment.capture(self.now)).unwrap();
        assert_eq!(again.capture(self.now), self.segment.capture(self.now));
        for (index, port) in self.ports.iter_mut().enumerate() {
            *port = self.segment.port(&format!("node{index}")).unwrap();
        }
        self.learned.clear();
        self.begun.fill(Vec::new());
    }

    fn partition(&mut self, groups: [usize; PORTS]) {
        let named: Vec<Vec<Port>> = (1..3)
            .map(|group| {
                (0..PORTS)
                    .filter(|index| groups[*index] == group)
                    .map(|index| self.ports[index])
                    .collect()
            })
            .collect();
        self.segment
            .change(|links| links.partition(&named))
            .unwrap();
        self.cut = pairs()
            .filter(|(from, to)| groups[*from] != groups[*to])
            .collect();
    }

    /// A copy on a direction that is cut now must not arrive any more, unless its machine has a part of it.
    fn drop_what_is_cut(&mut self) {
        let begun: Vec<Option<u32>> = (0..PORTS).map(|to| self.begun_number(to)).collect();
        let cut = self.cut.clone();
        self.drop_waiting(Cause::Cut, |(number, from, to)| {
            cut.contains(&(*from, *to)) && begun[*to] != Some(*number)
        });
    }

    /// The frame of which a machine has got a part.
    fn begun_number(&self, to: usize) -> Option<u32> {
        if self.begun[to].is_empty() {
            return None;
        }
        let stream = [&self.begun[to], self.segment.pending(self.ports[to])].concat();
        Some(sequence(&stream[4..]))
    }

    fn drop_waiting(&mut self, cause: Cause, drops: impl Fn(&Copy) -> bool) {
        let dropped: Vec<Copy> = self
            .waiting
            .iter()
            .copied()
            .filter(|copy| drops(copy))
            .collect();
        for copy in dropped {
            self.waiting.remove(&copy);
            self.drop_copy(copy, cause);
        }
    }

    fn drop_copy(&mut self, (_, from, to): Copy, cause: Cause) {
        self.drop_frame(from, cause);
        *self.dropped_to.entry((to, cause)).or_default() += 1;
    }

    fn drop_frame(&mut self, from: usize, cause: Cause) {
        *self.dropped_from.entry((from, cause)).or_default() += 1;
    }

    fn send(&mut self, to: usize, bytes: usize) {
        let pending = self.segment.pending(self.ports[to]);
        let bytes = bytes.min(pending.len());
        self.begun[to].extend_from_slice(&pending[..bytes]);
        self.segment.sent(self.ports[to], bytes);
        while let Some((prefix, rest)) = self.begun[to].split_first_chunk::<4>() {
            let frame_bytes = u32::from_be_bytes(*prefix) as usize;
            let Some(frame) = rest.get(..frame_bytes) else {
                return;
            };
            let number = sequence(frame);
            let copy = (number, self.ingress_of[number as usize], to);
            self.delivered.push(copy);
            if !self.waiting.remove(&copy) {
                self.unexpected.push(copy);
            }
            self.begun[to].drain(..4 + frame_bytes);
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        prop_assert_eq!(
            &self.unexpected,
            &[],
            "arrived, though dropped or delivered before"
        );
        prop_assert_eq!(&self.waiting, &BTreeSet::new(), "never arrived");
        for pair in pairs() {
            let direction = self
                .delivered
                .iter()
                .filter(|copy| (copy.1, copy.2) == pair);
            let numbers: Vec<u32> = direction.map(|copy| copy.0).collect();
            prop_assert!(numbers.is_sorted(), "{pair:?} is out of order: {numbers:?}");
        }
        self.check_counters()
    }

    fn check_counters(&self) -> Result<(), TestCaseError> {
        let (mut dropped_from, mut dropped_to) = (Dropped::new(), Dropped::new());
        for (index, port) in self.segment.counters().ports.iter().enumerate() {
            let delivered = self.delivered.iter().filter(|copy| copy.2 == index).count();
            prop_assert_eq!(port.received.frames, self.received[index]);
            prop_assert_eq!(port.sent.frames, delivered as u64);
            prop_assert_eq!(port.queued.frames, 0);
            dropped_from.extend(
                port.dropped_from
                    .iter()
                    .map(|(cause, frames)| ((index, cause), frames)),
            );
            dropped_to.extend(
                port.dropped_to
                    .iter()
                    .map(|(cause, frames)| ((index, cause), frames)),
            );
        }
        prop_assert_eq!(&dropped_from, &self.dropped_from);
        prop_assert_eq!(&dropped_to, &self.dropped_to);
        Ok(())
    }
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..PORTS)
        .flat_map(|from| (0..PORTS).map(move |to| (from, to)))
        .filter(|(from, to)| from != to)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn frames_are_neither_invented_nor_lost_without_a_cause(steps in prop::collection::vec(step(), 1..150)) {
        let mut model = Model::new();
        for step in &steps {
            model.apply(step);
        }
        for to in 0..PORTS {
            model.send(to, usize::MAX);
        }
        model.check()?;
    }
}
