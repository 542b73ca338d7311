//! Properties of impaired links, on simulated time: nothing is invented or lost without a cause, order is kept
//! where promised, rates and delays are met.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use mvm_fabric::{
    Delay, GilbertElliott, Impairment, Jitter, Latency, Limits, Links, Loss, Probability, Rate,
    Reorder, Scope,
};
use proptest::prelude::*;
use support::net::{Net, latency, probability};

fn any_probability() -> impl Strategy<Value = Probability> {
    prop_oneof![Just(0.0), Just(1.0), 0.0..=1.0].prop_map(probability)
}

fn any_latency() -> impl Strategy<Value = Latency> {
    (0..50_u64).prop_map(latency)
}

prop_compose! {
    fn any_impairment()(
        mtu_bytes in prop::option::of(0..2000_u32),
        loss in prop_oneof![
            Just(Loss::None),
            any_probability().prop_map(Loss::Independent),
            prop::array::uniform4(any_probability()).prop_map(|[p, r, good, bad]| {
                Loss::GilbertElliott(GilbertElliott {
                    good_to_bad: p,
                    bad_to_good: r,
                    loss_when_good: good,
                    loss_when_bad: bad,
                })
            }),
        ],
        corrupt in any_probability(),
        duplicate in any_probability(),
        rate in prop::option::of((1..10_000_000_u64, 0..20_000_u32)),
        base in any_latency(),
        jitter in prop_oneof![
            Just(Jitter::None),
            any_latency().prop_map(|spread| Jitter::Uniform { spread }),
            any_latency().prop_map(|deviation| Jitter::Normal { deviation }),
            any_latency().prop_map(|mean| Jitter::Pareto { mean }),
        ],
        reorder in prop::option::of((any_probability(), any_latency())),
    ) -> Impairment {
        Impairment {
            mtu_bytes,
            loss,
            corrupt,
            duplicate,
            rate: rate.map(|(bits, queue)| Rate::new(bits, queue).unwrap()),
            delay: Delay { base, jitter },
            reorder: reorder.map(|(probability, extra)| Reorder { probability, extra }),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Send(usize, usize, usize),
    Advance(u64),
    Impair(usize, usize, Impairment),
    Clear,
    Cut(usize, usize),
    HealAll,
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..3_usize;
    prop_oneof![
        12 => (node.clone(), node.clone(), 0..2000_usize).prop_map(|(a, b, bytes)| Step::Send(a, b, bytes)),
        4 => (0..20_000_u64).prop_map(Step::Advance),
        2 => (node.clone(), node.clone(), any_impairment()).prop_map(|(a, b, i)| Step::Impair(a, b, i)),
        1 => Just(Step::Clear),
        1 => (node.clone(), node).prop_map(|(a, b)| Step::Cut(a, b)),
        1 => Just(Step::HealAll),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Whatever is done to links: nothing is invented or lost without a cause, nothing comes before its time,
    /// and without reordering each direction keeps its order.
    #[test]
    fn messages_are_neither_invented_nor_lost_without_a_cause(
        reorders in any::<bool>(),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let limits = Limits { in_flight_bytes_max: 20_000, ..Limits::DEFAULT };
        let mut net = Net::within(limits, 3, 5);
        let mut sent = Vec::new();
        for step in steps {
            match step {
                Step::Send(from, to, bytes) if from != to => {
                    net.send_bytes(from, to, sent.len() as u32, bytes);
                    sent.push((net.link(from, to), net.now));
                }
                Step::Send(..) => {}
                Step::Advance(microseconds) => net.advance(net.now + Duration::from_micros(microseconds)),
                Step::Impair(from, to, mut impairment) => {
                    impairment.reorder = impairment.reorder.filter(|_| reorders);
                    // With itself stands for all.
                    let scope = if from == to { Scope::All } else { Scope::Link(net.link(from, to)) };
                    net.impair(scope, impairment);
                }
                Step::Clear => net.change(Links::clear_impairments),
                Step::Cut(from, to) if from != to => {
                    let link = net.link(from, to);
                    net.change(|links| links.cut_link(link).unwrap());
                }
                Step::Cut(one, _) => {
                    let one = net.nodes[one];
                    net.change(|links| links.isolate(one).unwrap());
                }
                Step::HealAll => net.change(Links::heal_all),
            }
        }
        let waiting: u64 = (0..3).map(|node| net.counters(node).in_flight.frames).sum();
        net.advance(Duration::MAX);
        let (mut copies, mut fates, mut late) = (0, 0, 0);
        for node in 0..3 {
            let counters = net.counters(node);
            prop_assert_eq!(counters.in_flight.frames, 0);
            prop_assert_eq!(counters.in_flight.bytes, 0);
            copies += counters.received.frames + counters.duplicated;
            fates += counters.sent.frames + counters.dropped_to.total();
            late += counters.sent.frames;
        }
        prop_assert_eq!(copies, fates);
        prop_assert!(late >= waiting, "nothing in flight is lost by waiting alone");
        let mut last = std::collections::BTreeMap::new();
        for (at, arrival) in &net.arrived {
            let (link, sent_at) = sent[arrival.message.number as usize];
            prop_assert_eq!(arrival.link, link, "it comes where it was sent");
            prop_assert!(*at >= sent_at);
            let before = last.insert(link, arrival.message.number);
            prop_assert!(reorders || before <= Some(arrival.message.number), "out of order");
        }
    }

    /// On any stretch of time no more passes than the rate allows, and a busy link wastes none of it.
    #[test]
    fn a_rate_is_met(
        bits_per_second in 1_000..100_000_000_u64,
        sizes in prop::collection::vec(1..2000_usize, 2..100),
    ) {
        let rate = Rate::new(bits_per_second, u32::MAX).unwrap();
        let mut net = Net::impaired(Impairment { rate: Some(rate), ..Impairment::NONE });
        for (number, bytes) in (0..).zip(&sizes) {
            net.send_bytes(0, 1, number, *bytes);
        }
        let arrived = net.finish();
        prop_assert_eq!(arrived.len(), sizes.len());
        let mut bits = 0;
        for ((at, _), bytes) in arrived.iter().zip(&sizes) {
            bits += 8 * bytes;
            let ideal = bits as f64 / bits_per_second as f64;
            let found = at.as_secs_f64();
            prop_assert!(found >= ideal - 1e-9 && found <= ideal + 1e-6, "{} {}", found, ideal);
        }
    }

    /// A delay is never undercut and, without jitter, never exceeded.
    #[test]
    fn a_delay_is_met(base in any_latency(), times in prop::collection::vec(0..5_000_u64, 1..50)) {
        let mut net = Net::impaired(Impairment { delay: Delay::constant(base), ..Impairment::NONE });
        let mut expected = Vec::new();
        for (number, pause) in (0..).zip(times) {
            net.advance(net.now + Duration::from_micros(pause));
            net.send(0, 1, number);
            expected.push((net.now + base.get(), number));
        }
        prop_assert_eq!(net.finish(), expected);
    }
}
