//! How the switch forwards, beside its peer `vde_switch` (Debian's `vde2`), which NixOS's tests use.
//!
//! Prints one line of JSON per measurement; `cargo xtask bench fabric` repeats it and prints the medians. The host
//! may be shared, so what counts are ratios of numbers taken one right after the other.
//!
//! # Method
//!
//! - Machines are processes of their own, as they are in a lab: this program, started again (`peer`), with the
//!   machines' ends of the ports in its hands. Both switches get the same ones. They differ only in how a
//!   frame goes through the socket (`port`), which is as QEMU does it: one write per frame to either; from our
//!   stream, with a length in front of each frame, a read takes what is there; from `vde_switch`'s datagrams
//!   it takes one frame.
//! - Before anything is timed both stations of each pair have spoken, so no frame is flooded.
//! - A flood is a fixed number of frames. Writes block, so the kernel's buffers pace the sender. The receiver
//!   reads as fast as it can until it meets the end mark, which is sent behind the flood until somebody sees
//!   it. The rate is the frames *received*, over the time from just before the first write to the arrival
//!   of the last of them; a frame lost under way counts in the share lost and nowhere else.
//! - Where there is a goal the switches take turns, and each number is the median of its turns; a ratio is that of
//!   two floods next to each other.
//! - A switch's processor time is what the kernel's scheduler has accounted to our switch's thread, or to
//!   `vde_switch`'s process, from before the flood until its end was seen; per frame received, too.
//! - A round trip is a frame to a machine that answers at once, so it goes through the switch twice. Through a
//!   bare pair of sockets it shows what the kernel's wake-ups alone cost.
//! - A captured flood goes through our switch while each frame is recorded twice, as it comes and as it goes, in a
//!   packet capture in the folder for temporary files. Its writer is one more thread that wants a processor.
//! - A cut is timed from just before the call until the receiver got the last frame that still passed, frames
//!   included which the kernel had taken already (`cut`).
//!
//! With fewer than three free processors, sender, switch and receiver share them, and so a number holds what the
//! scheduler made of it too: this is how the lab runs, and the same for both switches.

// The lines are this program's output, and a measurement that cannot be made ends it.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod cut;
mod flood;
mod peer;
mod port;
mod round_trip;
mod sorted;
mod switches;

use std::process::ExitCode;

use serde_json::json;

use flood::{Flood, Flow};
use port::Wire;
use sorted::Sorted;
use switches::{Captured, Contender, Ours, Vde};

/// What a network card pads small frames to, check sum included.
const SMALL: usize = 64;
/// The largest frame of the usual MTU.
const FULL: usize = 1514;
/// A tenth of a second for the faster switch, which the first moments of the peers are a small part of.
const FRAMES: u64 = 100_000;
/// How often the switches take turns at what has a goal: strangers keep a shared host busy for longer than a turn.
const TURNS: usize = 7;

fn main() -> ExitCode {
    if let Some(part) = peer::Part::of_this_process() {
        peer::play(part);
        return ExitCode::SUCCESS;
    }
    if switches::vde_switch().is_none() {
        eprintln!(
            "error: could not measure: the peer, vde_switch, is in no folder of PATH\n\
             hint: as root: apt-get install --no-install-recommends vde2"
        );
        return ExitCode::FAILURE;
    }
    forwarding(SMALL, 3.0);
    forwarding(FULL, 2.5);
    captured(SMALL);
    captured(FULL);
    round_trips();
    cuts(SMALL);
    cuts(FULL);
    for idle in [1, 10, 50] {
        beside_idle_ports(idle);
    }
    for active in [10, 50] {
        between_active_ports(active);
    }
    ExitCode::SUCCESS
}

fn forwarding(frame_bytes: usize, ratio_min: f64) {
    let flow = Flow {
        pairs: 1,
        idle: 0,
        frames: FRAMES,
        frame_bytes,
    };
    let turn = |_| (flood::measure::<Ours>(flow), flood::measure::<Vde>(flow));
    let turns: Vec<(Flood, Flood)> = (0..TURNS).map(turn).collect();
    let (ours, vde): (Vec<Flood>, Vec<Flood>) = turns.iter().copied().unzip();
    for (floods, who) in [(ours, Ours::NAME), (vde, Vde::NAME)] {
        let what = format!("{frame_bytes} B, {who}");
        let median = |of: fn(&Flood) -> f64| Sorted::of(floods.iter().map(of).collect()).median();
        print(
            &format!("{what}: frames received"),
            RATE,
            median(Flood::kilo_rate),
        );
        print(&format!("{what}: lost"), "%", median(Flood::lost_percent));
        print(
            &format!("{what}: switch's CPU per frame"),
            "ns",
            median(Flood::cpu_nanos),
        );
    }
    let ratio =
        |of: fn(&(Flood, Flood)) -> f64| Sorted::of(turns.iter().map(of).collect()).median();
    print_goal(
        &format!("{frame_bytes} B: frames received, ours to vde_switch"),
        "x",
        ratio(|(ours, vde)| ours.kilo_rate() / vde.kilo_rate()),
        Goal::AtLeast(ratio_min),
    );
    print(
        &format!("{frame_bytes} B: switch's CPU per frame, vde_switch to ours"),
        "x",
        ratio(|(ours, vde)| vde.cpu_nanos() / ours.cpu_nanos()),
    );
}

fn captured(frame_bytes: usize) {
    let flow = Flow {
        pairs: 1,
        idle: 0,
        frames: FRAMES,
        frame_bytes,
    };
    let (flood, switch) = flood::measure_keeping::<Captured>(flow);
    let summary = switch.finish();
    let what = format!("{frame_bytes} B, {}", Captured::NAME);
    print(&format!("{what}: frames received"), RATE, flood.kilo_rate());
    print(&format!("{what}: lost"), "%", flood.lost_percent());
    print(
        &format!("{what}: switch's CPU per frame"),
        "ns",
        flood.cpu_nanos(),
    );
    let records = summary.received + summary.sent + summary.dropped + summary.lost;
    print(
        &format!("{what}: records lost"),
        "%",
        summary.lost as f64 / records as f64 * 100.0,
    );
}

fn round_trips() {
    let [a, b] = port::direct_pair();
    let bare = round_trip::between(Wire::Stream, a, b);
    let ours = round_trip::through::<Ours>();
    let vde = round_trip::through::<Vde>();
    for (times, way) in [(bare, "bare sockets"), (ours, Ours::NAME), (vde, Vde::NAME)] {
        let what = format!("round trip, {way}");
        print(&format!("{what}: median"), "us", times.median_us);
        print(&format!("{what}: 99 of 100"), "us", times.p99_us);
    }
}

fn cuts(frame_bytes: usize) {
    let cuts = cut::measure(frame_bytes);
    let what = format!("cut under {frame_bytes} B");
    print(
        &format!("{what}, the call: worst"),
        "us",
        cuts.call.greatest(),
    );
    print_goal(
        &format!("{what}, call to last frame: median"),
        "us",
        cuts.last_frame.median(),
        Goal::AtMost(1000.0),
    );
    print(
        &format!("{what}, call to last frame: 9 of 10"),
        "us",
        cuts.last_frame.percentile(90),
    );
    print(
        &format!("{what}, call to last frame: worst"),
        "us",
        cuts.last_frame.greatest(),
    );
}

fn beside_idle_ports(idle: usize) {
    let flow = Flow {
        pairs: 1,
        idle,
        frames: FRAMES,
        frame_bytes: SMALL,
    };
    both_rates(flow, &format!("64 B, +{idle} idle ports"));
}

fn between_active_ports(active: usize) {
    let flow = Flow {
        pairs: active / 2,
        idle: 0,
        frames: FRAMES,
        frame_bytes: SMALL,
    };
    both_rates(flow, &format!("64 B, {active} active ports"));
}

fn both_rates(flow: Flow, what: &str) {
    let rates = [
        (flood::measure::<Ours>(flow), Ours::NAME),
        (flood::measure::<Vde>(flow), Vde::NAME),
    ];
    for (flood, who) in rates {
        print(
            &format!("{what}, {who}: frames received"),
            RATE,
            flood.kilo_rate(),
        );
        print(&format!("{what}, {who}: lost"), "%", flood.lost_percent());
    }
}

/// The unit of rates.
const RATE: &str = "k/s";

/// What a number is judged by.
enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

fn print(name: &str, unit: &str, value: f64) {
    println!("{}", json!({ "name": name, "unit": unit, "value": value }));
}

fn print_goal(name: &str, unit: &str, value: f64, goal: Goal) {
    let (bound, goal) = match goal {
        Goal::AtMost(goal) => ("at_most", goal),
        Goal::AtLeast(goal) => ("at_least", goal),
    };
    println!(
        "{}",
        json!({ "name": name, "unit": unit, "value": value, bound: goal })
    );
}
