//! The running switch, with plain sockets in the place of machines.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mvm_fabric::{AddPortError, AttachError, Cause, ChangeError, FRAME_BYTES_MAX, Link, LinkError};
use support::machine::{
    Machine, acquainted_lab, counters_of, lab, unicast, wait_for_down, wait_for_drops, wait_until,
};
use support::{EVERYBODY, frame, packed, sequence, station};

#[test]
fn a_frame_goes_to_its_station_once_that_has_spoken() {
    let (switch, [mut a, mut b, mut c]) = lab();
    a.send(&unicast(1, 2, 1));
    b.expect(1);
    c.expect(1);
    b.send(&unicast(2, 1, 2));
    a.expect(2);
    a.send(&unicast(1, 2, 3));
    b.expect(3);
    a.send(&frame(EVERYBODY, station(1), 4, 64));
    b.expect(4);
    c.expect(4);
    let counters = counters_of(&switch, c.port);
    assert_eq!(counters.sent.frames, 2, "neither 2 nor 3 went to everybody");
    assert_eq!(&*counters.name, "node3");
}

#[test]
fn frames_of_every_size_pass_unaltered() {
    let (_switch, [mut a, mut b]) = acquainted_lab();
    for bytes in [18, 64, 1514, 9014, FRAME_BYTES_MAX] {
        let mut sent = frame(station(2), station(1), 7, bytes);
        for (number, byte) in (0_u32..).zip(&mut sent[18..]) {
            *byte = (number % 251) as u8;
        }
        a.send(&sent);
        assert_eq!(b.receive().unwrap(), sent);
    }
}

#[test]
fn thousands_of_frames_in_one_write_arrive_in_order() {
    const FRAMES: u32 = 10_000;
    let (switch, [mut a, mut b]) = acquainted_lab();
    let batch: Vec<u8> = (1..=FRAMES)
        .flat_map(|number| packed(&unicast(1, 2, number)))
        .collect();
    std::thread::scope(|scope| {
        scope.spawn(|| a.socket.write_all(&batch).unwrap());
        for number in 1..=FRAMES {
            b.expect(number);
        }
    });
    let counters = counters_of(&switch, b.port);
    assert_eq!(counters.sent.frames, u64::from(FRAMES) + 1);
    assert_eq!(counters.dropped_to.total(), 0);
}

#[test]
fn a_partition_separates_groups_until_healed() {
    let (switch, [mut a, mut b, mut c]) = acquainted_lab();
    switch
        .partition(&[vec![a.port], vec![b.port, c.port]])
        .unwrap();
    a.send(&frame(EVERYBODY, station(1), 1, 64));
    b.send(&unicast(2, 1, 2));
    b.send(&unicast(2, 3, 3));
    c.expect(3);
    wait_for_drops(&switch, a.port, Cause::Cut, 1);
    wait_for_drops(&switch, b.port, Cause::Cut, 1);
    wait_for_drops(&switch, c.port, Cause::Cut, 1);
    switch.heal_all().unwrap();
    a.send(&unicast(1, 2, 4));
    b.expect(4);
    b.send(&unicast(2, 1, 5));
    a.expect(5);
}

#[test]
fn a_cut_of_one_direction_leaves_the_other() {
    let (switch, [mut a, mut b]) = acquainted_lab();
    switch
        .cut_link(Link {
            from: a.port,
            to: b.port,
        })
        .unwrap();
    a.send(&unicast(1, 2, 1));
    b.send(&unicast(2, 1, 2));
    a.expect(2);
    wait_for_drops(&switch, b.port, Cause::Cut, 1);
    switch.heal(a.port, b.port).unwrap();
    a.send(&unicast(1, 2, 3));
    b.expect(3);
}

#[test]
fn an_isolated_machine_hears_nobody_while_others_go_on() {
    let (switch, [mut a, mut b, mut c]) = acquainted_lab();
    switch.isolate(a.port).unwrap();
    c.send(&frame(EVERYBODY, station(3), 1, 64));
    b.expect(1);
    wait_for_drops(&switch, a.port, Cause::Cut, 1);
    switch.heal(a.port, c.port).unwrap();
    a.send(&frame(EVERYBODY, station(1), 2, 64));
    c.expect(2);
    wait_for_drops(&switch, b.port, Cause::Cut, 1);
}

#[test]
fn a_change_takes_effect_between_call_and_return() {
    let (switch, [a, b]) = lab();
    let before = Instant::now();
    let effect = switch.cut(a.port, b.port).unwrap();
    assert!(before <= effect && effect <= Instant::now());
}

/// A machine sends all the time, marking frames it sends after the cut has returned: none of these arrives,
/// and no other frame is begun after the cut.
#[test]
fn nothing_passes_once_a_cut_has_returned() {
    let (switch, [mut a, mut b, mut c]) = acquainted_lab();
    let (a_port, b_port) = (a.port, b.port);
    for _ in 0..20 {
        let (is_cut, stop) = (AtomicBool::new(false), AtomicBool::new(false));
        let start = counters_of(&switch, b_port);
        let (sent_before, cut_before) = (start.sent.frames, start.dropped_to.frames(Cause::Cut));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    let mark = u32::from(is_cut.load(Ordering::Acquire));
                    a.socket
                        .write_all(&packed(&unicast(1, 2, mark)).repeat(50))
                        .unwrap();
                }
            });
            let reader = scope.spawn(|| {
                let mut numbers = vec![sequence(&b.receive().unwrap())];
                while numbers.last() != Some(&9) {
                    numbers.push(sequence(&b.receive().unwrap()));
                }
                numbers
            });
            wait_until(&switch, |counters| {
                counters.port(b_port).unwrap().sent.frames > sent_before + 1000
            });
            switch.cut(a_port, b_port).unwrap();
            let at_cut = counters_of(&switch, b_port);
            is_cut.store(true, Ordering::Release);
            wait_until(&switch, |counters| {
                counters.port(b_port).unwrap().dropped_to.frames(Cause::Cut) > cut_before + 1000
            });
            stop.store(true, Ordering::Release);
            let after = counters_of(&switch, b_port);
            c.send(&unicast(3, 2, 9));
            let numbers = reader.join().unwrap();
            assert!(!numbers.contains(&1), "a frame sent after the cut arrived");
            assert!(
                at_cut.queued.frames <= 1,
                "only a frame sent in part may wait: {at_cut:?}"
            );
            // Whether or not its machine has read enough by now to get the rest of that one.
            assert_eq!(
                after.sent.frames + after.queued.frames,
                at_cut.sent.frames + at_cut.queued.frames
            );
        });
        // What the sender wrote last must be dropped before the link is whole.
        a.send(&unicast(1, 3, 8));
        c.expect(8);
        switch.heal(a_port, b_port).unwrap();
    }
}

#[test]
fn a_cut_drops_what_waits_for_a_slow_machine() {
    let (switch, [mut a, mut b, mut c]) = acquainted_lab();
    // Until the socket is full and frames wait in the switch.
    let batch = packed(&frame(station(2), station(1), 1, 1514)).repeat(100);
    while counters_of(&switch, b.port).queued.frames < 100 {
        a.socket.write_all(&batch).unwrap();
    }
    switch.cut(a.port, b.port).unwrap();
    let counters = counters_of(&switch, b.port);
    assert!(
        counters.queued.frames <= 1,
        "only a frame sent in part may wait: {counters:?}"
    );
    assert!(counters.dropped_to.frames(Cause::Cut) >= 99, "{counters:?}");
    c.send(&unicast(3, 2, 9));
    let mut arrived = 0;
    while sequence(&b.receive().unwrap()) != 9 {
        arrived += 1;
    }
    assert_eq!(arrived + 1, counters_of(&switch, b.port).sent.frames - 2);
}

#[test]
fn a_machine_that_does_not_read_loses_frames_and_delays_nobody() {
    const FRAMES: u32 = 5000;
    let (switch, [mut a, b, mut c]) = acquainted_lab();
    for number in 1..=FRAMES {
        a.send(&frame(station(2), station(1), number, 1514));
        a.send(&unicast(1, 3, number));
        c.expect(number);
    }
    let counters = counters_of(&switch, b.port);
    assert!(
        counters.dropped_to.frames(Cause::QueueFull) > 0,
        "{counters:?}"
    );
    assert!(counters.queued.bytes <= 1024 * 1024, "{counters:?}");
    // Two were greetings.
    let fates = counters.sent.frames - 2 + counters.queued.frames + counters.dropped_to.total();
    assert_eq!(fates, u64::from(FRAMES));
}

#[test]
fn a_slow_machine_gets_all_that_waited_when_it_reads_again() {
    let (switch, [mut a, mut b]) = acquainted_lab();
    let batch = packed(&frame(station(2), station(1), 1, 1514)).repeat(100);
    while counters_of(&switch, b.port).queued.frames < 100 {
        a.socket.write_all(&batch).unwrap();
    }
    a.send(&unicast(1, 2, 9));
    while sequence(&b.receive().unwrap()) != 9 {}
    wait_until(&switch, |counters| {
        counters.port(b.port).unwrap().queued.frames == 0
    });
}

#[test]
fn a_port_whose_machine_died_goes_down_and_comes_back() {
    let (switch, [mut a, b, mut c]) = acquainted_lab();
    let b_port = b.port;
    switch.cut(b_port, c.port).unwrap();
    drop(b);
    wait_for_down(&switch, b_port);
    a.send(&unicast(1, 2, 1));
    wait_for_drops(&switch, b_port, Cause::PortDown, 1);
    // Its station is forgotten, hence sought everywhere.
    c.expect(1);

    let mut b = Machine::new(b_port, switch.reattach(b_port).unwrap());
    assert!(counters_of(&switch, b_port).up);
    b.send(&frame(EVERYBODY, station(2), 2, 64));
    a.expect(2);
    wait_for_drops(&switch, c.port, Cause::Cut, 1);
    a.send(&unicast(1, 2, 3));
    b.expect(3);
    assert_eq!(
        counters_of(&switch, b_port)
            .dropped_to
            .frames(Cause::PortDown),
        1,
        "counters stay"
    );
    assert_eq!(switch.port("node2").unwrap(), Some(b_port));
}

#[test]
fn the_last_frames_of_a_dying_machine_arrive() {
    let (switch, [mut a, mut b]) = acquainted_lab();
    let batch: Vec<u8> = (1..=500)
        .flat_map(|number| packed(&unicast(1, 2, number)))
        .collect();
    a.socket.write_all(&batch).unwrap();
    let a_port = a.port;
    drop(a);
    for number in 1..=500 {
        b.expect(number);
    }
    wait_for_down(&switch, a_port);
}

#[test]
fn reattaching_replaces_a_connection_that_is_still_open() {
    let (switch, [mut a, mut old]) = acquainted_lab();
    let mut new = Machine::new(old.port, switch.reattach(old.port).unwrap());
    assert_eq!(old.receive(), None);
    new.send(&frame(EVERYBODY, station(2), 1, 64));
    a.expect(1);
    a.send(&unicast(1, 2, 2));
    new.expect(2);
}

#[test]
fn a_new_connection_starts_with_a_whole_frame() {
    let (switch, [mut a, old]) = acquainted_lab();
    // So many that one is sent in part.
    let batch = packed(&frame(station(2), station(1), 1, 1514)).repeat(100);
    while counters_of(&switch, old.port).queued.frames < 100 {
        a.socket.write_all(&batch).unwrap();
    }
    // What was written is forwarded before what comes next is heard.
    a.send(&unicast(1, 1, 2));
    wait_until(&switch, |counters| {
        let counters = counters.port(a.port).unwrap();
        counters.dropped_from.frames(Cause::SelfAddressed) == 1
    });
    let waited = counters_of(&switch, old.port).queued.frames;
    let mut new = Machine::new(old.port, switch.reattach(old.port).unwrap());
    let counters = counters_of(&switch, new.port);
    assert_eq!(counters.dropped_to.frames(Cause::PortDown), waited);
    a.send(&unicast(1, 2, 3));
    new.expect(3);
}

#[test]
fn a_detached_machine_sees_the_end() {
    let (switch, [mut a, b]) = acquainted_lab();
    switch.detach(a.port).unwrap();
    assert_eq!(a.receive(), None);
    switch.detach(a.port).unwrap();
    let counters = switch.counters().unwrap();
    assert!(!counters.port(a.port).unwrap().up);
    assert!(counters.port(b.port).unwrap().up);
}

#[track_caller]
fn check_malformed(bytes: &[u8]) {
    let (switch, [mut a, mut b, mut c]) = acquainted_lab();
    a.send(&unicast(1, 2, 1));
    match a.socket.write_all(bytes) {
        Ok(()) => {}
        // The switch may hang up before all is written.
        Err(error) => assert_eq!(error.kind(), ErrorKind::BrokenPipe),
    }
    b.expect(1);
    assert_eq!(a.receive(), None);
    wait_for_down(&switch, a.port);
    assert_eq!(
        counters_of(&switch, a.port)
            .dropped_from
            .frames(Cause::Malformed),
        1
    );
    b.send(&unicast(2, 3, 2));
    c.expect(2);
}

#[test]
fn a_malformed_length_takes_only_its_port_down() {
    check_malformed(&[0; 4]);
    check_malformed(&[0xff; 4]);
    check_malformed(&(FRAME_BYTES_MAX as u32 + 1).to_be_bytes());
    // Followed by more than one batch.
    check_malformed(&[b'x'; 100_000]);
}

#[test]
fn a_runt_is_counted_and_the_next_frame_passes() {
    let (switch, [mut a, mut b]) = acquainted_lab();
    a.send(&[1, 2, 3]);
    a.send(&unicast(1, 2, 1));
    b.expect(1);
    assert_eq!(
        counters_of(&switch, a.port)
            .dropped_from
            .frames(Cause::Runt),
        1
    );
}

#[test]
fn senseless_calls_are_refused() {
    let (switch, [a]) = lab();
    let (_other, [.., stranger]) = lab::<3>();
    let name_taken = switch.attach("node1").map(|_| ());
    assert!(
        matches!(
            name_taken,
            Err(AttachError::Port(AddPortError::NameTaken { .. }))
        ),
        "{name_taken:?}"
    );
    let unknown = switch.reattach(stranger.port);
    assert!(
        matches!(unknown, Err(AttachError::UnknownPort { ports: 1, .. })),
        "{unknown:?}"
    );
    let unknown = LinkError::UnknownPort {
        port: stranger.port,
        ports: 1,
    };
    assert_eq!(
        switch.detach(stranger.port),
        Err(ChangeError::Link(unknown.clone()))
    );
    assert_eq!(
        switch.cut(a.port, stranger.port),
        Err(ChangeError::Link(unknown))
    );
    assert_eq!(switch.port("nobody").unwrap(), None);
    let (port, _end) = switch.attach("node2").unwrap();
    assert_eq!(port.index(), 1, "a refused port leaves no gap");
}

#[test]
fn the_machines_end_is_not_inherited_by_accident() {
    let (_switch, [a]) = lab();
    let flags = rustix::io::fcntl_getfd(&a.socket).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn dropping_the_switch_ends_all_connections() {
    let (switch, [mut a, mut b]) = acquainted_lab();
    drop(switch);
    assert_eq!(a.receive(), None);
    assert_eq!(b.receive(), None);
}

#[test]
fn a_switch_is_used_from_many_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    let (switch, [a, b]) = lab();
    shared(&switch);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    switch.cut(a.port, b.port).unwrap();
                    switch.heal(a.port, b.port).unwrap();
                }
            });
        }
    });
    assert!(switch.counters().unwrap().port(a.port).unwrap().up);
}
