//! How many frames a switch passes on, and what each costs it. The method is told in the program's docs.

use std::time::Duration;

use crate::peer::{Part, Peer};
use crate::port::{Port, introduce};
use crate::switches::Contender;

/// What is sent, and beside what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    /// How many pairs of a sending and a receiving port. One process sends for all in turn, one receives for
    /// all, so that the number of processes stays the same.
    pub(crate) pairs: usize,
    /// How many ports stand by in silence.
    pub(crate) idle: usize,
    /// Over all pairs together.
    pub(crate) frames: u64,
    pub(crate) frame_bytes: usize,
}

/// What became of a flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flood {
    sent: u64,
    received: u64,
    took: Duration,
    cpu: Duration,
}

impl Flood {
    /// Thousands of frames received per second.
    pub(crate) fn kilo_rate(&self) -> f64 {
        self.received as f64 / self.took.as_secs_f64() / 1000.0
    }

    pub(crate) fn lost_percent(&self) -> f64 {
        (self.sent - self.received) as f64 / self.sent as f64 * 100.0
    }

    /// The switch's processor time per frame received.
    pub(crate) fn cpu_nanos(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.received as f64
    }
}

pub(crate) fn measure<C: Contender>(flow: Flow) -> Flood {
    measure_keeping::<C>(flow).0
}

/// As [`measure`], and gives the switch, whose machines are gone.
pub(crate) fn measure_keeping<C: Contender>(flow: Flow) -> (Flood, C) {
    let mut switch = C::start();
    let mut attach = |ports: usize| -> Vec<Port> { (0..ports).map(|_| switch.attach()).collect() };
    let [mut sources, mut targets, mut idle] = [flow.pairs, flow.pairs, flow.idle].map(&mut attach);
    acquaint(&mut sources, &mut targets, &mut idle);
    let sockets = |ports: Vec<Port>| ports.into_iter().map(Port::into_socket).collect();
    let part = Part::Send {
        frames: flow.frames,
        frame_bytes: flow.frame_bytes,
    };
    let before = switch.cpu();
    let receiver = Peer::start(Part::Receive, C::WIRE, sockets(targets));
    let sender = Peer::start(part, C::WIRE, sockets(sources));
    let received = receiver.report();
    let cpu = switch.cpu() - before;
    let sent = sender.report();
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    let frames = number(&received["frames"]);
    assert!(
        frames <= flow.frames,
        "of {flow:?}, {frames} frames arrived"
    );
    let flood = Flood {
        sent: flow.frames,
        received: frames,
        took: Duration::from_nanos(number(&received["last"]) - number(&sent["start"])),
        cpu,
    };
    (flood, switch)
}

/// Lets the stations of each pair speak, and drains all ports of what was flooded by that.
///
/// No port may be attached after this: `vde_switch` forgets all stations then.
fn acquaint(sources: &mut [Port], targets: &mut [Port], idle: &mut [Port]) {
    for pair in 0..sources.len() {
        introduce(pair, &mut sources[pair], &mut targets[pair]);
        for port in sources.iter_mut().chain(&mut *targets).chain(&mut *idle) {
            port.drain();
        }
    }
}
