//! A segment as a value: it goes on where it was, and a senseless one is refused.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use mvm_fabric::{
    AddPortError, CapturedFrame, CapturedLink, Cause, Drops, FRAME_BYTES_MAX, FRAME_BYTES_MIN,
    Limits, LinkError, Segment, SegmentState, StateError,
};
use support::segment::Net;

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
