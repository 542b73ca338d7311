//! How long frames still arrive after the call that cuts their link.
//!
//! A machine floods all the time. In each round another one listens afresh. Once frames flow to it the link is
//! cut; once the switch has handed over the last of what it had begun, it closes the listener's connection. So the
//! listener reads everything that passed, however late, and then an end.

use std::time::{Duration, Instant};

use mvm_fabric::{Port, PortCounters, Switch};

use crate::peer::{self, Part, Peer};
use crate::port::Wire;
use crate::sorted::Sorted;

const ROUNDS: u32 = 50;
/// So many frames flow before a cut: the queues on the way have found their level.
const FLOWING: u64 = 5_000;
const PHASE: Duration = Duration::from_micros(23);
/// The last frame before a cut is younger, even if its listener waits for a processor.
const STILL_FLOWING: Duration = Duration::from_millis(100);
const FLOW_ALLOWED: Duration = Duration::from_secs(10);

/// What the rounds come to, in microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Cuts {
    /// From just before the call to its return: the switch passes nothing later.
    pub(crate) call: Sorted,
    /// From just before the call to the arrival of the last frame; zero where none arrived any more. This is the
    /// time the listener takes for what the kernel held for it, which includes waiting for a processor.
    pub(crate) last_frame: Sorted,
}

pub(crate) fn measure(frame_bytes: usize) -> Cuts {
    let switch = Switch::start().unwrap();
    let (source, source_end) = switch.attach("source").unwrap();
    let (target, _) = switch.attach("target").unwrap();
    let flood = Part::Send {
        frames: u64::MAX,
        frame_bytes,
    };
    let _sender = Peer::start(flood, Wire::Stream, vec![source_end]);
    let rounds = (0..ROUNDS).map(|round| one_cut(&switch, source, target, PHASE * round));
    let (call, last_frame) = rounds.unzip();
    Cuts {
        call: Sorted::of(call),
        last_frame: Sorted::of(last_frame),
    }
}

fn one_cut(switch: &Switch, source: Port, target: Port, phase: Duration) -> (f64, f64) {
    let end = switch.reattach(target).unwrap();
    let listener = Peer::start(Part::Receive, Wire::Stream, vec![end]);
    let before = counters(switch, target).sent.frames;
    switch.heal(source, target).unwrap();
    wait_until(switch, target, |now| now.sent.frames >= before + FLOWING);
    // The switch has just answered: each round cuts another moment of what it does next.
    std::thread::sleep(phase);
    let called = peer::now();
    switch.cut(source, target).unwrap();
    let returned = peer::now();
    wait_until(switch, target, |now| now.queued.frames == 0);
    switch.detach(target).unwrap();
    let last = Duration::from_nanos(listener.report()["last"].as_u64().unwrap());
    assert!(
        last + STILL_FLOWING > called,
        "nothing has flowed for long when the link was cut"
    );
    let microseconds = |until: Duration| until.saturating_sub(called).as_secs_f64() * 1e6;
    (microseconds(returned), microseconds(last))
}

fn counters(switch: &Switch, port: Port) -> PortCounters {
    switch.counters().unwrap().port(port).unwrap().clone()
}

fn wait_until(switch: &Switch, port: Port, condition: impl Fn(&PortCounters) -> bool) {
    let start = Instant::now();
    while !condition(&counters(switch, port)) {
        assert!(
            start.elapsed() < FLOW_ALLOWED,
            "not in time: {:?}",
            counters(switch, port)
        );
        std::thread::sleep(Duration::from_micros(200));
    }
}
