//! What each impairment does, on simulated time: who arrives, when, in which order, and what is counted.
//!
//! What holds for all impairments together is in `impairment_properties`.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use mvm_fabric::{
    Cause, Delay, GilbertElliott, Impairment, Jitter, Latency, Links, Loss, Probability, Rate,
    Reorder, Scope,
};
use support::net::{Message, Net, delayed, latency, lossy, ms, probability};

#[test]
fn a_delay_is_met_exactly_and_each_direction_has_its_own() {
    let mut net = Net::new(2, 1);
    net.impair(Scope::Link(net.link(0, 1)), delayed(50));
    net.send(0, 1, 1);
    net.send(1, 0, 2);
    assert_eq!(net.counters(1).in_flight.frames, 1);
    net.advance(ms(10));
    net.send(0, 1, 3);
    assert_eq!(net.finish(), [(ms(0), 2), (ms(50), 1), (ms(60), 3)]);
}

#[test]
fn the_most_specific_scope_counts_as_a_whole() {
    let mut net = Net::new(4, 1);
    net.impair(Scope::All, delayed(1));
    net.impair(Scope::To(net.nodes[1]), delayed(2));
    net.impair(Scope::From(net.nodes[0]), delayed(3));
    net.impair(Scope::Link(net.link(0, 1)), delayed(4));
    net.impair(Scope::Link(net.link(3, 1)), Impairment::NONE);
    let pairs = [(0, 1), (0, 2), (2, 1), (2, 3), (3, 1)];
    for (number, (from, to)) in (0..).zip(pairs) {
        net.send(from, to, number);
    }
    let expected = [(ms(0), 4), (ms(1), 3), (ms(2), 2), (ms(3), 1), (ms(4), 0)];
    assert_eq!(net.finish(), expected);

    let link = net.link(0, 1);
    net.change(|links| links.clear(Scope::Link(link)).unwrap());
    assert_eq!(net.network.links().impairment(link), Ok(delayed(3)));
    // A node that comes later is met by the wider scopes, too.
    let late = net.network.add_node("late").unwrap();
    net.nodes.push(late);
    let (to_late, from_late) = (net.link(0, 4), net.link(4, 3));
    assert_eq!(net.network.links().impairment(to_late), Ok(delayed(3)));
    assert_eq!(net.network.links().impairment(from_late), Ok(delayed(1)));
    let now = net.now;
    net.send(0, 4, 5);
    assert_eq!(net.finish(), [(now + ms(3), 5)]);
    net.change(Links::clear_impairments);
    assert_eq!(net.network.links().impairments().count(), 0);
    assert_eq!(net.network.links().impairment(link), Ok(Impairment::NONE));
}

/// The delays of ten thousand messages, in milliseconds.
fn jittered(jitter: Jitter) -> Vec<f64> {
    let base = latency(100);
    let mut net = Net::impaired(Impairment {
        delay: Delay { base, jitter },
        ..Impairment::NONE
    });
    for number in 0..10_000 {
        // So far apart that none waits for its predecessor.
        net.advance(ms(4_000_000) * number);
        net.send(0, 1, number);
    }
    let arrived = net.finish();
    assert_eq!(arrived.len(), 10_000);
    let delay = |(at, number): &(Duration, u32)| *at - ms(4_000_000) * *number;
    arrived
        .iter()
        .map(|arrival| delay(arrival).as_secs_f64() * 1000.0)
        .collect()
}

#[track_caller]
fn check_jitter(jitter: Jitter, range: std::ops::RangeInclusive<f64>, mean: f64, deviation: f64) {
    let delays = jittered(jitter);
    assert!(
        delays.iter().all(|delay| range.contains(delay)),
        "{jitter:?}"
    );
    let count = delays.len() as f64;
    let found = delays.iter().sum::<f64>() / count;
    assert!(
        (found - mean).abs() < 0.02 * mean,
        "{jitter:?}: mean {found}"
    );
    let variance = delays
        .iter()
        .map(|delay| (delay - found).powi(2))
        .sum::<f64>()
        / count;
    let found = variance.sqrt();
    assert!(
        (found - deviation).abs() < 0.25 * deviation,
        "{jitter:?}: deviation {found}"
    );
}

#[test]
fn jitter_has_its_distribution_and_is_never_negative() {
    let spread = latency(50);
    check_jitter(Jitter::Uniform { spread }, 50.0..=150.0, 100.0, 28.87);
    let deviation = latency(10);
    check_jitter(Jitter::Normal { deviation }, 40.0..=160.0, 100.0, 10.0);
    // Its deviation is the root of three times its mean.
    let mean = latency(20);
    check_jitter(Jitter::Pareto { mean }, 100.0..=3_600_000.0, 120.0, 34.6);
    let far = Jitter::Normal {
        deviation: latency(1000),
    };
    let delays = jittered(far);
    assert!(delays.contains(&0.0));
    let longest = Jitter::Pareto {
        mean: Latency::new(Latency::MAX).unwrap(),
    };
    assert!(jittered(longest).contains(&3_600_000.0));
}

#[track_caller]
fn check_loss(loss: Loss, expected: f64) {
    const MESSAGES: u32 = 20_000;
    let mut net = Net::impaired(Impairment {
        loss,
        ..Impairment::NONE
    });
    for number in 0..MESSAGES {
        net.send(0, 1, number);
    }
    let arrived = net.finish_numbers();
    assert!(arrived.is_sorted());
    let lost = u64::from(MESSAGES) - arrived.len() as u64;
    net.check_drops(1, Cause::Lost, lost);
    let found = lost as f64 / f64::from(MESSAGES);
    assert!((found - expected).abs() < 0.02, "{loss:?}: {found}");
}

#[test]
fn loss_is_as_frequent_as_it_says() {
    for value in [0.0, 0.01, 0.3, 0.99, 1.0] {
        check_loss(Loss::Independent(probability(value)), value);
    }
    let model = |p, r, good, bad| {
        Loss::GilbertElliott(GilbertElliott {
            good_to_bad: probability(p),
            bad_to_good: probability(r),
            loss_when_good: probability(good),
            loss_when_bad: probability(bad),
        })
    };
    // The share of the bad state is p / (p + r).
    check_loss(model(0.05, 0.2, 0.0, 1.0), 0.2);
    check_loss(model(0.1, 0.3, 0.02, 0.5), 0.25 * 0.5 + 0.75 * 0.02);
    check_loss(model(0.0, 0.5, 0.0, 1.0), 0.0);
    check_loss(model(1.0, 0.0, 0.0, 1.0), 1.0);
}

#[test]
fn bursts_are_as_long_as_the_model_says() {
    let mut net = Net::impaired(Impairment {
        loss: Loss::GilbertElliott(GilbertElliott {
            good_to_bad: probability(0.02),
            bad_to_good: probability(0.1),
            loss_when_good: Probability::NEVER,
            loss_when_bad: Probability::ALWAYS,
        }),
        ..Impairment::NONE
    });
    for number in 0..100_000 {
        net.send(0, 1, number);
    }
    let arrived = net.finish_numbers();
    let gaps = arrived.windows(2).map(|pair| pair[1] - pair[0] - 1);
    let bursts: Vec<u32> = gaps.filter(|gap| *gap > 0).collect();
    let mean = f64::from(bursts.iter().sum::<u32>()) / bursts.len() as f64;
    assert!((mean - 10.0).abs() < 1.0, "{mean}");
}

#[test]
fn a_larger_message_than_the_mtu_is_dropped() {
    let mut net = Net::impaired(Impairment {
        mtu_bytes: Some(1500),
        ..Impairment::NONE
    });
    for (number, bytes) in [(1, 1500), (2, 1501), (3, 0), (4, 9000)] {
        net.send_bytes(0, 1, number, bytes);
    }
    assert_eq!(net.finish_numbers(), [1, 3]);
    net.check_drops(1, Cause::TooLarge, 2);
}

#[test]
fn duplicates_come_behind_their_originals_and_are_counted() {
    let mut net = Net::impaired(Impairment {
        duplicate: Probability::ALWAYS,
        ..Impairment::NONE
    });
    net.send(0, 1, 1);
    net.send(0, 1, 2);
    assert_eq!(net.finish_numbers(), [1, 1, 2, 2]);
    let counters = net.counters(1);
    assert_eq!((counters.duplicated, counters.sent.frames), (2, 4));
    assert_eq!(net.counters(0).received.frames, 2);
}

#[test]
fn what_is_corrupted_is_so_in_both_copies() {
    let mut net = Net::impaired(Impairment {
        corrupt: Probability::ALWAYS,
        duplicate: Probability::ALWAYS,
        ..Impairment::NONE
    });
    net.send(0, 1, 1);
    // Has nothing that could be.
    net.send_bytes(0, 1, 2, 0);
    net.advance(ms(0));
    let corrupted = net
        .arrived
        .iter()
        .map(|(_, arrival)| arrival.message.corrupted);
    assert!(corrupted.eq([true, true, false, false]));
    assert_eq!(net.counters(1).corrupted, 2);
}

#[test]
fn a_reordered_message_is_overtaken_for_its_extra_time_and_others_keep_their_order() {
    let mut net = Net::new(2, 1);
    let all = Reorder {
        probability: Probability::ALWAYS,
        extra: latency(5),
    };
    let held = Impairment {
        reorder: Some(all),
        ..delayed(10)
    };
    net.impair(Scope::All, held);
    net.send(0, 1, 1);
    net.impair(Scope::All, delayed(10));
    net.advance(ms(4));
    net.send(0, 1, 2);
    net.advance(ms(6));
    net.send(0, 1, 3);
    assert_eq!(net.finish(), [(ms(14), 2), (ms(15), 1), (ms(16), 3)]);

    let mut net = Net::impaired(Impairment {
        reorder: Some(Reorder {
            probability: probability(0.25),
            ..all
        }),
        ..delayed(1)
    });
    for number in 0..4000 {
        net.advance(ms(u64::from(number)));
        net.send(0, 1, number);
    }
    let arrived = net.finish();
    let late = |(at, number): &&(Duration, u32)| *at > ms(u64::from(*number) + 1);
    let held = arrived.iter().filter(late).count();
    assert!((900..1100).contains(&held), "{held}");
    let punctual: Vec<u32> = arrived
        .iter()
        .filter(|arrival| !late(arrival))
        .map(|(_, number)| *number)
        .collect();
    assert!(punctual.is_sorted());
}

#[test]
fn a_rate_spaces_messages_and_its_queue_is_bounded() {
    // One message of 100 bytes takes a millisecond.
    let mut net = Net::impaired(Impairment {
        rate: Some(Rate::new(800_000, 300).unwrap()),
        ..Impairment::NONE
    });
    for number in 1..=5 {
        net.send(0, 1, number);
    }
    net.check_drops(1, Cause::RateQueueFull, 2);
    net.advance(ms(1));
    net.send(0, 1, 6);
    net.send(0, 1, 7);
    let expected = [(ms(1), 1), (ms(2), 2), (ms(3), 3), (ms(4), 6)];
    assert_eq!(std::mem::take(&mut net.arrived).len(), 1);
    assert_eq!(net.finish(), expected[1..]);
    // Larger than the queue, which is empty.
    let now = net.now;
    net.send_bytes(0, 1, 8, 1000);
    net.send_bytes(0, 1, 9, 1);
    assert_eq!(net.finish(), [(now + ms(10), 8)]);
    net.check_drops(1, Cause::RateQueueFull, 4);
}

#[test]
fn a_rate_changed_under_way_neither_drops_nor_overtakes() {
    let rate = |bits_per_second| Impairment {
        rate: Some(Rate::new(bits_per_second, 10_000).unwrap()),
        ..Impairment::NONE
    };
    let mut net = Net::impaired(rate(8_000));
    for number in 1..=10 {
        net.send(0, 1, number);
    }
    net.impair(Scope::All, rate(8_000_000_000));
    for number in 11..=20 {
        net.send(0, 1, number);
    }
    let arrived = net.finish();
    assert!(arrived.iter().map(|(_, number)| *number).eq(1..=20));
    assert_eq!(arrived[9].0, ms(1000));
    assert!(arrived[19].0 < ms(1001));
}

#[test]
fn a_cut_discards_what_is_in_flight_and_in_no_other_direction() {
    let mut net = Net::new(3, 1);
    net.impair(
        Scope::All,
        Impairment {
            rate: Some(Rate::new(800_000, 100_000).unwrap()),
            ..delayed(10)
        },
    );
    for number in 1..=5 {
        net.send(0, 1, number);
        net.send(1, 0, 10 + number);
        net.send(2, 1, 20 + number);
    }
    let link = net.link(0, 1);
    net.change(|links| links.cut_link(link).unwrap());
    net.check_drops(1, Cause::Cut, 5);
    assert_eq!(net.counters(1).in_flight.frames, 5);
    net.send(0, 1, 6);
    net.check_drops(1, Cause::Cut, 6);
    net.change(|links| links.heal_link(link).unwrap());
    // Healed, it is impaired as before, and its rate queue is empty.
    net.send(0, 1, 7);
    let arrived = net.finish();
    let numbers = |range: std::ops::RangeInclusive<u32>| {
        let numbers = arrived.iter().map(|(_, number)| *number);
        numbers.filter(|number| range.contains(number)).count()
    };
    assert_eq!(
        (numbers(1..=6), numbers(11..=15), numbers(21..=25)),
        (0, 5, 5)
    );
    assert!(arrived.contains(&(ms(11), 7)));
}

#[test]
fn a_cleared_link_delivers_what_is_in_flight_at_once_and_in_order() {
    let mut net = Net::new(2, 1);
    net.impair(Scope::From(net.nodes[0]), delayed(1000));
    for number in 1..=100 {
        net.send(0, 1, number);
        net.advance(ms(u64::from(number)));
    }
    // A change of impairment leaves the times.
    net.impair(Scope::From(net.nodes[0]), delayed(1));
    assert_eq!(net.network.next_due(), Some(ms(1000)));
    net.send(0, 1, 101);
    net.change(Links::clear_impairments);
    net.send(0, 1, 102);
    let expected: Vec<_> = (1..=102).map(|number| (ms(100), number)).collect();
    assert_eq!(net.finish(), expected);
}

#[test]
fn what_is_in_flight_is_bounded_in_bytes_and_ten_thousand_fit() {
    let mut net = Net::impaired(delayed(1000));
    for number in 0..10_000 {
        net.send_bytes(0, 1, number, 1514);
    }
    assert_eq!(net.counters(1).in_flight.frames, 10_000);
    assert_eq!(net.counters(1).dropped_to.total(), 0);
    for number in 10_000..1_000_000 {
        net.send_bytes(0, 1, number, 60);
    }
    let counters = net.counters(1);
    let lost = counters.dropped_to.frames(Cause::InFlightFull);
    assert!(lost > 500_000, "small ones are bounded, too: {lost}");
    assert_eq!(counters.in_flight.frames + lost, 1_000_000);
    // Another node is not concerned.
    net.send(1, 0, 1);
    assert_eq!(net.counters(0).in_flight.frames, 1);
    assert_eq!(net.finish().len() as u64, counters.in_flight.frames + 1);
}

/// All that can go wrong at once.
fn everything() -> Impairment {
    Impairment {
        mtu_bytes: Some(1400),
        loss: Loss::Independent(probability(0.2)),
        corrupt: probability(0.3),
        duplicate: probability(0.3),
        rate: Some(Rate::new(10_000_000, 20_000).unwrap()),
        delay: Delay {
            base: latency(5),
            jitter: Jitter::Normal {
                deviation: latency(3),
            },
        },
        reorder: Some(Reorder {
            probability: probability(0.2),
            extra: latency(10),
        }),
    }
}

/// What arrives of a thousand messages in one direction, while `others` go elsewhere.
fn fates(seed: u64, others: u32) -> Vec<(Duration, Message)> {
    let mut net = Net::new(3, seed);
    net.impair(Scope::All, everything());
    for number in 0..1000 {
        net.advance(Duration::from_micros(300) * number);
        for other in 0..others {
            net.send(1, 0, other);
            net.send(0, 2, other);
        }
        net.send(0, 1, number);
    }
    net.advance(ms(10_000));
    let link = net.link(0, 1);
    let arrived = net.arrived.into_iter();
    arrived
        .filter(|(_, arrival)| arrival.link == link)
        .map(|(at, arrival)| (at, arrival.message))
        .collect()
}

#[test]
fn a_seed_decides_the_fates_of_a_direction_whatever_happens_elsewhere() {
    let first = fates(7, 0);
    assert_eq!(fates(7, 0), first);
    assert_eq!(fates(7, 2), first);
    assert_ne!(fates(8, 0), first);
}

#[test]
fn directions_meet_different_fates_and_a_new_seed_begins_them_anew() {
    let mut net = Net::impaired(lossy(0.5));
    let round = |net: &mut Net, from, to| {
        (0..64).for_each(|number| net.send(from, to, number));
        net.finish_numbers()
    };
    let (there, back) = (round(&mut net, 0, 1), round(&mut net, 1, 0));
    assert_ne!(there, back);
    assert_ne!(round(&mut net, 0, 1), there);
    net.change(|links| links.set_seed(2));
    assert_ne!(round(&mut net, 0, 1), there);
    net.change(|links| links.set_seed(1));
    assert_eq!(round(&mut net, 0, 1), there);
}

#[test]
fn a_message_to_nobody_is_an_error() {
    let mut net = Net::new(2, 1);
    let stranger = *Net::new(3, 1).nodes.last().unwrap();
    let message = Message {
        number: 1,
        bytes: 1,
        corrupted: false,
    };
    for (from, to) in [
        (net.nodes[0], stranger),
        (stranger, net.nodes[0]),
        (net.nodes[0], net.nodes[0]),
    ] {
        assert!(net.network.send(from, to, &message, net.now).is_err());
    }
    assert_eq!(net.finish(), []);
}
