//! Packet captures of a running switch, with plain sockets in the place of machines, read by `tshark`.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mvm_fabric::{
    Cause, Impairment, LinkError, Loss, PacketCapture, PacketCaptureOptions, PacketCaptureSummary,
    Port, Probability, Scope, Switch, Tap, TapError,
};
use support::machine::{
    HANG, Machine, acquainted_lab, counters_of, unicast, wait_for_down, wait_for_drops, wait_until,
};
use support::tshark::{Packet, lines, numbers, packets, try_packets};
use support::{EVERYBODY, frame, packed, sequence, station};
use tempfile::TempDir;

/// A capture in a folder of its own.
struct Capture {
    handle: PacketCapture,
    folder: TempDir,
}

impl Capture {
    fn new() -> Capture {
        Capture::with(PacketCaptureOptions::DEFAULT)
    }

    fn with(options: PacketCaptureOptions) -> Capture {
        let folder = tempfile::tempdir().unwrap();
        let handle = PacketCapture::create(&file_in(&folder), options).unwrap();
        Capture { handle, folder }
    }

    fn file(&self) -> PathBuf {
        file_in(&self.folder)
    }

    /// Ends taps, so that all that has happened is recorded, and the capture.
    fn finish(&self, tap: Tap) -> PacketCaptureSummary {
        drop(tap);
        self.handle.finish().unwrap()
    }

    /// Finishes, and compares what tshark reads.
    #[track_caller]
    fn check(&self, tap: Tap, expected: &[&str]) {
        self.finish(tap);
        assert_eq!(lines(&self.file()), expected);
    }
}

fn file_in(folder: &TempDir) -> PathBuf {
    folder.path().join("capture.pcapng")
}

/// Ports under their own names and `eth1`.
fn interfaces(ports: &[(Port, &str)]) -> BTreeMap<Port, String> {
    let named = ports.iter();
    named
        .map(|(port, name)| (*port, format!("{name} eth1")))
        .collect()
}

/// All ports of a switch.
fn all(switch: &Switch) -> BTreeMap<Port, String> {
    let links = switch.links().unwrap();
    links
        .ports()
        .map(|port| (port, format!("{} eth1", links.name(port))))
        .collect()
}

/// Sends until frames wait in the switch for a machine that does not read; tells how many were sent. Their numbers
/// count from one.
fn clog(switch: &Switch, from: &mut Machine, to: Port) -> u32 {
    let mut sent = 0;
    while counters_of(switch, to).queued.frames < 100 {
        for _ in 0..100 {
            sent += 1;
            from.send(&frame(station(2), station(1), sent, 1514));
        }
    }
    // What was written is forwarded before what comes next is heard.
    from.send(&unicast(1, 1, 0));
    let from = from.port;
    wait_until(switch, |counters| {
        let counters = counters.port(from).unwrap();
        counters.dropped_from.frames(Cause::SelfAddressed) == 1
    });
    sent
}

#[test]
fn a_partition_is_told_frame_by_frame() {
    let (switch, [mut a, mut b, mut c]) = acquainted_lab();
    let capture = Capture::new();
    let tap = switch.tap(&capture.handle, all(&switch)).unwrap();
    a.send(&unicast(1, 2, 1));
    b.expect(1);
    switch
        .partition(&[vec![a.port], vec![b.port, c.port]])
        .unwrap();
    a.send(&unicast(1, 2, 2));
    wait_for_drops(&switch, b.port, Cause::Cut, 1);
    b.send(&frame(EVERYBODY, station(2), 3, 64));
    c.expect(3);
    c.send(&unicast(3, 1, 4));
    wait_for_drops(&switch, a.port, Cause::Cut, 2);
    switch.heal_all().unwrap();
    a.send(&unicast(1, 2, 5));
    b.expect(5);
    let summary = capture.finish(tap);
    assert_eq!(
        lines(&capture.file()),
        [
            "node1 eth1 inbound 1",
            "node2 eth1 outbound 1",
            "node1 eth1 inbound 2",
            "node2 eth1 dropped: cut (node1 to node2) 2",
            "node2 eth1 inbound 3",
            "node1 eth1 dropped: cut (node2 to node1) 3",
            "node3 eth1 outbound 3",
            "node3 eth1 inbound 4",
            "node1 eth1 dropped: cut (node3 to node1) 4",
            "node1 eth1 inbound 5",
            "node2 eth1 outbound 5",
        ]
    );
    let expected = PacketCaptureSummary {
        received: 5,
        sent: 3,
        dropped: 3,
        lost: 0,
        left_out: 0,
        bytes: std::fs::metadata(capture.file()).unwrap().len(),
    };
    assert_eq!(summary, expected);
}

#[test]
fn a_copy_that_waited_when_its_direction_was_cut_was_dropped_and_has_not_passed() {
    let (switch, [mut a, mut b, mut c]) = acquainted_lab();
    let capture = Capture::new();
    let tap = switch.tap(&capture.handle, all(&switch)).unwrap();
    let sent = clog(&switch, &mut a, b.port);
    switch.cut(a.port, b.port).unwrap();
    c.send(&unicast(3, 2, 0));
    let mut arrived = vec![sequence(&b.receive().unwrap())];
    while arrived.last() != Some(&0) {
        arrived.push(sequence(&b.receive().unwrap()));
    }
    capture.finish(tap);
    let packets = packets(&capture.file());
    let passed = numbers(&packets, "node2 eth1", "outbound");
    assert_eq!(passed, arrived);
    let mut cut = numbers(&packets, "node2 eth1", "dropped: cut (node1 to node2)");
    assert!(cut.len() >= 99, "{cut:?}");
    // Some may have found no room before.
    cut.extend(numbers(
        &packets,
        "node2 eth1",
        "dropped: queue full (node1 to node2)",
    ));
    let fates: BTreeSet<u32> = cut.iter().chain(&passed).copied().collect();
    assert_eq!(fates, (0..=sent).collect());
    assert_eq!(cut.len() + passed.len(), fates.len());
}

#[test]
fn what_has_come_to_no_egress_port_is_dropped_where_it_came_from() {
    let (switch, [mut a, mut b]) = acquainted_lab();
    let capture = Capture::new();
    let tap = switch.tap(&capture.handle, all(&switch)).unwrap();
    a.send(&[0xff; 5]);
    a.send(&unicast(1, 1, 1));
    // A frame of four gigabytes, and what comes of it.
    let malformed = [&[0xff; 4], &unicast(1, 2, 2)[..]].concat();
    a.socket.write_all(&malformed).unwrap();
    wait_for_down(&switch, a.port);
    b.send(&unicast(2, 1, 3));
    wait_for_drops(&switch, a.port, Cause::PortDown, 1);
    capture.check(
        tap,
        &[
            "node1 eth1 inbound -",
            "node1 eth1 dropped: runt (from node1) -",
            "node1 eth1 inbound 1",
            "node1 eth1 dropped: self-addressed (from node1) 1",
            "node1 eth1 dropped: malformed (from node1) 2",
            "node2 eth1 inbound 3",
            // Its station is forgotten, hence everybody's frame.
            "node1 eth1 dropped: port down (node2 to node1) 3",
        ],
    );
}

/// Causes and their numbers, as counted and as recorded.
#[test]
fn impairments_are_told_as_they_are_counted_and_a_corrupted_frame_as_it_arrives() {
    const FRAMES: u32 = 500;
    let (switch, [mut a, mut b]) = acquainted_lab();
    let capture = Capture::new();
    let half = Probability::new(0.5).unwrap();
    let impairment = Impairment {
        mtu_bytes: Some(1000),
        loss: Loss::Independent(half),
        corrupt: half,
        duplicate: half,
        ..Impairment::NONE
    };
    let tap = switch.tap(&capture.handle, all(&switch)).unwrap();
    let before = counters_of(&switch, b.port);
    switch.impair(Scope::From(a.port), impairment).unwrap();
    // So short that there is little but the number to be corrupted.
    for number in 0..FRAMES {
        a.send(&frame(station(2), station(1), number, 18));
    }
    a.send(&frame(station(2), station(1), 0, 1500));
    wait_for_drops(&switch, b.port, Cause::TooLarge, 1);
    capture.finish(tap);
    let counters = counters_of(&switch, b.port);
    let mut arrived = Vec::new();
    for _ in 0..counters.sent.frames - before.sent.frames {
        arrived.push(sequence(&b.receive().unwrap()));
    }
    let packets = packets(&capture.file());
    assert_eq!(numbers(&packets, "node2 eth1", "outbound"), arrived);
    assert_eq!(
        numbers(&packets, "node1 eth1", "inbound"),
        (0..FRAMES).chain([0]).collect::<Vec<_>>()
    );
    let lost = numbers(&packets, "node2 eth1", "dropped: lost (node1 to node2)");
    let counted = counters.dropped_to.frames(Cause::Lost);
    assert_eq!(lost.len() as u64, counted);
    assert!(counters.corrupted > 0 && counters.duplicated > 0 && counted > 0);
}

#[test]
fn a_tap_records_what_touches_its_ports() {
    let (switch, [mut a, mut b, mut c]) = acquainted_lab();
    let capture = Capture::new();
    let only = interfaces(&[(a.port, "node1")]);
    let tap = switch.tap(&capture.handle, only).unwrap();
    a.send(&unicast(1, 2, 1));
    b.expect(1);
    b.send(&unicast(2, 3, 2));
    c.expect(2);
    b.send(&unicast(2, 1, 3));
    a.expect(3);
    switch.isolate(b.port).unwrap();
    a.send(&unicast(1, 2, 4));
    wait_for_drops(&switch, b.port, Cause::Cut, 1);
    b.send(&unicast(2, 1, 5));
    wait_for_drops(&switch, a.port, Cause::Cut, 1);
    c.send(&unicast(3, 2, 6));
    wait_for_drops(&switch, b.port, Cause::Cut, 2);
    capture.check(
        tap,
        &[
            "node1 eth1 inbound 1",
            "node1 eth1 outbound 3",
            "node1 eth1 inbound 4",
            "node1 eth1 dropped: cut (node1 to node2) 4",
            "node1 eth1 dropped: cut (node2 to node1) 5",
        ],
    );
}

#[test]
fn two_taps_of_one_capture_record_a_dropped_copy_once() {
    let (switch, [mut a, b]) = acquainted_lab();
    let capture = Capture::new();
    let [one, other] = [(a.port, "node1"), (b.port, "node2")].map(|port| {
        let only = interfaces(&[port]);
        switch.tap(&capture.handle, only).unwrap()
    });
    switch.cut(a.port, b.port).unwrap();
    a.send(&unicast(1, 2, 1));
    wait_for_drops(&switch, b.port, Cause::Cut, 1);
    drop(other);
    // Now nobody else records it.
    a.send(&unicast(1, 2, 2));
    wait_for_drops(&switch, b.port, Cause::Cut, 2);
    capture.check(
        one,
        &[
            "node1 eth1 inbound 1",
            "node2 eth1 dropped: cut (node1 to node2) 1",
            "node1 eth1 inbound 2",
            "node1 eth1 dropped: cut (node1 to node2) 2",
        ],
    );
}

#[test]
fn captures_of_one_switch_begin_and_end_when_they_want() {
    let (switch, [mut a, mut b]) = acquainted_lab();
    let (first, second) = (Capture::new(), Capture::new());
    let first_tap = switch.tap(&first.handle, all(&switch)).unwrap();
    a.send(&unicast(1, 2, 1));
    b.expect(1);
    let second_tap = switch.tap(&second.handle, all(&switch)).unwrap();
    a.send(&unicast(1, 2, 2));
    b.expect(2);
    first.finish(first_tap);
    a.send(&unicast(1, 2, 3));
    b.expect(3);
    // It ends with its capture, too, and comes to no harm.
    switch.counters().unwrap();
    second.handle.finish().unwrap();
    a.send(&unicast(1, 2, 4));
    b.expect(4);
    drop(second_tap);
    let of = |numbers: &[u32]| -> Vec<String> {
        let line = |number| {
            [
                format!("node1 eth1 inbound {number}"),
                format!("node2 eth1 outbound {number}"),
            ]
        };
        numbers.iter().flat_map(line).collect()
    };
    assert_eq!(lines(&first.file()), of(&[1, 2]));
    assert_eq!(lines(&second.file()), of(&[2, 3]));
}

#[test]
fn a_restored_switch_is_tapped_again_into_the_same_file_beside_others() {
    let (switch, [mut a, mut b]) = acquainted_lab();
    let (other, [mut x, mut y]) = acquainted_lab();
    let capture = Capture::new();
    let other_ports = interfaces(&[(x.port, "other1"), (y.port, "other2")]);
    let other_tap = other.tap(&capture.handle, other_ports).unwrap();
    let tap = switch.tap(&capture.handle, all(&switch)).unwrap();
    switch.hold().unwrap();
    a.send(&unicast(1, 2, 1));
    let b_port = b.port;
    wait_until(&switch, |counters| {
        counters.port(b_port).unwrap().queued.frames == 1
    });
    let state = switch.capture().unwrap();
    drop(switch);
    drop(tap);
    x.send(&unicast(1, 2, 2));
    y.expect(2);
    other.counters().unwrap();

    let switch = Switch::restore(&state).unwrap();
    let port = |name| switch.port(name).unwrap().unwrap();
    b = Machine::new(port("node2"), switch.reattach(port("node2")).unwrap());
    let tap = switch.tap(&capture.handle, all(&switch)).unwrap();
    switch.release().unwrap();
    b.expect(1);
    drop(other_tap);
    capture.check(
        tap,
        &[
            "node1 eth1 inbound 1",
            "other1 eth1 inbound 2",
            "other2 eth1 outbound 2",
            "node2 eth1 outbound 1",
        ],
    );
}

#[test]
fn times_are_the_hosts_and_in_order() {
    let (switch, [mut a, mut b]) = acquainted_lab();
    let capture = Capture::new();
    let tap = switch.tap(&capture.handle, all(&switch)).unwrap();
    for number in 1..=100 {
        a.send(&unicast(1, 2, number));
        b.expect(number);
    }
    capture.finish(tap);
    let times: Vec<String> = packets(&capture.file())
        .into_iter()
        .map(|packet| packet.time)
        .collect();
    // All have as many digits.
    assert!(times.is_sorted(), "{times:?}");
    let first: f64 = times[0].parse().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let age = now.as_secs_f64() - first;
    assert!(0.0 <= age && age < HANG.as_secs_f64(), "{age}");
}

#[test]
fn the_file_of_a_running_capture_is_a_valid_one() {
    let (switch, [mut a, mut b]) = acquainted_lab();
    let capture = Capture::new();
    let tap = switch.tap(&capture.handle, all(&switch)).unwrap();
    for number in 1..=10 {
        a.send(&unicast(1, 2, number));
        b.expect(number);
    }
    // Until it is as it would be, were the process killed now; between two writes of the writer.
    let start = Instant::now();
    let mut read = try_packets(&capture.file());
    while !read.as_ref().is_ok_and(|packets| packets.len() == 20) {
        assert!(start.elapsed() < HANG, "not in time, last seen: {read:?}");
        read = try_packets(&capture.file());
    }
    capture.finish(tap);
    assert_eq!(Ok(packets(&capture.file())), read);
}

#[test]
fn the_last_handle_finishes_the_file() {
    let (switch, [mut a, mut b]) = acquainted_lab();
    let capture = Capture::new();
    let tap = switch.tap(&capture.handle, all(&switch)).unwrap();
    let file = capture.file();
    let Capture { handle, folder } = capture;
    let clone = handle.clone();
    drop(handle);
    a.send(&unicast(1, 2, 1));
    b.expect(1);
    drop(tap);
    drop(clone);
    assert_eq!(
        lines(&file),
        ["node1 eth1 inbound 1", "node2 eth1 outbound 1"]
    );
    drop(folder);
}

#[test]
fn a_file_grows_to_its_bound_and_what_is_left_out_is_counted() {
    const FRAMES: u32 = 100;
    let (switch, [mut a, mut b]) = acquainted_lab();
    let capture = Capture::with(PacketCaptureOptions {
        bytes_max: 20_000,
        snap_bytes: NonZeroU32::new(100),
        ..PacketCaptureOptions::DEFAULT
    });
    let tap = switch.tap(&capture.handle, all(&switch)).unwrap();
    for number in 1..=FRAMES {
        a.send(&frame(station(2), station(1), number, 1000));
        b.expect(number);
    }
    let summary = capture.finish(tap);
    let packets = packets(&capture.file());
    let recorded = summary.received + summary.sent;
    assert_eq!(packets.len() as u64, recorded);
    assert_eq!(recorded + summary.left_out, 2 * u64::from(FRAMES));
    assert!(summary.left_out > 0 && summary.lost == 0, "{summary:?}");
    assert!((19_000..21_000).contains(&summary.bytes), "{summary:?}");
    let whole = |packet: &Packet| packet.frame_bytes == 1000;
    assert!(packets.iter().all(whole), "{packets:?}");
}

#[test]
fn a_switch_does_not_wait_for_the_writer_and_what_is_lost_is_counted() {
    const FRAMES: u32 = 1000;
    let (switch, [mut a, mut b]) = acquainted_lab();
    let capture = Capture::with(PacketCaptureOptions {
        buffer_bytes_max: 4096,
        ..PacketCaptureOptions::DEFAULT
    });
    let tap = switch.tap(&capture.handle, all(&switch)).unwrap();
    let batch: Vec<u8> = (1..=FRAMES)
        .flat_map(|number| packed(&unicast(1, 2, number)))
        .collect();
    a.socket.write_all(&batch).unwrap();
    for number in 1..=FRAMES {
        b.expect(number);
    }
    let summary = capture.finish(tap);
    assert!(summary.lost > 0, "{summary:?}");
    let recorded = summary.received + summary.sent;
    assert_eq!(recorded + summary.lost, 2 * u64::from(FRAMES));
    assert_eq!(packets(&capture.file()).len() as u64, recorded);
}

#[test]
fn a_full_disk_ends_the_capture_and_not_the_switch() {
    let (switch, [mut a, mut b]) = acquainted_lab();
    let full = Path::new("/dev/full");
    let capture = PacketCapture::create(full, PacketCaptureOptions::DEFAULT).unwrap();
    let tap = switch.tap(&capture, all(&switch)).unwrap();
    let start = Instant::now();
    let mut number = 0;
    // While it is found, and after.
    while start.elapsed().as_millis() < 300 {
        number += 1;
        a.send(&unicast(1, 2, number));
        b.expect(number);
    }
    for handle in [capture.clone(), capture] {
        let error = handle.finish().unwrap_err();
        assert_eq!(error.path, full);
        assert_eq!(error.source.kind(), std::io::ErrorKind::StorageFull);
    }
    drop(tap);
    a.send(&unicast(1, 2, 0));
    b.expect(0);
}

#[test]
fn a_file_that_cannot_be_created_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("none").join("capture.pcapng");
    let error = PacketCapture::create(&nowhere, PacketCaptureOptions::DEFAULT).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn handles_may_go_to_any_thread() {
    fn check<T: Send + Sync>() {}
    check::<Switch>();
    check::<PacketCapture>();
    check::<Tap>();
}

#[test]
fn taps_that_make_no_sense_are_refused() {
    let (switch, [a, b]) = acquainted_lab();
    let (_larger, [.., stranger]) = acquainted_lab::<3>();
    let capture = Capture::new();
    let unknown = interfaces(&[(a.port, "node1"), (stranger.port, "node3")]);
    let refused = switch.tap(&capture.handle, unknown).unwrap_err();
    let unknown = LinkError::UnknownPort {
        port: stranger.port,
        ports: 2,
    };
    assert_eq!(refused, TapError::Port(unknown));

    let only = interfaces(&[(b.port, "node2")]);
    let tap = switch.tap(&capture.handle, only.clone()).unwrap();
    let refused = switch.tap(&capture.handle, all(&switch)).unwrap_err();
    let name = "node2".into();
    assert_eq!(refused, TapError::AlreadyTapped { name });
    drop(tap);
    let again = switch.tap(&capture.handle, only).unwrap();
    // Neither is one bothered by the other's end.
    drop(switch);
    capture.check(again, &[]);
}
