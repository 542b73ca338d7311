//! Plain sockets in the place of machines, and a running switch with some of them.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use mvm_fabric::{Cause, Counters, Port, PortCounters, Switch};

use super::{EVERYBODY, frame, packed, sequence, station};

/// No test waits this long unless it fails.
pub(crate) const HANG: Duration = Duration::from_secs(10);

/// Stands in for a machine.
pub(crate) struct Machine {
    pub(crate) port: Port,
    pub(crate) socket: UnixStream,
}

impl Machine {
    pub(crate) fn new(port: Port, end: OwnedFd) -> Machine {
        let socket = UnixStream::from(end);
        socket.set_read_timeout(Some(HANG)).unwrap();
        socket.set_write_timeout(Some(HANG)).unwrap();
        Machine { port, socket }
    }

    pub(crate) fn send(&mut self, frame: &[u8]) {
        self.socket.write_all(&packed(frame)).unwrap();
    }

    /// The next frame; `None` if the switch closed the connection.
    pub(crate) fn receive(&mut self) -> Option<Vec<u8>> {
        let mut prefix = [0; 4];
        match self.socket.read_exact(&mut prefix) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
                ) =>
            {
                return None;
            }
            Err(error) => panic!("no frame arrives: {error}"),
        }
        let mut frame = vec![0; u32::from_be_bytes(prefix) as usize];
        self.socket.read_exact(&mut frame).unwrap();
        Some(frame)
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, number: u32) {
        let frame = self.receive().expect("the connection is closed");
        assert_eq!(sequence(&frame), number);
    }
}

/// A switch with machines `node1`, `node2`, ... each with the station of its number.
pub(crate) fn lab<const N: usize>() -> (Switch, [Machine; N]) {
    let switch = Switch::start().unwrap();
    let machines = std::array::from_fn(|index| {
        let (port, end) = switch.attach(&format!("node{}", index + 1)).unwrap();
        Machine::new(port, end)
    });
    (switch, machines)
}

/// As [`lab`], and everybody knows everybody.
pub(crate) fn acquainted_lab<const N: usize>() -> (Switch, [Machine; N]) {
    let (switch, mut machines) = lab::<N>();
    for speaker in 0..N {
        machines[speaker].send(&frame(EVERYBODY, station(speaker as u8 + 1), 0, 64));
        for listener in (0..N).filter(|listener| *listener != speaker) {
            machines[listener].expect(0);
        }
    }
    (switch, machines)
}

pub(crate) fn unicast(from: u8, to: u8, number: u32) -> Vec<u8> {
    frame(station(to), station(from), number, 64)
}

pub(crate) fn counters_of(switch: &Switch, port: Port) -> PortCounters {
    switch.counters().unwrap().port(port).unwrap().clone()
}

/// Waits until the counters are as `condition` wants.
#[track_caller]
pub(crate) fn wait_until(switch: &Switch, condition: impl Fn(&Counters) -> bool) {
    let start = Instant::now();
    loop {
        let counters = switch.counters().unwrap();
        if condition(&counters) {
            return;
        }
        assert!(
            start.elapsed() < HANG,
            "not in time, last seen: {counters:#?}"
        );
        std::thread::yield_now();
    }
}

/// Waits until the frames lost for `cause` on the way to `port` are `frames`.
#[track_caller]
pub(crate) fn wait_for_drops(switch: &Switch, port: Port, cause: Cause, frames: u64) {
    wait_until(switch, |counters| {
        counters.port(port).unwrap().dropped_to.frames(cause) == frames
    });
}

#[track_caller]
pub(crate) fn wait_for_down(switch: &Switch, port: Port) {
    wait_until(switch, |counters| !counters.port(port).unwrap().up);
}
