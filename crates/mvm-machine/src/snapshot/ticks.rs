//! How fast this host's processor counts time. An emulated guest sees that count as its own, and measures its rate
//! once, when it boots; a guest saved here would keep wrong time where the rate is another.
//!
//! Reading the counter is an intrinsic that the compiler calls unsafe; this module is the one place for it.
#![allow(unsafe_code)]

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

/// The two readings must lie this far apart.
const APART: Duration = Duration::from_millis(10);
/// Of 1000 parts: what the measurement may be off, which is less than clocks of computers are.
const TOLERANCE_PARTS: u64 = 2;

/// The rate in kHz, measured once per process; `None` where processors have no such counter.
pub(super) fn khz() -> Option<u64> {
    static RATE: OnceLock<Option<u64>> = OnceLock::new();
    *RATE.get_or_init(measure)
}

/// Whether two measured rates are one.
pub(super) fn agree(one: u64, other: u64) -> bool {
    one.abs_diff(other) <= one / 1000 * TOLERANCE_PARTS
}

fn measure() -> Option<u64> {
    let (first, begin) = reading()?;
    while begin.elapsed() < APART {
        std::hint::spin_loop();
    }
    let (last, end) = reading()?;
    let microseconds = u64::try_from((end - begin).as_micros()).ok()?;
    last.checked_sub(first)?
        .saturating_mul(1000)
        .checked_div(microseconds)
}

/// The counter and the time, read closely together: of a few tries the closest.
fn reading() -> Option<(u64, Instant)> {
    let tries = (0..5).filter_map(|_| {
        let before = Instant::now();
        let count = counter()?;
        let after = Instant::now();
        Some((after - before, count, before + (after - before) / 2))
    });
    let (_, count, at) = tries.min_by_key(|(distance, ..)| *distance)?;
    Some((count, at))
}

#[cfg(target_arch = "x86_64")]
fn counter() -> Option<u64> {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets programs use it.
    Some(unsafe { std::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree_and_other_rates_do_not() {
        if let (Some(one), Some(other)) = (measure(), measure()) {
            assert!(agree(one, other), "{one} and {other} kHz");
        }
        assert!(agree(2_000_000, 2_001_000));
        assert!(!agree(2_000_000, 2_100_000));
    }
}
