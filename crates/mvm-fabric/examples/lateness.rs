//! Prints how late the switch delivers frames of a delayed link.
//!
//! `cargo run --release -p mvm-fabric --example lateness`. One frame at a time, so each wakes the thread anew; the
//! time to and from the switch is part of it.

// Printing is its purpose.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use mvm_fabric::{Delay, Impairment, Latency, Scope, Switch};

const DELAY: Duration = Duration::from_millis(5);
const FRAMES: usize = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let switch = Switch::start()?;
    let (_, source) = switch.attach("source")?;
    let (_, target) = switch.attach("target")?;
    let mut source = UnixStream::from(source);
    let mut target = UnixStream::from(target);
    let delay = Delay::constant(Latency::new(DELAY)?);
    let impairment = Impairment {
        delay,
        ..Impairment::NONE
    };
    switch.impair(Scope::All, impairment)?;
    let mut frame = [0; 64];
    frame[3] = 60;
    let mut late = Vec::with_capacity(FRAMES);
    for _ in 0..FRAMES {
        let start = Instant::now();
        source.write_all(&frame)?;
        target.read_exact(&mut frame)?;
        late.push(start.elapsed().saturating_sub(DELAY));
    }
    late.sort_unstable();
    println!(
        "late by {:?} in the median, {:?} for 99 of 100, {:?} at most",
        late[FRAMES / 2],
        late[FRAMES * 99 / 100],
        late[FRAMES - 1]
    );
    Ok(())
}
