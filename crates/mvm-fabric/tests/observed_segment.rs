//! Property: whatever happens to a segment, its observer is told of each frame exactly once, as it is counted,
//! and with the bytes that really came and went.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mvm_fabric::{
    Cause, Delay, Event, Impairment, Latency, Limits, Links, Loss, Observer, Port, Probability,
    Rate, Scope, Segment, Traffic,
};
use proptest::prelude::*;
use support::{EVERYBODY, frame, sequence, station};

const PORTS: u8 = 3;

/// Small, so that queues fill.
const LIMITS: Limits = Limits {
    queue_bytes_max: 3000,
    in_flight_bytes_max: 4000,
    ..Limits::DEFAULT
};

fn impairment() -> Impairment {
    let probability = |value| Probability::new(value).unwrap();
    Impairment {
        mtu_bytes: Some(900),
        loss: Loss::Independent(probability(0.1)),
        corrupt: probability(0.3),
        duplicate: probability(0.3),
        rate: Some(Rate::new(2_000_000, 3_000).unwrap()),
        delay: Delay::constant(Latency::from_millis(5).unwrap()),
        ..Impairment::NONE
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// To a station, or to everybody.
    Frame {
        from: u8,
        target: u8,
        bytes: usize,
    },
    Runt(u8, usize),
    Malformed(u8, usize),
    Advance(u64),
    Send(u8, usize),
    Isolate(u8),
    HealAll,
    Impair(u8),
    Clear(u8),
    Lower(u8),
    Raise(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let port = 0..PORTS;
    prop_oneof![
        12 => (port.clone(), 0..=PORTS, 18..1000_usize)
            .prop_map(|(from, target, bytes)| Step::Frame { from, target, bytes }),
        1 => (port.clone(), 1..14_usize).prop_map(|(from, bytes)| Step::Runt(from, bytes)),
        1 => (port.clone(), 0..100_usize).prop_map(|(from, bytes)| Step::Malformed(from, bytes)),
        4 => (0..4000_u64).prop_map(Step::Advance),
        6 => (port.clone(), 1..3000_usize).prop_map(|(to, bytes)| Step::Send(to, bytes)),
        1 => port.clone().prop_map(Step::Isolate),
        1 => Just(Step::HealAll),
        2 => port.clone().prop_map(Step::Impair),
        1 => port.clone().prop_map(Step::Clear),
        1 => port.clone().prop_map(Step::Lower),
        3 => port.prop_map(Step::Raise),
    ]
}

/// What an observer has seen of one port.
#[derive(Debug, Default)]
struct Seen {
    received: Vec<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    dropped_from: BTreeMap<Cause, u64>,
    dropped_to: BTreeMap<Cause, u64>,
}

/// Notes what it is told, by port.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<BTreeMap<Port, Seen>>>);

impl Observer for Log {
    fn observe(&mut self, event: Event<'_>, links: &Links) {
        let mut log = self.0.lock().unwrap();
        match event {
            Event::Received { from, bytes } => {
                let seen = log.entry(from).or_default();
                seen.received.push(bytes.to_vec());
            }
            Event::Sent { to, bytes } => log.entry(to).or_default().sent.push(bytes.to_vec()),
            Event::Dropped {
                from,
                to,
                cause,
                bytes,
            } => {
                assert_eq!(links.port(links.name(from)), Some(from));
                let seen = log.entry(from).or_default();
                *seen.dropped_from.entry(cause).or_default() += 1;
                if let Some(to) = to {
                    let seen = log.entry(to).or_default();
                    *seen.dropped_to.entry(cause).or_default() += 1;
                }
                check_dropped(cause, bytes);
            }
        }
    }
}

/// What is dropped is what came, but for the one bit that corruption flips.
#[track_caller]
fn check_dropped(cause: Cause, bytes: &[u8]) {
    match cause {
        Cause::Runt => assert!(bytes.len() < 14),
        Cause::Malformed => assert!(bytes.iter().all(|byte| *byte == 7)),
        Cause::TooLarge => assert!(bytes.len() > 914),
        Cause::PortDown => {}
        Cause::Cut
        | Cause::Lost
        | Cause::RateQueueFull
        | Cause::InFlightFull
        | Cause::QueueFull
        | Cause::SelfAddressed
        | Cause::NoOtherPort => assert!(bytes.len() >= 18),
    }
}

fn amount(frames: &[Vec<u8>]) -> Traffic {
    Traffic {
        frames: frames.len() as u64,
        bytes: frames.iter().map(|frame| frame.len() as u64).sum(),
    }
}

struct Net {
    segment: Segment,
    log: Log,
    now: Duration,
    /// The frames given to the segment, by number.
    given: Vec<Vec<u8>>,
    /// What each machine got of a frame it has not got as a whole.
    begun: Vec<Vec<u8>>,
    /// What each machine has got as a whole.
    got: Vec<Vec<Vec<u8>>>,
}

impl Net {
    fn new() -> Net {
        let mut segment = Segment::new(LIMITS, 3);
        for number in 0..PORTS {
            segment.add_port(&number.to_string()).unwrap();
        }
        let log = Log::default();
        segment.set_observer(Some(Box::new(log.clone())));
        Net {
            segment,
            log,
            now: Duration::ZERO,
            given: Vec::new(),
            begun: vec![Vec::new(); usize::from(PORTS)],
            got: vec![Vec::new(); usize::from(PORTS)],
        }
    }

    fn port(&self, number: u8) -> Port {
        self.segment.port(&number.to_string()).unwrap()
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Frame {
                from,
                target,
                bytes,
            } => {
                // Nobody is station zero.
                let target = if target == 0 {
                    EVERYBODY
                } else {
                    station(target)
                };
                let number = self.given.len() as u32;
                let frame = frame(target, station(from + 1), number, bytes);
                self.segment.forward(self.port(from), &frame, self.now);
                self.given.push(frame);
            }
            Step::Runt(from, bytes) => {
                let runt = vec![0; bytes];
                self.segment.forward(self.port(from), &runt, self.now);
            }
            Step::Malformed(from, bytes) => {
                self.segment
                    .count_malformed(self.port(from), &vec![7; bytes]);
                self.apply(&Step::Lower(from));
            }
            Step::Advance(microseconds) => {
                self.now += Duration::from_micros(microseconds);
                self.segment.advance(self.now, usize::MAX);
            }
            Step::Send(to, bytes) => self.send(to, bytes),
            Step::Isolate(one) => {
                let one = self.port(one);
                self.change(|links| links.isolate(one).unwrap());
            }
            Step::HealAll => self.change(Links::heal_all),
            Step::Impair(from) => {
                let scope = Scope::From(self.port(from));
                self.change(|links| links.impair(scope, impairment()).unwrap());
            }
            Step::Clear(from) => {
                let scope = Scope::From(self.port(from));
                self.change(|links| links.clear(scope).unwrap());
            }
            Step::Lower(one) => {
                self.segment.lower(self.port(one));
                self.begun[usize::from(one)].clear();
            }
            Step::Raise(one) => self.segment.raise(self.port(one)),
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Links)) {
        let changed = self.segment.change(|links| {
            change(links);
            Ok(())
        });
        changed.unwrap();
    }

    fn send(&mut self, to: u8, bytes: usize) {
        let port = self.port(to);
        let pending = self.segment.pending(port);
        let bytes = bytes.min(pending.len());
        let begun = &mut self.begun[usize::from(to)];
        begun.extend_from_slice(&pending[..bytes]);
        self.segment.sent(port, bytes);
        while let Some((prefix, rest)) = begun.split_first_chunk::<4>() {
            let frame_bytes = u32::from_be_bytes(*prefix) as usize;
            let Some(frame) = rest.get(..frame_bytes) else {
                return;
            };
            self.got[usize::from(to)].push(frame.to_vec());
            begun.drain(..4 + frame_bytes);
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let mut log = self.log.0.lock().unwrap();
        for (counted, got) in self.segment.counters().ports.iter().zip(&self.got) {
            let seen = log.entry(counted.port).or_default();
            prop_assert_eq!(amount(&seen.received), counted.received);
            prop_assert_eq!(amount(&seen.sent), counted.sent);
            let dropped_from: BTreeMap<Cause, u64> = counted.dropped_from.iter().collect();
            prop_assert_eq!(&seen.dropped_from, &dropped_from);
            let dropped_to: BTreeMap<Cause, u64> = counted.dropped_to.iter().collect();
            prop_assert_eq!(&seen.dropped_to, &dropped_to);
            prop_assert_eq!(&seen.sent, got);
            for frame in seen.received.iter().filter(|frame| frame.len() >= 18) {
                prop_assert_eq!(&self.given[sequence(frame) as usize], frame);
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn an_observer_is_told_exactly_what_is_counted(steps in prop::collection::vec(step(), 1..200)) {
        let mut net = Net::new();
        for step in &steps {
            net.apply(step);
        }
        net.check()?;
    }
}

#[test]
fn an_observer_that_is_taken_away_is_told_nothing_more() {
    let mut net = Net::new();
    let step = Step::Frame {
        from: 0,
        target: 0,
        bytes: 64,
    };
    net.apply(&step);
    net.segment.set_observer(None);
    net.apply(&step);
    let log = net.log.0.lock().unwrap();
    assert_eq!(log[&net.port(0)].received.len(), 1);
}

#[test]
fn a_frame_on_a_segment_of_one_port_is_told_to_have_come_and_ended() {
    let mut segment = Segment::new(LIMITS, 0);
    let alone = segment.add_port("alone").unwrap();
    let log = Log::default();
    segment.set_observer(Some(Box::new(log.clone())));
    let frame = frame(EVERYBODY, station(1), 1, 64);
    segment.forward(alone, &frame, Duration::ZERO);
    let log = log.0.lock().unwrap();
    assert_eq!(log[&alone].received, [frame]);
    let dropped = BTreeMap::from([(Cause::NoOtherPort, 1)]);
    assert_eq!(log[&alone].dropped_from, dropped);
    assert!(log[&alone].dropped_to.is_empty());
}
