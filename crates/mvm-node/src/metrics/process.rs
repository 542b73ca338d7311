//! What the kernel tells of this process, under the names that Prometheus's client libraries agree on.

use std::{fs, io};

use prometheus_client::{
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use rustix::process::{Resource, getrlimit};

/// Ticks of a second in `/proc`: part of the kernel's interface, whatever its own clock does.
const USER_HZ: f64 = 100.0;

/// Looks, and registers what could be seen.
pub(super) fn registry() -> Registry {
    let mut registry = Registry::default();
    if let Some(stat) = fs::read_to_string("/proc/self/stat")
        .ok()
        .and_then(|text| Stat::parse(&text))
    {
        stat.register(&mut registry);
    }
    if let Some(kib) = fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|text| number_after(&text, "VmRSS:"))
    {
        registry.register(
            "process_resident_memory_bytes",
            "Memory in use",
            ConstGauge::new(kib.saturating_mul(1_024)),
        );
    }
    if let Ok(open) = open_fds() {
        registry.register(
            "process_open_fds",
            "Open file descriptors",
            ConstGauge::new(open),
        );
    }
    if let Some(limit) = getrlimit(Resource::Nofile).current {
        registry.register(
            "process_max_fds",
            "File descriptors that may be open",
            ConstGauge::new(limit),
        );
    }
    registry
}

/// Counts them, without the one that it takes to count.
fn open_fds() -> io::Result<u64> {
    let open = fs::read_dir("/proc/self/fd")?.count() as u64;
    Ok(open.saturating_sub(1))
}

/// What is picked from `/proc/self/stat`, see proc(5).
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
}

impl Stat {
    /// The second field is the program's name in parentheses, which may contain anything.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        // Fields count from 1 in proc(5), and the first one here is the third.
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)?.saturating_add(field(15)?),
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
        })
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "process_cpu_seconds",
            "Processor time used by this process, jobs not included",
            ConstCounter::new(seconds(self.cpu_ticks)),
        );
        registry.register(
            "process_threads",
            "Threads of this process",
            ConstGauge::new(self.threads),
        );
        registry.register(
            "process_virtual_memory_bytes",
            "Size of the address space",
            ConstGauge::new(self.virtual_bytes),
        );
        if let Some(boot) = boot_time() {
            #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
            registry.register(
                "process_start_time_seconds",
                "When this process was started, since the Unix epoch",
                ConstGauge::new(boot as f64 + seconds(self.start_ticks)),
            );
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "2^52 ticks are a million years")]
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / USER_HZ
}

/// When the machine was booted, in seconds since the Unix epoch.
fn boot_time() -> Option<u64> {
    number_after(&fs::read_to_string("/proc/stat").ok()?, "btime ")
}

/// The number on the line that begins so.
fn number_after(text: &str, beginning: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(beginning))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_programs_may_contain_anything() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 0 0 0 30 12 0 0 20 0 4 0 500 8192 3 999 1";
        let expected = Stat {
            cpu_ticks: 42,
            threads: 4,
            start_ticks: 500,
            virtual_bytes: 8192,
        };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("7 (short) S 1"), None);
    }

    #[test]
    fn numbers_are_found_by_the_beginning_of_their_line() {
        let text = "VmSize:\t 9 kB\nVmRSS:\t    512 kB\n";
        assert_eq!(number_after(text, "VmRSS:"), Some(512));
        assert_eq!(number_after(text, "VmSwap:"), None);
    }
}
