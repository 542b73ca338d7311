//! A gigabyte of output in bounded memory. Alone in its file, because it measures its own process.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::time::Instant;

use mvm_exec::{Event, Job, Outcome, Spec, Stream};
use support::isolations;

const GIGABYTE: u64 = 1 << 30;
/// The default limits of both streams, the buffers, and what the runtime takes.
const GROWTH_KIB_MAX: u64 = 8 << 10;

/// The most memory this process ever had, in KiB.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_gigabyte_takes_little_memory() {
    for isolation in isolations() {
        let before = peak_kib();
        let begin = Instant::now();
        let script = format!("head -c {GIGABYTE} /dev/zero; echo end; echo fine >&2");
        let spec = Spec::script(script);
        let limits = spec.output;
        let mut job = Job::start(&isolation, spec).unwrap();
        let (mut kept, mut omitted, mut stderr, mut tail) = (0, 0, Vec::new(), Vec::new());
        loop {
            match job.next_event().await {
                Event::Started { .. } => {}
                Event::Output(output) if output.stream == Stream::Stdout => {
                    kept += output.bytes.len();
                    tail = output.bytes;
                }
                Event::Output(output) => stderr.extend(output.bytes),
                Event::Omitted { stream, bytes } => {
                    assert_eq!((stream, kept), (Stream::Stdout, limits.first_bytes));
                    omitted += bytes;
                }
                Event::Ended(outcome) => break assert_eq!(outcome, Outcome::Exited(0)),
            }
        }
        assert_eq!(kept, limits.first_bytes + limits.last_bytes);
        assert_eq!(kept as u64 + omitted, GIGABYTE + 4);
        assert!(tail.ends_with(b"\0end\n"));
        assert_eq!(stderr, b"fine\n");
        let growth = peak_kib() - before;
        assert!(growth < GROWTH_KIB_MAX, "{growth} KiB");
        println!(
            "{:?}: {growth} KiB more, {:?}",
            isolation.kind(),
            begin.elapsed()
        );
    }
}

#[tokio::test]
async fn a_byte_at_a_time_costs_no_chunk_each() {
    let before = peak_kib();
    let spec = Spec::script("dd if=/dev/zero bs=1 count=200000 2> /dev/null");
    let mut job = Job::start(&isolations()[0], spec).unwrap();
    // Nobody reads until the end is there.
    let pid = job.supervisor_id();
    support::wait_until("the job is over", || !support::exists(pid)).await;
    assert_eq!(job.wait().await, Outcome::Exited(0));
    assert!(peak_kib() - before < GROWTH_KIB_MAX);
}
