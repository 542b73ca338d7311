//! Prints how many frames per second the switch takes from one machine to another.
//!
//! `cargo run --release -p mvm-fabric --example forward`. "single" writes one frame per system call, as
//! QEMU does; "batch" as many as fit 64 KiB, which shows the cost of the switch itself.

// Printing is its purpose.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use mvm_fabric::Switch;

const TIME: Duration = Duration::from_secs(2);

/// Station 1 to station 2.
fn packed_frame(frame_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; 4 + frame_bytes];
    bytes[..4].copy_from_slice(&(frame_bytes as u32).to_be_bytes());
    bytes[4..16].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1]);
    bytes
}

fn measure(frame_bytes: usize, frames_per_write: usize) -> Result<(), Box<dyn Error>> {
    let switch = Switch::start()?;
    let (_, source) = switch.attach("source")?;
    let (target_port, target) = switch.attach("target")?;
    let mut source = UnixStream::from(source);
    let mut target = UnixStream::from(target);
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 256 * 1024];
        while target.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {}
    });
    let batch = packed_frame(frame_bytes).repeat(frames_per_write);
    let start = Instant::now();
    while start.elapsed() < TIME {
        source.write_all(&batch)?;
    }
    let elapsed = start.elapsed();
    let counters = switch.counters()?;
    let target = counters
        .port(target_port)
        .ok_or("the port has no counters")?;
    let rate = target.sent.frames as f64 / elapsed.as_secs_f64();
    let lost = target.dropped_to.total();
    println!(
        "{frame_bytes:>5} B  {frames_per_write:>4} per write  {rate:>12.0} frames/s  {lost} lost"
    );
    drop(switch);
    reader.join().map_err(|_| "the reader panicked")?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    for frame_bytes in [64, 1514] {
        measure(frame_bytes, 1)?;
        measure(frame_bytes, 64 * 1024 / frame_bytes)?;
    }
    Ok(())
}
