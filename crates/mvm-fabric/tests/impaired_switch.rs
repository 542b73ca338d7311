//! Impaired links of a running switch, with plain sockets in the place of machines.
//!
//! Time is real here, so only what cannot depend on the host's mood is checked: a frame is never early. What
//! impairments do exactly is in `impairments`.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::time::{Duration, Instant};

use mvm_fabric::{
    Cause, Delay, Impairment, Latency, Limits, Link, Loss, Probability, RestoreError, Scope,
    StateError, Switch, SwitchOptions, SwitchState,
};
use support::machine::{Machine, acquainted_lab, counters_of, unicast, wait_for_drops, wait_until};
use support::{EVERYBODY, frame, packed, sequence, station};

fn delayed(milliseconds: u64) -> Impairment {
    Impairment {
        delay: Delay::constant(Latency::from_millis(milliseconds).unwrap()),
        ..Impairment::NONE
    }
}

/// So long that it does not end within a test.
fn stuck() -> Impairment {
    delayed(3_000_000)
}

fn link(from: &Machine, to: &Machine) -> Link {
    Link {
        from: from.port,
        to: to.port,
    }
}

fn wait_for_in_flight(switch: &Switch, to: &Machine, frames: u64) {
    let port = to.port;
    wait_until(switch, |counters| {
        counters.port(port).unwrap().in_flight.frames == frames
    });
}

#[test]
fn a_delayed_link_delays_one_direction_and_is_never_early() {
    let (switch, [mut a, mut b]) = acquainted_lab();
    let impaired = link(&a, &b);
    switch.impair(Scope::Link(impaired), delayed(50)).unwrap();
    let start = Instant::now();
    a.send(&unicast(1, 2, 1));
    a.send(&unicast(1, 2, 2));
    b.send(&unicast(2, 1, 3));
    a.expect(3);
    b.expect(1);
    assert!(start.elapsed() >= Duration::from_millis(50));
    b.expect(2);
    switch.clear(Scope::Link(impaired)).unwrap();
    a.send(&unicast(1, 2, 4));
    b.expect(4);
    assert_eq!(counters_of(&switch, b.port).dropped_to.total(), 0);
}

#[test]
fn many_frames_of_different_delays_each_wake_the_switch() {
    let (switch, [mut a, mut b, mut c]) = acquainted_lab();
    switch.impair(Scope::From(a.port), delayed(20)).unwrap();
    switch.impair(Scope::From(c.port), delayed(1)).unwrap();
    for number in 1..=20 {
        a.send(&unicast(1, 2, number));
        c.send(&unicast(3, 2, 100 + number));
        b.expect(100 + number);
        // Only once there is nothing else to do.
        b.expect(number);
    }
}

#[test]
fn a_cut_drops_what_is_in_flight() {
    let (switch, [mut a, mut b]) = acquainted_lab();
    switch.impair(Scope::All, stuck()).unwrap();
    for number in 1..=10 {
        a.send(&unicast(1, 2, number));
    }
    wait_for_in_flight(&switch, &b, 10);
    switch.cut_link(link(&a, &b)).unwrap();
    wait_for_drops(&switch, b.port, Cause::Cut, 10);
    assert_eq!(counters_of(&switch, b.port).in_flight.frames, 0);
    switch.heal_link(link(&a, &b)).unwrap();
    switch.clear_impairments().unwrap();
    a.send(&unicast(1, 2, 11));
    b.expect(11);
}

#[test]
fn ten_thousand_frames_in_flight_are_bounded_and_arrive_in_order_when_cleared() {
    const FRAMES: u32 = 10_000;
    let (switch, [mut a, mut b]) = acquainted_lab();
    switch.impair(Scope::All, stuck()).unwrap();
    for number in 1..=FRAMES {
        a.send(&frame(station(2), station(1), number, 1514));
    }
    wait_for_in_flight(&switch, &b, u64::from(FRAMES));
    switch.clear_impairments().unwrap();
    for number in 1..=FRAMES {
        b.expect(number);
    }
    assert_eq!(counters_of(&switch, b.port).dropped_to.total(), 0);

    switch.impair(Scope::All, stuck()).unwrap();
    let batch = packed(&unicast(1, 2, 1)).repeat(1000);
    for _ in 0..300 {
        a.socket.write_all(&batch).unwrap();
    }
    wait_until(&switch, |counters| {
        let b = counters.port(b.port).unwrap();
        b.in_flight.frames + b.dropped_to.frames(Cause::InFlightFull) == 300_000
    });
    let counters = counters_of(&switch, b.port);
    assert!(counters.dropped_to.frames(Cause::InFlightFull) > 0);
    assert!(counters.in_flight.bytes < Limits::DEFAULT.in_flight_bytes_max as u64);
    // The switch is not stuck.
    b.send(&unicast(2, 1, 1));
    wait_for_in_flight(&switch, &a, 1);
}

#[test]
fn a_machine_that_dies_leaves_nothing_in_flight_to_it() {
    let (switch, [mut a, b]) = acquainted_lab();
    switch.impair(Scope::All, stuck()).unwrap();
    a.send(&unicast(1, 2, 1));
    wait_for_in_flight(&switch, &b, 1);
    switch.detach(b.port).unwrap();
    let counters = counters_of(&switch, b.port);
    assert_eq!(counters.in_flight.frames, 0);
    assert_eq!(counters.dropped_to.frames(Cause::PortDown), 1);
}

#[test]
fn partitions_have_words_and_several_changes_take_effect_together() {
    let (switch, machines) = acquainted_lab::<4>();
    let [a, b, c, d] = machines.map(|machine| machine.port);
    let nodes = [a, b, c, d];
    let cut = |from, to| switch.is_cut(Link { from, to }).unwrap();
    switch.bridge(&nodes, d).unwrap();
    assert!(cut(a, b) && cut(c, a) && !cut(b, c) && !cut(a, d));
    switch.majorities_ring(&nodes).unwrap();
    assert!(cut(a, c) && cut(b, d) && !cut(a, b) && !cut(d, a));
    switch.one_way(&[a], &[b]).unwrap();
    assert!(cut(a, b) && !cut(b, a));
    switch.heal_one(a).unwrap();
    assert!(!cut(a, b) && !cut(a, c) && cut(b, d));
    let (minority, _) = switch.random_minority(&nodes, 1).unwrap();
    let minority = minority[0];
    for other in nodes.into_iter().filter(|other| *other != minority) {
        assert!(cut(minority, other) && cut(other, minority));
    }
    let before = Instant::now();
    let effect = switch
        .change(move |links| {
            links.heal_all();
            links.isolate(c)?;
            links.impair(Scope::To(b), delayed(1))
        })
        .unwrap();
    assert!(before <= effect && effect <= Instant::now());
    let links = switch.links().unwrap();
    assert_eq!(links.cuts().count(), 6);
    assert_eq!(links.impairment(Link { from: a, to: b }), Ok(delayed(1)));
    let refused = switch.change(move |links| {
        links.heal_all();
        links.bridge(&[a, b], a)
    });
    assert!(refused.is_err());
    assert!(cut(c, a), "nothing was changed");
}

/// Which of a hundred frames arrive, by a switch of this seed.
fn arrivals(seed: u64) -> Vec<u32> {
    let switch = Switch::start_with(SwitchOptions {
        seed,
        ..SwitchOptions::DEFAULT
    })
    .unwrap();
    assert_eq!(switch.seed(), Ok(seed));
    let [mut a, mut b] = ["a", "b"].map(|name| {
        let (port, end) = switch.attach(name).unwrap();
        Machine::new(port, end)
    });
    let loss = Loss::Independent(Probability::new(0.5).unwrap());
    let impairment = Impairment {
        loss,
        ..Impairment::NONE
    };
    switch.impair(Scope::All, impairment).unwrap();
    for number in 1..=100 {
        a.send(&frame(EVERYBODY, station(1), number, 64));
    }
    wait_until(&switch, |counters| {
        let b = counters.port(b.port).unwrap();
        b.sent.frames + b.dropped_to.frames(Cause::Lost) == 100
    });
    let sent = counters_of(&switch, b.port).sent.frames;
    (0..sent).map(|_| sequence(&b.receive().unwrap())).collect()
}

#[test]
fn a_seed_repeats_a_run() {
    let first = arrivals(1);
    assert_eq!(arrivals(1), first);
    assert_ne!(arrivals(2), first);
}

fn written(state: &SwitchState) -> SwitchState {
    postcard::from_bytes(&postcard::to_stdvec(state).unwrap()).unwrap()
}

#[test]
fn the_clock_of_a_held_switch_stands_and_goes_on_elsewhere() {
    let (switch, [mut a, b]) = acquainted_lab();
    let slow = Duration::from_millis(300);
    switch
        .impair(Scope::Link(link(&a, &b)), delayed(300))
        .unwrap();
    let sent = Instant::now();
    a.send(&unicast(1, 2, 1));
    wait_for_in_flight(&switch, &b, 1);
    switch.hold().unwrap();
    let before_hold = sent.elapsed();
    let state = switch.capture().unwrap();
    let left = state.segment.in_flight[0].due - state.segment.now;
    assert!(left <= slow && left + before_hold >= slow);
    // Nothing is due however long the hold lasts, and another capture tells the same.
    while sent.elapsed() < 2 * slow {
        std::thread::yield_now();
    }
    assert_eq!(switch.capture().unwrap(), state);

    let restored = Switch::restore(&written(&state)).unwrap();
    assert_eq!(restored.capture().unwrap(), state);
    let [_new_a, mut new_b] =
        [a.port, b.port].map(|port| Machine::new(port, restored.reattach(port).unwrap()));
    for (switch, b) in [(&restored, &mut new_b), (&switch, &mut { b })] {
        let released = Instant::now();
        switch.release().unwrap();
        b.expect(1);
        assert!(released.elapsed() >= left);
        assert_eq!(counters_of(switch, b.port).in_flight.frames, 0);
    }
}

#[test]
fn a_state_with_absurd_frames_in_flight_is_refused() {
    let (switch, [mut a, b]) = acquainted_lab();
    switch.impair(Scope::All, stuck()).unwrap();
    a.send(&unicast(1, 2, 1));
    wait_for_in_flight(&switch, &b, 1);
    switch.hold().unwrap();
    let state = switch.capture().unwrap();
    let refused = |spoil: &dyn Fn(&mut SwitchState)| {
        let mut state = state.clone();
        spoil(&mut state);
        match Switch::restore(&state).unwrap_err() {
            RestoreError::State(error) => error,
            other => panic!("{other:?}"),
        }
    };
    let error = refused(&|state| state.segment.now = Duration::MAX);
    assert!(matches!(error, StateError::Time { .. }), "{error}");
    let error = refused(&|state| state.segment.in_flight[0].due = Duration::MAX);
    assert!(matches!(error, StateError::Time { .. }), "{error}");
    let error = refused(&|state| state.segment.directions[0].reckoned = Duration::from_secs(9999));
    assert!(matches!(error, StateError::Time { .. }), "{error}");
    let error = refused(&|state| state.segment.directions[0].backlog_bits = u64::MAX);
    assert!(matches!(error, StateError::Backlog { .. }), "{error}");
    let error = refused(&|state| state.segment.in_flight[0].bytes.clear());
    assert!(matches!(error, StateError::FrameSize { .. }), "{error}");
    let error = refused(&|state| state.segment.in_flight[0].link.to = 7);
    assert!(matches!(error, StateError::Link(_)), "{error}");
    let error = refused(&|state| state.segment.directions[0].link.from = 1);
    assert!(matches!(error, StateError::Link(_)), "{error}");
    let error = refused(&|state| state.segment.ports[1].up = false);
    assert!(matches!(error, StateError::PortDown { .. }), "{error}");
    let error = refused(&|state| {
        let frame = state.segment.in_flight[0].clone();
        state.segment.in_flight = vec![frame; 1_000_000];
    });
    assert!(matches!(error, StateError::InFlightFull { .. }), "{error}");
}
