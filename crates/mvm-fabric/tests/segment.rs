//! Table tests of the core: who gets a frame, and under which cause the others do not.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use mvm_fabric::{
    AddPortError, CapturedFrame, CapturedLink, Cause, Drops, FRAME_BYTES_MAX, FRAME_BYTES_MIN,
    Impairment, Limits, Link, LinkError, Links, Loss, Port, Probability, Scope, Segment,
    SegmentState, StateError,
};
use support::{EVERYBODY, frame, sequence, station, unpacked};

/// A segment of ports `a`, `b`, ... with station 1 behind the first, 2 behind the second, and so on.
struct Net {
    segment: Segment,
    ports: Vec<Port>,
    now: Duration,
}

impl Net {
    /// Nobody has spoken yet.
    fn silent(ports: u8, limits: Limits) -> Net {
        let mut segment = Segment::new(limits, 0);
        let ports = (0..ports)
            .map(|n| segment.add_port(&char::from(b'a' + n).to_string()).unwrap())
            .collect();
        Net {
            segment,
            ports,
            now: Duration::ZERO,
        }
    }

    /// Everybody is learned; counters show that and no more.
    fn acquainted(ports: u8) -> Net {
        let mut net = Net::silent(ports, Limits::DEFAULT);
        for number in 1..=ports {
            net.send(
                usize::from(number) - 1,
                &frame(EVERYBODY, station(number), 0, 64),
            );
        }
        for index in 0..net.ports.len() {
            net.take(index);
        }
        net
    }

    fn send(&mut self, from: usize, frame: &[u8]) {
        self.segment.forward(self.ports[from], frame, self.now);
    }

    /// From the station behind `from` to the one behind `to`.
    fn send_to(&mut self, from: usize, to: usize, sequence: u32) {
        self.send(
            from,
            &frame(station(to as u8 + 1), station(from as u8 + 1), sequence, 64),
        );
    }

    /// The sequence numbers of the frames that wait for a port.
    fn take(&mut self, to: usize) -> Vec<u32> {
        let pending = self.segment.pending(self.ports[to]).to_vec();
        self.segment.sent(self.ports[to], pending.len());
        unpacked(&pending)
            .iter()
            .map(|frame| sequence(frame))
            .collect()
    }

    fn receivers(&mut self) -> Vec<usize> {
        (0..self.ports.len())
            .filter(|index| !self.take(*index).is_empty())
            .collect()
    }

    fn dropped_from(&self, index: usize, cause: Cause) -> u64 {
        self.segment.counters().ports[index]
            .dropped_from
            .frames(cause)
    }

    fn dropped_to(&self, index: usize, cause: Cause) -> u64 {
        self.segment.counters().ports[index]
            .dropped_to
            .frames(cause)
    }

    fn change<T>(
        &mut self,
        change: impl FnOnce(&mut Links, &[Port]) -> Result<T, LinkError>,
    ) -> Result<T, LinkError> {
        let ports = &self.ports;
        self.segment.change(|links| change(links, ports))
    }

    fn cut_link(&mut self, from: usize, to: usize) {
        let link = self.link(from, to);
        self.segment.change(|links| links.cut_link(link)).unwrap();
    }

    fn link(&self, from: usize, to: usize) -> Link {
        Link {
            from: self.ports[from],
            to: self.ports[to],
        }
    }

    /// For every ordered pair, whether a frame between two stations arrives.
    fn reach(&mut self) -> Vec<String> {
        let count = self.ports.len();
        let mut rows = Vec::new();
        for from in 0..count {
            let mut row = String::new();
            for to in 0..count {
                if from != to {
                    self.send_to(from, to, 9);
                }
                row.push(if from == to {
                    '.'
                } else {
                    ['-', '+'][usize::from(self.receivers() == [to])]
                });
            }
            rows.push(row);
        }
        rows
    }
}

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

/// Makes a segment from the state of another, written and read.
fn restored(net: &Net) -> Net {
    let file = postcard::to_stdvec(&net.segment.capture(net.now)).unwrap();
    let state: SegmentState = postcard::from_bytes(&file).unwrap();
    Net {
        segment: Segment::restore(Limits::DEFAULT, &state).unwrap(),
        ports: net.ports.clone(),
        now: net.now,
    }
}

#[test]
fn a_restored_segment_goes_on_where_the_captured_one_was() {
    let mut net = Net::acquainted(4);
    net.cut_link(0, 3);
    net.segment.lower(net.ports[2]);
    net.send_to(0, 1, 1);
    net.send_to(3, 1, 2);
    net.send_to(0, 3, 3);
    net.segment.sent(net.ports[1], 10);

    let mut copy = restored(&net);
    assert_eq!(copy.segment.counters(), net.segment.counters());
    assert_eq!(copy.segment.capture(copy.now), net.segment.capture(net.now));
    assert_eq!(copy.segment.begun(copy.ports[1]), []);
    // From its beginning, for the connection is new.
    assert_eq!(copy.take(1), [1, 2]);
    assert_eq!(net.segment.begun(net.ports[1]).len(), 58);
    assert_eq!(copy.reach()[0], ".+--");
    copy.segment.raise(copy.ports[2]);
    copy.send_to(1, 2, 4);
    assert_eq!(copy.take(2), [4]);
    assert_eq!(copy.segment.port("c"), Some(copy.ports[2]));
}

#[test]
fn a_frame_sent_in_part_over_a_direction_cut_since_is_dropped_by_a_restore() {
    let mut net = Net::acquainted(2);
    net.send_to(0, 1, 1);
    net.segment.sent(net.ports[1], 10);
    net.change(|links, p| links.cut(p[0], p[1])).unwrap();
    assert_eq!(net.dropped_to(1, Cause::Cut), 0);
    let mut copy = restored(&net);
    assert_eq!(copy.dropped_to(1, Cause::Cut), 1);
    assert_eq!(copy.dropped_from(0, Cause::Cut), 1);
    assert_eq!(copy.take(1), []);
}

/// Of a segment `a`, `b`, `c`, where one frame waits for `b`.
#[track_caller]
fn check_refused(spoil: impl FnOnce(&mut SegmentState), expected: &StateError) {
    let mut net = Net::acquainted(3);
    net.send_to(0, 1, 1);
    let limits = Limits {
        ports_max: 3,
        queue_bytes_max: 100,
        in_flight_bytes_max: 100,
        ..Limits::DEFAULT
    };
    let mut state = net.segment.capture(net.now);
    Segment::restore(limits, &state).expect("the state is sound before");
    spoil(&mut state);
    assert_eq!(
        Segment::restore(limits, &state).map(|_| ()),
        Err(expected.clone())
    );
}

#[test]
fn a_state_no_segment_can_be_in_is_refused() {
    let waiting = |from, bytes| CapturedFrame {
        from,
        bytes: vec![0; bytes],
    };
    check_refused(
        |state| state.ports[2].name = "a".to_owned(),
        &StateError::Port(AddPortError::NameTaken {
            name: "a".to_owned(),
        }),
    );
    check_refused(
        |state| {
            let mut port = state.ports[0].clone();
            port.name = "d".to_owned();
            state.ports.push(port);
        },
        &StateError::Port(AddPortError::TooManyPorts { ports_max: 3 }),
    );
    check_refused(
        |state| state.ports[1].waiting[0].from = 1,
        &StateError::Link(LinkError::SamePort { name: "b".into() }),
    );
    let frame_size = |frame_bytes| StateError::FrameSize {
        name: "c".to_owned(),
        frame_bytes,
    };
    for bytes in [0, FRAME_BYTES_MIN - 1, FRAME_BYTES_MAX + 1] {
        check_refused(
            |state| state.ports[2].waiting.push(waiting(0, bytes)),
            &frame_size(bytes),
        );
    }
    check_refused(
        |state| {
            state.ports[1]
                .waiting
                .extend([waiting(0, 64), waiting(2, 128)])
        },
        &StateError::QueueFull {
            name: "b".to_owned(),
            bytes_max: 200,
        },
    );
    check_refused(
        |state| state.ports[1].up = false,
        &StateError::PortDown {
            name: "b".to_owned(),
        },
    );
    let counters = StateError::Counters {
        name: "c".to_owned(),
    };
    check_refused(
        |state| state.ports[2].tally.sent.frames = u64::MAX,
        &counters,
    );
    let numbers = postcard::to_stdvec(&[0, u64::MAX, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    let drops: Drops = postcard::from_bytes(&numbers).unwrap();
    check_refused(|state| state.ports[2].tally.dropped_to = drops, &counters);
}

#[test]
fn a_state_that_names_ports_not_there_is_refused() {
    #[track_caller]
    fn check(spoil: impl FnOnce(&mut SegmentState)) {
        let mut state = Net::acquainted(3).segment.capture(Duration::ZERO);
        spoil(&mut state);
        let error = Segment::restore(Limits::DEFAULT, &state).map(|_| ());
        assert!(
            matches!(
                error,
                Err(StateError::Link(LinkError::UnknownPort { ports: 3, .. }))
            ),
            "{error:?}"
        );
    }
    check(|state| {
        state.ports[0].waiting.push(CapturedFrame {
            from: 3,
            bytes: vec![0; 64],
        });
    });
    check(|state| state.cuts.push(CapturedLink { from: 3, to: 0 }));
    check(|state| {
        state.cuts.push(CapturedLink {
            from: 0,
            to: u32::MAX,
        });
    });
}
