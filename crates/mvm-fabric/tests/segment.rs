//! Table tests of the core: who gets a frame, and under which cause the others do not.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use mvm_fabric::{
    AddPortError, Cause, FRAME_BYTES_MIN, Impairment, Limits, Link, LinkError, Links, Loss, Port,
    Probability, Scope,
};
use support::segment::Net;
use support::{EVERYBODY, frame, sequence, station, unpacked};

#[track_caller]
fn check_receivers(target: [u8; 6], expected: &[usize]) {
    let mut net = Net::acquainted(4);
    net.send(0, &frame(target, station(1), 1, 64));
    assert_eq!(net.receivers(), expected);
}

#[test]
fn a_frame_reaches_those_it_is_for_and_never_its_own_port() {
    check_receivers(station(3), &[2]);
    check_receivers(EVERYBODY, &[1, 2, 3]);
    check_receivers([0x33, 0x33, 0, 0, 0, 1], &[1, 2, 3]);
    check_receivers([0x01, 0x00, 0x5e, 0, 0, 1], &[1, 2, 3]);
    check_receivers(station(77), &[1, 2, 3]);
    check_receivers(station(1), &[]);
}

#[track_caller]
fn check_cause(ports: u8, bytes: &[u8], expected: Cause) {
    let mut net = Net::acquainted(ports);
    let before = net.dropped_from(0, expected);
    net.send(0, bytes);
    assert_eq!(net.receivers(), []);
    assert_eq!(net.dropped_from(0, expected), before + 1);
}

#[test]
fn a_frame_for_nobody_is_counted_by_its_cause() {
    check_cause(
        2,
        &frame(station(1), station(1), 1, 64),
        Cause::SelfAddressed,
    );
    check_cause(1, &frame(EVERYBODY, station(1), 1, 64), Cause::NoOtherPort);
    check_cause(2, &[0xff; FRAME_BYTES_MIN - 1], Cause::Runt);
    check_cause(2, &[], Cause::Runt);
}

#[test]
fn a_header_without_payload_is_a_frame() {
    let mut net = Net::acquainted(2);
    net.send(0, &frame(station(2), station(1), 0, 0)[..FRAME_BYTES_MIN]);
    assert_eq!(net.segment.pending(net.ports[1]).len(), 4 + FRAME_BYTES_MIN);
}

#[test]
fn a_station_that_moved_is_found_at_its_new_port() {
    let mut net = Net::acquainted(3);
    net.send(2, &frame(EVERYBODY, station(2), 0, 64));
    net.receivers();
    net.send_to(0, 1, 1);
    assert_eq!(net.receivers(), [2]);
}

#[test]
fn a_station_long_silent_is_sought_everywhere() {
    let mut net = Net::acquainted(3);
    net.now += Limits::DEFAULT.address_age_max + Duration::from_secs(1);
    net.send_to(0, 1, 1);
    assert_eq!(net.receivers(), [1, 2]);
}

#[test]
fn a_group_as_source_is_not_learned() {
    let mut net = Net::silent(3, Limits::DEFAULT);
    net.send(0, &frame(station(2), EVERYBODY, 0, 64));
    net.receivers();
    net.send(1, &frame(EVERYBODY, station(2), 1, 64));
    assert_eq!(net.receivers(), [0, 2]);
}

#[test]
fn a_guest_inventing_addresses_does_not_unlearn_others() {
    let mut net = Net::acquainted(3);
    for number in 0..2000_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        net.send(2, &frame(station(1), [0x02, 0, 0, 0, high, low], 0, 64));
    }
    net.receivers();
    net.send_to(0, 1, 1);
    assert_eq!(net.receivers(), [1]);
}

fn link(from: Port, to: Port) -> Link {
    Link { from, to }
}

#[track_caller]
fn check_reach(
    change: impl FnOnce(&mut Links, &[Port]) -> Result<(), LinkError>,
    expected: [&str; 4],
) {
    let mut net = Net::acquainted(4);
    net.change(change).unwrap();
    assert_eq!(net.reach(), expected);
}

/// Of four, by seed 3.
const RANDOM_MINORITY: [&str; 4] = [".++-", "+.+-", "++.-", "---."];

#[test]
fn changes_of_links_decide_who_reaches_whom() {
    check_reach(|_, _| Ok(()), [".+++", "+.++", "++.+", "+++."]);
    check_reach(|s, p| s.cut(p[0], p[1]), [".-++", "-.++", "++.+", "+++."]);
    check_reach(
        |s, p| s.cut_link(link(p[0], p[1])),
        [".-++", "+.++", "++.+", "+++."],
    );
    check_reach(|s, p| s.isolate(p[2]), [".+-+", "+.-+", "--.-", "++-."]);
    check_reach(
        |s, p| s.partition(&[vec![p[0], p[1]], vec![p[2], p[3]]]),
        [".+--", "+.--", "--.+", "--+."],
    );
    // Ports not named stay together.
    check_reach(
        |s, p| s.partition(&[[p[1]]]),
        [".-++", "-.--", "+-.+", "+-+."],
    );
    check_reach(
        |s, p| s.one_way(&p[..1], &p[2..]),
        [".+--", "+.++", "++.+", "+++."],
    );
    check_reach(|s, p| s.bridge(p, p[3]), [".--+", "-.++", "-+.+", "+++."]);
    check_reach(
        |s, p| s.bridge(&p[..3], p[0]),
        [".+++", "+.-+", "+-.+", "+++."],
    );
    check_reach(
        |s, p| s.majorities_ring(p),
        [".+-+", "+.+-", "-+.+", "+-+."],
    );
    check_reach(
        |s, p| {
            let minority = s.random_minority(p, 3)?;
            s.heal_all();
            s.partition(&[minority])
        },
        RANDOM_MINORITY,
    );
    check_reach(|s, p| s.random_minority(p, 3).map(|_| ()), RANDOM_MINORITY);
    check_reach(|s, p| s.partition(&[p]), [".+++", "+.++", "++.+", "+++."]);
    check_reach(
        |s, _| s.partition::<Vec<Port>>(&[]),
        [".+++", "+.++", "++.+", "+++."],
    );
}

#[test]
fn later_changes_build_on_earlier_ones_or_replace_them() {
    let whole = [".+++", "+.++", "++.+", "+++."];
    check_reach(
        |s, p| s.cut(p[0], p[1]).and_then(|()| s.heal(p[1], p[0])),
        whole,
    );
    check_reach(
        |s, p| {
            s.cut_link(link(p[0], p[1]))
                .and_then(|()| s.heal(p[1], p[0]))
        },
        whole,
    );
    check_reach(
        |s, p| {
            s.isolate(p[0])?;
            s.heal_all();
            Ok(())
        },
        whole,
    );
    check_reach(
        |s, p| s.isolate(p[0]).and_then(|()| s.heal_one(p[0])),
        whole,
    );
    check_reach(
        |s, p| {
            s.isolate(p[0])?;
            s.cut(p[1], p[2])?;
            s.heal_one(p[1])
        },
        [".+--", "+.++", "-+.+", "-++."],
    );
    check_reach(
        |s, p| s.isolate(p[0]).and_then(|()| s.heal_link(link(p[3], p[0]))),
        [".---", "-.++", "-+.+", "+++."],
    );
    check_reach(
        |s, p| s.cut(p[0], p[1]).and_then(|()| s.bridge(&p[1..], p[1])),
        [".+++", "+.++", "++.-", "++-."],
    );
    check_reach(
        |s, p| s.isolate(p[0]).and_then(|()| s.heal(p[0], p[3])),
        [".--+", "-.++", "-+.+", "+++."],
    );
    check_reach(
        |s, p| s.cut(p[2], p[3]).and_then(|()| s.partition(&[[p[0]]])),
        [".---", "-.++", "-+.+", "-++."],
    );
}

#[test]
fn a_flood_over_a_cut_link_is_counted_at_both_ends() {
    let mut net = Net::acquainted(3);
    net.cut_link(0, 1);
    net.send(0, &frame(EVERYBODY, station(1), 1, 64));
    assert_eq!(net.receivers(), [2]);
    assert_eq!(net.dropped_from(0, Cause::Cut), 1);
    assert_eq!(net.dropped_to(1, Cause::Cut), 1);
    assert_eq!(net.dropped_to(2, Cause::Cut), 0);
}

#[test]
fn cutting_drops_what_waits_except_a_frame_sent_in_part() {
    let mut net = Net::acquainted(3);
    for number in 1..=3 {
        net.send_to(0, 1, number);
        net.send_to(2, 1, number + 10);
    }
    net.segment.sent(net.ports[1], 10);
    net.cut_link(0, 1);
    assert_eq!(net.dropped_to(1, Cause::Cut), 2);
    let rest = net.segment.pending(net.ports[1]).to_vec();
    // 58 bytes are the rest of the first frame.
    let sequences: Vec<u32> = unpacked(&rest[58..])
        .iter()
        .map(|frame| sequence(frame))
        .collect();
    assert_eq!(sequences, [11, 12, 13]);
}

#[test]
fn a_full_queue_drops_the_newest_and_counts_it() {
    let mut net = Net::silent(
        2,
        Limits {
            queue_bytes_max: 3 * 68,
            ..Limits::DEFAULT
        },
    );
    for number in 1..=5 {
        net.send_to(0, 1, number);
    }
    assert_eq!(net.dropped_from(0, Cause::QueueFull), 2);
    assert_eq!(net.dropped_to(1, Cause::QueueFull), 2);
    assert_eq!(net.segment.counters().ports[1].queued.frames, 3);
    assert_eq!(net.take(1), [1, 2, 3]);
}

#[test]
fn a_port_that_is_down_gets_nothing_and_returns_with_its_cuts() {
    let mut net = Net::acquainted(3);
    net.change(|links, p| links.cut(p[0], p[1])).unwrap();
    net.send_to(2, 1, 1);
    net.segment.lower(net.ports[1]);
    assert_eq!(
        net.dropped_to(1, Cause::PortDown),
        1,
        "what waited is dropped"
    );
    // Forgotten, hence flooded: one copy is cut, or would be for a port that is down.
    net.send_to(2, 1, 2);
    assert_eq!(net.receivers(), [0]);
    assert_eq!(net.dropped_to(1, Cause::PortDown), 2);
    net.send(1, &frame(EVERYBODY, station(2), 3, 64));
    assert_eq!(net.receivers(), []);
    assert_eq!(net.dropped_from(1, Cause::PortDown), 1);

    net.segment.raise(net.ports[1]);
    assert_eq!(net.reach()[0], ".-+");
    assert_eq!(net.dropped_to(1, Cause::PortDown), 2, "counters stay");
}

#[test]
fn counters_show_frames_and_bytes() {
    let mut net = Net::silent(3, Limits::DEFAULT);
    net.send(0, &frame(EVERYBODY, station(1), 1, 100));
    net.take(1);
    let counters = net.segment.counters();
    let port = |index: usize| counters.port(net.ports[index]).unwrap();
    assert_eq!((port(0).received.frames, port(0).received.bytes), (1, 100));
    assert_eq!((port(1).sent.frames, port(1).sent.bytes), (1, 100));
    assert_eq!((port(1).queued.frames, port(2).queued.frames), (0, 1));
    assert_eq!((port(2).sent.frames, port(2).queued.bytes), (0, 100));
    assert_eq!(&*port(2).name, "c");
}

const LOSSY: Impairment = Impairment {
    loss: Loss::Independent(Probability::ALWAYS),
    ..Impairment::NONE
};

fn twice_same(name: &str) -> LinkError {
    LinkError::SamePort { name: name.into() }
}

#[test]
fn senseless_changes_are_refused_and_change_nothing() {
    let mut net = Net::acquainted(2);
    let [a, b] = [net.ports[0], net.ports[1]];
    let stranger = *Net::silent(3, Limits::DEFAULT).ports.last().unwrap();
    let unknown = LinkError::UnknownPort {
        port: stranger,
        ports: 2,
    };
    let same = LinkError::SamePort { name: "a".into() };
    let twice = |name: &str| LinkError::NamedTwice { name: name.into() };
    let too_few = |nodes| LinkError::TooFewNodes {
        nodes,
        nodes_min: 3,
    };
    let mut check = |change: &dyn Fn(&mut Links) -> Result<(), LinkError>, expected: &LinkError| {
        assert_eq!(net.segment.change(change), Err(expected.clone()));
    };
    check(&|s| s.cut(a, stranger), &unknown);
    check(&|s| s.cut_link(link(stranger, a)), &unknown);
    check(&|s| s.heal(stranger, a), &unknown);
    check(&|s| s.heal_link(link(a, stranger)), &unknown);
    check(&|s| s.heal_one(stranger), &unknown);
    check(&|s| s.isolate(stranger), &unknown);
    check(&|s| s.is_cut(link(a, stranger)).map(|_| ()), &unknown);
    check(&|s| s.cut(a, a), &same);
    check(&|s| s.heal_link(link(a, a)), &same);
    check(&|s| s.partition(&[[a], [stranger]]), &unknown);
    check(&|s| s.partition(&[[a], [a]]), &twice("a"));
    check(&|s| s.partition(&[[b, b]]), &twice("b"));
    check(&|s| s.one_way(&[a], &[b, a]), &twice("a"));
    check(&|s| s.one_way(&[a], &[stranger]), &unknown);
    check(&|s| s.bridge(&[a, b], a), &too_few(2));
    check(&|s| s.bridge(&[a, b, b], a), &twice("b"));
    check(&|s| s.bridge(&[a, b], stranger), &unknown);
    check(&|s| s.majorities_ring(&[]), &too_few(0));
    check(&|s| s.majorities_ring(&[a, a]), &twice("a"));
    check(&|s| s.random_minority(&[b], 1).map(|_| ()), &too_few(1));
    check(&|s| s.impair(Scope::From(stranger), LOSSY), &unknown);
    check(
        &|s| s.impair(Scope::Link(link(a, stranger)), LOSSY),
        &unknown,
    );
    check(
        &|s| s.impair(Scope::Link(link(b, b)), LOSSY),
        &twice_same("b"),
    );
    check(&|s| s.clear(Scope::To(stranger)), &unknown);
    // What succeeded before a failure in one change is undone with it.
    check(
        &|s| s.cut(a, b).and_then(|()| s.isolate(stranger)),
        &unknown,
    );
    check(
        &|s| {
            s.impair(Scope::All, LOSSY)
                .and_then(|()| s.isolate(stranger))
        },
        &unknown,
    );
    assert_eq!(net.reach(), [".+", "+."]);
}

#[test]
fn ports_are_found_by_name_and_bounded() {
    let mut net = Net::silent(
        2,
        Limits {
            ports_max: 2,
            ..Limits::DEFAULT
        },
    );
    assert_eq!(net.segment.port("b"), Some(net.ports[1]));
    assert_eq!(net.segment.port("c"), None);
    assert_eq!(
        net.segment.add_port("a"),
        Err(AddPortError::NameTaken {
            name: "a".to_owned()
        })
    );
    assert_eq!(
        net.segment.add_port("c"),
        Err(AddPortError::TooManyPorts { ports_max: 2 })
    );
}
