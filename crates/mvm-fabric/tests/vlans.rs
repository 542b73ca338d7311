//! Ports of several VLANs behind one switch: as if each VLAN were a switch of its own.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use mvm_fabric::{CapturedFrame, CapturedLink, Cause, Limits, Port, Segment, StateError, Vlan};
use support::{EVERYBODY, frame, station, unpacked};

/// Ports 0 and 1 are of one VLAN, 2 and 3 of a second, and 4 alone of a third.
fn segment() -> (Segment, Vec<Port>) {
    let mut segment = Segment::new(Limits::DEFAULT, 0);
    let ports = [1, 1, 2, 2, 3]
        .into_iter()
        .enumerate()
        .map(|(index, vlan)| {
            segment
                .add_port_in(Vlan(vlan), &format!("p{index}"))
                .unwrap()
        });
    let ports = ports.collect();
    (segment, ports)
}

/// Sends a frame and returns who got it.
fn receivers(segment: &mut Segment, ports: &[Port], from: usize, bytes: &[u8]) -> Vec<usize> {
    segment.forward(ports[from], bytes, Duration::ZERO);
    let mut got = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let pending = segment.pending(*port).to_vec();
        segment.sent(*port, pending.len());
        if !unpacked(&pending).is_empty() {
            got.push(index);
        }
    }
    got
}

#[test]
fn frames_stay_within_their_vlan() {
    let (mut segment, ports) = segment();
    let mut check = |from: usize, target, expected: &[usize]| {
        let sent = frame(target, station(from as u8 + 1), 0, 64);
        assert_eq!(receivers(&mut segment, &ports, from, &sent), expected);
    };
    check(0, EVERYBODY, &[1]);
    check(2, EVERYBODY, &[3]);
    check(4, EVERYBODY, &[]);
    // Station 1 was heard, but elsewhere: it is sought here.
    check(2, station(1), &[3]);
    check(1, station(1), &[0]);
    let counters = segment.counters();
    let dropped: Vec<u64> = counters
        .ports
        .iter()
        .map(|port| port.dropped_from.total())
        .collect();
    assert_eq!(dropped, [0, 0, 0, 0, 1]);
    assert_eq!(counters.ports[4].dropped_from.frames(Cause::NoOtherPort), 1);
}

#[test]
fn one_address_may_live_in_two_vlans() {
    let (mut segment, ports) = segment();
    let hello = frame(EVERYBODY, station(9), 0, 64);
    receivers(&mut segment, &ports, 0, &hello);
    receivers(&mut segment, &ports, 2, &hello);
    let to_nine = |from: u8| frame(station(9), station(from), 0, 64);
    assert_eq!(receivers(&mut segment, &ports, 1, &to_nine(1)), [0]);
    assert_eq!(receivers(&mut segment, &ports, 3, &to_nine(3)), [2]);
}

#[test]
fn a_restored_segment_keeps_its_vlans_apart() {
    let (mut segment, ports) = segment();
    segment.forward(
        ports[0],
        &frame(EVERYBODY, station(1), 7, 64),
        Duration::ZERO,
    );
    let state = segment.capture(Duration::ZERO);
    let mut restored = Segment::restore(Limits::DEFAULT, &state).unwrap();
    assert_eq!(restored.capture(Duration::ZERO), state);
    let sent = frame(EVERYBODY, station(3), 0, 64);
    assert_eq!(
        receivers(&mut restored, &ports, 2, &sent),
        [1, 3],
        "what waited, too"
    );
}

#[test]
fn a_frame_on_its_way_between_vlans_is_in_no_state() {
    let (segment, _) = segment();
    let good = segment.capture(Duration::ZERO);
    let refused = |state| {
        let error = Segment::restore(Limits::DEFAULT, &state).unwrap_err();
        assert_eq!(
            error,
            StateError::OtherVlan {
                name: "p2".to_owned()
            }
        );
    };
    let bytes = frame(EVERYBODY, station(1), 0, 64);
    let mut waiting = good.clone();
    waiting.ports[2].waiting.push(CapturedFrame {
        from: 0,
        bytes: bytes.clone(),
    });
    refused(waiting);
    let mut flying = good;
    flying.in_flight.push(mvm_fabric::CapturedFlight {
        link: CapturedLink { from: 0, to: 2 },
        due: Duration::from_secs(1),
        bytes,
    });
    refused(flying);
}
