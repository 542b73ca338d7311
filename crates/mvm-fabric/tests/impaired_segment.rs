//! Property: a segment with impaired links that is captured and restored goes on exactly as the original does.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use mvm_fabric::{
    Delay, GilbertElliott, Impairment, Jitter, Latency, Limits, Loss, Port, Probability, Rate,
    Reorder, Scope, Segment, SegmentState,
};
use proptest::prelude::*;
use support::{EVERYBODY, frame, station};

const PORTS: u8 = 3;

fn impairment() -> Impairment {
    let probability = |value| Probability::new(value).unwrap();
    let latency = |milliseconds| Latency::from_millis(milliseconds).unwrap();
    Impairment {
        mtu_bytes: Some(1000),
        loss: Loss::GilbertElliott(GilbertElliott {
            good_to_bad: probability(0.1),
            bad_to_good: probability(0.4),
            loss_when_good: probability(0.01),
            loss_when_bad: probability(0.8),
        }),
        corrupt: probability(0.3),
        duplicate: probability(0.3),
        rate: Some(Rate::new(2_000_000, 5_000).unwrap()),
        delay: Delay {
            base: latency(5),
            jitter: Jitter::Pareto { mean: latency(2) },
        },
        reorder: Some(Reorder {
            probability: probability(0.3),
            extra: latency(4),
        }),
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// To everybody.
    Frame(u8, usize),
    Advance(u64),
    /// Sends some of what waits for a port.
    Send(u8, usize),
    Cut(u8),
    HealAll,
    Clear(u8),
    Impair(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let port = 0..PORTS;
    prop_oneof![
        10 => (port.clone(), 18..1100_usize).prop_map(|(from, bytes)| Step::Frame(from, bytes)),
        5 => (0..4000_u64).prop_map(Step::Advance),
        3 => (port.clone(), 1..3000_usize).prop_map(|(to, bytes)| Step::Send(to, bytes)),
        1 => port.clone().prop_map(Step::Cut),
        1 => Just(Step::HealAll),
        1 => port.clone().prop_map(Step::Clear),
        1 => port.prop_map(Step::Impair),
    ]
}

struct Net {
    segment: Segment,
    ports: Vec<Port>,
    now: Duration,
    number: u32,
}

impl Net {
    fn new() -> Net {
        let mut segment = Segment::new(Limits::DEFAULT, 3);
        let ports: Vec<Port> = (0..PORTS)
            .map(|number| segment.add_port(&number.to_string()).unwrap())
            .collect();
        segment
            .change(|links| links.impair(Scope::All, impairment()))
            .unwrap();
        Net {
            segment,
            ports,
            now: Duration::ZERO,
            number: 0,
        }
    }

    fn restored(&self) -> Net {
        let file = postcard::to_stdvec(&self.segment.capture(self.now)).unwrap();
        let state: SegmentState = postcard::from_bytes(&file).unwrap();
        Net {
            segment: Segment::restore(Limits::DEFAULT, &state).unwrap(),
            ports: self.ports.clone(),
            now: state.now,
            number: self.number,
        }
    }

    fn apply(&mut self, step: &Step) {
        let port = |number: u8| self.ports[usize::from(number)];
        match *step {
            Step::Frame(from, bytes) => {
                let frame = frame(EVERYBODY, station(from + 1), self.number, bytes);
                self.segment.forward(port(from), &frame, self.now);
                self.number += 1;
            }
            Step::Advance(microseconds) => {
                self.now += Duration::from_micros(microseconds);
                self.segment.advance(self.now, usize::MAX);
            }
            Step::Send(to, bytes) => {
                let bytes = bytes.min(self.segment.pending(port(to)).len());
                self.segment.sent(port(to), bytes);
            }
            Step::Cut(one) => {
                let one = port(one);
                self.segment.change(|links| links.isolate(one)).unwrap();
            }
            Step::HealAll => {
                let healed = self.segment.change(|links| {
                    links.heal_all();
                    Ok(())
                });
                healed.unwrap();
            }
            Step::Clear(from) => {
                // An exception from what holds for all.
                let scope = Scope::From(port(from));
                let cleared = |links: &mut mvm_fabric::Links| links.impair(scope, Impairment::NONE);
                self.segment.change(cleared).unwrap();
            }
            Step::Impair(from) => {
                let scope = Scope::From(port(from));
                self.segment.change(|links| links.clear(scope)).unwrap();
            }
        }
    }

    /// No copy is invented or lost without a cause.
    fn check_conservation(&self) -> Result<(), TestCaseError> {
        let (mut copies, mut fates) = (0, 0);
        for port in self.segment.counters().ports {
            copies += u64::from(PORTS - 1) * port.received.frames + port.duplicated;
            fates += port.sent.frames + port.queued.frames + port.in_flight.frames;
            fates += port.dropped_to.total();
        }
        prop_assert_eq!(copies, fates);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_restored_segment_goes_on_as_the_original(
        before in prop::collection::vec(step(), 1..100),
        after in prop::collection::vec(step(), 1..100),
    ) {
        let mut original = Net::new();
        before.iter().for_each(|step| original.apply(step));
        original.check_conservation()?;
        // A frame sent in part would be sent anew by the copy, and its rest by the original.
        for port in original.ports.clone() {
            let begun = original.segment.begun(port).len();
            original.segment.sent(port, begun);
        }
        let mut copy = original.restored();
        prop_assert_eq!(copy.segment.capture(copy.now), original.segment.capture(original.now));
        for step in &after {
            original.apply(step);
            copy.apply(step);
        }
        original.check_conservation()?;
        prop_assert_eq!(copy.segment.capture(copy.now), original.segment.capture(original.now));
        prop_assert_eq!(copy.segment.next_due(), original.segment.next_due());
    }
}
