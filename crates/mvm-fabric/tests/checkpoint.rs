//! A running switch held, captured, restored and released, with plain sockets in the place of machines.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use mvm_fabric::{
    AddPortError, AttachError, CaptureError, CapturedFrame, Cause, Connection, Link, RestoreError,
    STATE_VERSION, StateError, Switch, SwitchState, Unread,
};
use support::machine::{
    HANG, Machine, acquainted_lab, counters_of, unicast, wait_for_down, wait_for_drops, wait_until,
};
use support::{EVERYBODY, frame, packed, sequence, station};

/// The machines of a restored switch, attached in order.
fn reattached<const N: usize>(switch: &Switch) -> [Machine; N] {
    std::array::from_fn(|index| {
        let port = switch.port(&format!("node{}", index + 1)).unwrap().unwrap();
        Machine::new(port, switch.reattach(port).unwrap())
    })
}

/// What a held switch has, written and read, once all that machines sent is in it.
fn checkpoint(switch: &Switch) -> SwitchState {
    while switch.drain().unwrap().bytes > 0 {}
    let file = postcard::to_stdvec(&switch.capture().unwrap()).unwrap();
    postcard::from_bytes(&file).unwrap()
}

/// Tells that a machine has got nothing. The switch must have done all it had to do.
#[track_caller]
fn expect_nothing(machine: &mut Machine) {
    machine.socket.set_nonblocking(true).unwrap();
    let read = machine.socket.read(&mut [0; 1]);
    assert_eq!(read.unwrap_err().kind(), ErrorKind::WouldBlock);
    machine.socket.set_nonblocking(false).unwrap();
}

/// Asks until the answer is as `condition` wants.
#[track_caller]
fn wait_for_unread(switch: &Switch, condition: impl Fn(&[Unread]) -> bool) {
    let start = Instant::now();
    loop {
        let unread = switch.unread().unwrap();
        if condition(&unread) {
            return;
        }
        assert!(start.elapsed() < HANG, "not in time, last seen: {unread:?}");
        std::thread::yield_now();
    }
}

/// Fills the way from `a` to `b` until the kernel takes no more and `waiting` frames wait in the switch.
fn fill(switch: &Switch, a: &mut Machine, b: &Machine, waiting: u64) {
    let batch = packed(&frame(station(2), station(1), 1, 1514)).repeat(50);
    while counters_of(switch, b.port).queued.frames < waiting {
        a.socket.write_all(&batch).unwrap();
    }
    // Only the switch has anything now.
    while switch.drain().unwrap().bytes > 0 {}
}

#[test]
fn a_held_switch_delivers_nothing_and_a_released_one_all_of_it() {
    let (switch, [mut a, mut b, mut c]) = acquainted_lab();
    let before = Instant::now();
    let held = switch.hold().unwrap();
    assert!(before <= held && held <= Instant::now());
    for number in 1..=100 {
        a.send(&unicast(1, 2, number));
        c.send(&unicast(3, 2, 1000 + number));
    }
    let drained = switch.drain().unwrap();
    assert_eq!(drained.partial, []);
    assert!(switch.drain().unwrap().is_quiet());
    switch.hold().unwrap();
    assert_eq!(counters_of(&switch, b.port).queued.frames, 200);
    expect_nothing(&mut b);

    switch.release().unwrap();
    let numbers: Vec<u32> = (0..200).map(|_| sequence(&b.receive().unwrap())).collect();
    for range in [1..=100, 1001..=1100_u32] {
        let arrived = numbers.iter().filter(|number| range.contains(*number));
        assert!(arrived.copied().eq(range.clone()), "{numbers:?}");
    }
    switch.release().unwrap();
    a.send(&unicast(1, 2, 7));
    b.expect(7);
    assert_eq!(counters_of(&switch, b.port).dropped_to.total(), 0);
}

#[test]
fn what_waits_in_a_held_switch_is_bounded_and_the_rest_counted() {
    let (switch, [mut a, mut b]) = acquainted_lab();
    switch.hold().unwrap();
    let number = 1000;
    for _ in 0..number {
        a.send(&frame(station(2), station(1), 1, 1514));
    }
    while switch.drain().unwrap().bytes > 0 {}
    let counters = counters_of(&switch, b.port);
    let lost = counters.dropped_to.frames(Cause::QueueFull);
    assert!(lost > 0);
    assert_eq!(counters.queued.frames + lost, number);
    switch.release().unwrap();
    for _ in 0..number - lost {
        b.expect(1);
    }
    a.send(&unicast(1, 2, 2));
    b.expect(2);
}

#[test]
fn a_frame_begun_before_the_hold_is_finished_and_the_next_is_not() {
    let (switch, [mut a, mut b]) = acquainted_lab();
    fill(&switch, &mut a, &b, 100);
    switch.hold().unwrap();
    let waited = counters_of(&switch, b.port).queued.frames;
    let sent = counters_of(&switch, b.port).sent.frames;
    let unread = switch.unread().unwrap();
    let [unread] = &unread[..] else {
        panic!("one machine does not read: {unread:?}");
    };
    assert_eq!(unread.port, b.port);
    assert!(unread.kernel_memory_bytes > 0);
    let begun = u64::from(unread.frame_begun);

    // One greeting was read before.
    for _ in 0..sent + begun - 1 {
        b.expect(1);
    }
    wait_for_unread(&switch, <[Unread]>::is_empty);
    expect_nothing(&mut b);
    let counters = counters_of(&switch, b.port);
    assert_eq!(counters.queued.frames, waited - begun);
    assert_eq!(counters.sent.frames, sent + begun);

    switch.release().unwrap();
    a.send(&unicast(1, 2, 9));
    for _ in 0..waited - begun {
        b.expect(1);
    }
    b.expect(9);
}

#[test]
fn what_a_machine_has_not_read_is_told_until_it_has() {
    let (switch, [mut a, mut b, _c]) = acquainted_lab();
    a.send(&unicast(1, 2, 1));
    wait_for_unread(&switch, |unread| !unread.is_empty());
    switch.hold().unwrap();
    let unread = switch.unread().unwrap();
    assert_eq!(unread.len(), 1);
    assert_eq!((unread[0].port, unread[0].frame_begun), (b.port, false));
    b.expect(1);
    assert_eq!(switch.unread().unwrap(), []);
}

#[test]
fn every_frame_arrives_once_and_in_order_across_a_restore() {
    let (switch, [mut a, mut b, mut c]) = acquainted_lab();
    a.send(&unicast(1, 2, 1));
    b.expect(1);
    switch.hold().unwrap();
    for number in 2..=50 {
        a.send(&unicast(1, 2, number));
    }
    c.send(&frame(EVERYBODY, station(3), 60, 64));
    let cut_short = packed(&unicast(1, 2, 51));
    let (first, second) = cut_short.split_at(40);
    a.socket.write_all(first).unwrap();
    let drained = switch.drain().unwrap();
    assert_eq!(drained.partial, [a.port]);
    assert!(!drained.is_quiet());
    let state = checkpoint(&switch);
    assert_eq!(switch.drain().unwrap().bytes, 0);
    let before = switch.counters().unwrap();
    drop(switch);
    assert_eq!(b.receive(), None);

    let switch = Switch::restore(&state).unwrap();
    assert_eq!(switch.capture().unwrap(), state);
    let mut books = switch.counters().unwrap();
    assert!(books.ports.iter().all(|port| !port.up));
    books.ports.iter_mut().for_each(|port| port.up = true);
    assert_eq!(books, before);
    let [mut a, mut b, mut c] = reattached(&switch);
    assert_eq!(switch.counters().unwrap(), before);
    assert_eq!(switch.capture().unwrap(), state);
    a.socket.write_all(second).unwrap();
    a.send(&unicast(1, 2, 52));
    while switch.drain().unwrap().bytes > 0 {}
    expect_nothing(&mut b);
    switch.release().unwrap();

    // Nobody has told where station 2 is, hence everybody gets these.
    for number in 2..=50 {
        b.expect(number);
    }
    b.expect(60);
    b.expect(51);
    b.expect(52);
    a.expect(60);
    c.expect(51);
    c.expect(52);
    b.send(&unicast(2, 1, 53));
    a.expect(53);
    let counters = counters_of(&switch, b.port);
    // Two were greetings.
    assert_eq!(counters.sent.frames, 2 + 53);
    assert_eq!(counters.dropped_to.total(), 0);
}

#[test]
fn a_frame_sent_in_part_is_delivered_as_a_whole_by_a_restored_switch() {
    let (switch, [mut a, b]) = acquainted_lab();
    fill(&switch, &mut a, &b, 100);
    switch.hold().unwrap();
    let waited = counters_of(&switch, b.port).queued.frames;
    let state = checkpoint(&switch);
    let restored = Switch::restore(&state).unwrap();
    let [mut new_a, mut new_b] = reattached(&restored);
    restored.release().unwrap();
    new_a.send(&frame(EVERYBODY, station(1), 9, 64));
    for _ in 0..waited {
        assert_eq!(new_b.receive().unwrap().len(), 1514);
    }
    new_b.expect(9);
}

#[test]
fn two_switches_of_one_state_know_nothing_of_each_other() {
    let (original, [mut a, mut b]) = acquainted_lab();
    original.hold().unwrap();
    a.send(&unicast(1, 2, 1));
    let state = checkpoint(&original);
    let forks = [(); 2].map(|()| Switch::restore(&state).unwrap());
    let machines: [[Machine; 2]; 2] = std::array::from_fn(|index| reattached(&forks[index]));
    let [[mut a1, mut b1], [mut a2, mut b2]] = machines;

    forks[0].release().unwrap();
    b1.expect(1);
    forks[0].cut(a1.port, b1.port).unwrap();
    a1.send(&unicast(1, 2, 2));
    wait_for_drops(&forks[0], b1.port, Cause::Cut, 1);
    expect_nothing(&mut b2);
    forks[1].release().unwrap();
    b2.expect(1);
    a2.send(&unicast(1, 2, 3));
    b2.expect(3);
    // And the original goes on as if nothing had been.
    original.release().unwrap();
    b.expect(1);
    a.send(&unicast(1, 2, 4));
    b.expect(4);
}

#[test]
fn what_is_cut_when_captured_stays_cut() {
    let (switch, [a, b, c]) = acquainted_lab();
    switch
        .partition(&[vec![a.port, b.port], vec![c.port]])
        .unwrap();
    switch
        .cut_link(Link {
            from: a.port,
            to: b.port,
        })
        .unwrap();
    switch.hold().unwrap();
    let restored = Switch::restore(&checkpoint(&switch)).unwrap();
    let [mut a, mut b, mut c] = reattached(&restored);
    restored.release().unwrap();
    a.send(&frame(EVERYBODY, station(1), 1, 64));
    b.send(&frame(EVERYBODY, station(2), 2, 64));
    a.expect(2);
    wait_for_drops(&restored, b.port, Cause::Cut, 1);
    restored.heal_all().unwrap();
    c.send(&frame(EVERYBODY, station(3), 3, 64));
    a.expect(3);
    b.expect(3);
}

#[test]
fn a_cut_of_a_held_switch_drops_what_waits_on_it() {
    let (switch, [mut a, mut b, mut c]) = acquainted_lab();
    switch.hold().unwrap();
    a.send(&unicast(1, 2, 1));
    c.send(&unicast(3, 2, 2));
    while switch.drain().unwrap().bytes > 0 {}
    switch.cut(a.port, b.port).unwrap();
    let counters = counters_of(&switch, b.port);
    assert_eq!(counters.dropped_to.frames(Cause::Cut), 1);
    assert_eq!(counters.queued.frames, 1);
    switch.heal(a.port, b.port).unwrap();
    a.send(&unicast(1, 2, 3));
    while switch.drain().unwrap().bytes > 0 {}
    switch.release().unwrap();
    b.expect(2);
    b.expect(3);
}

#[test]
fn a_restored_port_without_a_machine_is_down_once_released() {
    let (switch, [mut a, b, c]) = acquainted_lab();
    let c_port = c.port;
    drop(c);
    wait_for_down(&switch, c_port);
    switch.hold().unwrap();
    a.send(&unicast(1, 2, 1));
    let state = checkpoint(&switch);
    let restored = Switch::restore(&state).unwrap();
    let mut a = Machine::new(a.port, restored.reattach(a.port).unwrap());
    assert_eq!(counters_of(&restored, b.port).queued.frames, 1);
    restored.release().unwrap();
    let counters = counters_of(&restored, b.port);
    assert!(!counters.up);
    assert_eq!(counters.queued.frames, 0);
    assert_eq!(counters.dropped_to.frames(Cause::PortDown), 1);
    let mut b = Machine::new(b.port, restored.reattach(b.port).unwrap());
    a.send(&unicast(1, 2, 2));
    b.expect(2);
    // The one that was down can be given a machine, too.
    let mut c = Machine::new(c_port, restored.reattach(c_port).unwrap());
    a.send(&frame(EVERYBODY, station(1), 3, 64));
    c.expect(3);
}

#[test]
fn a_port_detached_while_it_awaits_its_machine_awaits_it_no_longer() {
    let (switch, [mut a, b]) = acquainted_lab();
    switch.hold().unwrap();
    a.send(&unicast(1, 2, 1));
    (&b.socket).write_all(&[0, 0]).unwrap();
    let restored = Switch::restore(&checkpoint(&switch)).unwrap();
    restored.detach(b.port).unwrap();
    assert_eq!(
        counters_of(&restored, b.port)
            .dropped_to
            .frames(Cause::PortDown),
        1
    );
    let [mut a, mut b] = reattached(&restored);
    restored.release().unwrap();
    b.send(&frame(EVERYBODY, station(2), 2, 64));
    a.expect(2);
}

#[test]
fn a_machine_that_dies_during_a_hold_takes_its_port_down() {
    let (switch, [mut a, b]) = acquainted_lab();
    switch.hold().unwrap();
    a.send(&unicast(1, 2, 1));
    while switch.drain().unwrap().bytes > 0 {}
    let b_port = b.port;
    drop(b);
    wait_for_drops(&switch, b_port, Cause::PortDown, 1);
    let state = switch.capture().unwrap();
    assert!(!state.segment.ports[b_port.index()].up);
    Switch::restore(&state).unwrap();
}

#[test]
fn a_switch_that_is_not_held_is_not_captured() {
    let (switch, [_a, _b]) = acquainted_lab();
    assert_eq!(switch.capture(), Err(CaptureError::NotHeld));
    switch.hold().unwrap();
    switch.release().unwrap();
    assert_eq!(switch.capture(), Err(CaptureError::NotHeld));
}

/// Spoils the state of a switch of two, where one frame waits for the second.
fn spoiled(spoil: impl FnOnce(&mut SwitchState)) -> RestoreError {
    let (switch, [mut a, _b]) = acquainted_lab();
    switch.hold().unwrap();
    a.send(&unicast(1, 2, 1));
    let mut state = checkpoint(&switch);
    spoil(&mut state);
    Switch::restore(&state).unwrap_err()
}

#[test]
fn a_state_no_switch_can_be_in_is_refused() {
    let error = spoiled(|state| state.version += 1);
    assert!(
        matches!(error, RestoreError::Version { found } if found == STATE_VERSION + 1),
        "{error:?}"
    );
    let error = spoiled(|state| state.segment.ports[1].name = "node1".to_owned());
    assert!(
        matches!(
            error,
            RestoreError::State(StateError::Port(AddPortError::NameTaken { .. }))
        ),
        "{error:?}"
    );
    let error = spoiled(|state| {
        let frame = CapturedFrame {
            from: 0,
            bytes: vec![0; 60_000],
        };
        state.segment.ports[1].waiting = vec![frame; 600];
    });
    assert!(
        matches!(error, RestoreError::State(StateError::QueueFull { .. })),
        "{error:?}"
    );
    let error = spoiled(|state| state.partial.push(Vec::new()));
    assert!(
        matches!(
            error,
            RestoreError::PartialCount {
                partial: 3,
                ports: 2
            }
        ),
        "{error:?}"
    );
    for bytes in [vec![0; 4], vec![0, 0, 0, 1, 7], vec![b'x'; 5]] {
        let error = spoiled(|state| state.partial[0] = bytes);
        assert!(matches!(error, RestoreError::Partial { .. }), "{error:?}");
    }
    let error = spoiled(|state| {
        state.segment.ports[0].up = false;
        state.partial[0] = vec![0, 0];
    });
    assert!(matches!(error, RestoreError::Partial { .. }), "{error:?}");
}

#[test]
fn a_connection_made_before_its_port_is_adopted() {
    let (switch, [mut a, old]) = acquainted_lab();
    switch.hold().unwrap();
    a.send(&unicast(1, 2, 1));
    let restored = Switch::restore(&checkpoint(&switch)).unwrap();
    let Connection {
        switch_end,
        machine_end,
    } = Connection::new().unwrap();
    let mut b = Machine::new(old.port, machine_end);
    // Sent before there was a port.
    b.send(&frame(EVERYBODY, station(2), 2, 64));
    restored.adopt(b.port, switch_end).unwrap();
    let mut a = Machine::new(a.port, restored.reattach(a.port).unwrap());
    restored.release().unwrap();
    b.expect(1);
    a.expect(2);
    a.send(&unicast(1, 2, 3));
    b.expect(3);

    // A connection that blocks and is inherited, on a port that has one already.
    let (near, far) = UnixStream::pair().unwrap();
    let mut new = Machine::new(b.port, far.into());
    restored.adopt(new.port, near.into()).unwrap();
    assert_eq!(b.receive(), None);
    fill(&restored, &mut a, &new, 100);
    a.send(&unicast(1, 2, 4));
    while sequence(&new.receive().unwrap()) != 4 {}
}

#[test]
fn what_cannot_be_a_connection_is_not_adopted() {
    let (switch, [mut a, mut b]) = acquainted_lab();
    let (_other, [.., stranger]) = acquainted_lab::<3>();
    let end = Connection::new().unwrap().switch_end;
    let unknown = switch.adopt(stranger.port, end);
    assert!(
        matches!(unknown, Err(AttachError::UnknownPort { ports: 2, .. })),
        "{unknown:?}"
    );
    let file = std::fs::File::open("/dev/null").unwrap();
    let unfit = switch.adopt(b.port, file.into());
    assert!(matches!(unfit, Err(AttachError::Adopt { .. })), "{unfit:?}");
    a.send(&unicast(1, 2, 1));
    b.expect(1);
}

#[test]
fn draining_a_machine_that_does_not_stop_ends() {
    let (switch, [a, b]) = acquainted_lab();
    switch.hold().unwrap();
    std::thread::scope(|scope| {
        let mut socket = a.socket.try_clone().unwrap();
        let sender = scope.spawn(move || {
            let batch = packed(&unicast(1, 2, 1)).repeat(100);
            while socket.write_all(&batch).is_ok() {}
        });
        wait_until(&switch, |counters| {
            counters.port(b.port).unwrap().queued.frames > 0
        });
        for _ in 0..10 {
            // What a socket of a megabyte holds, which the kernel doubles, and one batch.
            assert!(switch.drain().unwrap().bytes < 3 * 1024 * 1024);
        }
        switch.detach(a.port).unwrap();
        sender.join().unwrap();
    });
}
