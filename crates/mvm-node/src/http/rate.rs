//! How many requests an address may send: a token bucket each, kept as the time at which it is full again (GCRA).

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Addresses that are told apart, about a mebibyte of them. When more send at once, the rest share one bucket.
const ADDRESSES_MAX: usize = 16_384;

/// A full bucket lasts so long at the full rate.
const BURST: Duration = Duration::from_secs(2);

/// Full buckets are forgotten at most so often, since that looks at all of them.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);

/// Limits the requests of each address.
#[derive(Debug)]
pub struct RateLimiter {
    /// Between two requests at the full rate.
    interval: Duration,
    buckets: Mutex<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    full_at: HashMap<IpAddr, Instant>,
    shared_full_at: Instant,
    swept_at: Instant,
}

impl RateLimiter {
    /// Allows so many requests per second and address, and bursts of twice as many; nothing for 0, which is no limit.
    pub fn new(per_second: u32) -> Option<Self> {
        let interval = Duration::from_secs(1).checked_div(per_second)?;
        let now = Instant::now();
        let buckets = Buckets {
            full_at: HashMap::new(),
            shared_full_at: now,
            swept_at: now,
        };
        Some(Self {
            interval,
            buckets: Mutex::new(buckets),
        })
    }

    /// Takes one request from the bucket of an address, or tells how long to wait. The host itself is not limited.
    pub(super) fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let address = address.to_canonical();
        if address.is_loopback() {
            return Ok(());
        }
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = buckets.of(network(address), now);
        let after = (*full_at).max(now) + self.interval;
        match after.duration_since(now).checked_sub(BURST) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                *full_at = after;
                Ok(())
            }
        }
    }
}

impl Buckets {
    fn of(&mut self, address: IpAddr, now: Instant) -> &mut Instant {
        let is_full = self.full_at.len() >= ADDRESSES_MAX;
        if is_full && now.duration_since(self.swept_at) >= SWEEP_PERIOD {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.swept_at = now;
        }
        if self.full_at.len() < ADDRESSES_MAX || self.full_at.contains_key(&address) {
            self.full_at.entry(address).or_insert(now)
        } else {
            &mut self.shared_full_at
        }
    }
}

/// Who has one IPv6 address has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into()
    }

    #[test]
    fn a_burst_then_the_rate_per_address() {
        let limiter = RateLimiter::new(10).unwrap();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let taken = (0..100).filter(|_| limiter.take(address(1), at(0)).is_ok());
        assert_eq!(taken.count(), 20);
        let wait = limiter.take(address(1), at(0)).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert!(limiter.take(address(2), at(0)).is_ok(), "another address");
        assert!(limiter.take(address(1), at(99)).is_err());
        assert!(limiter.take(address(1), at(100)).is_ok());
        assert!(limiter.take(address(1), at(100)).is_err());
        let taken = (0..100).filter(|_| limiter.take(address(1), at(60_000)).is_ok());
        assert_eq!(taken.count(), 20, "a bucket holds no more than it does");
    }

    #[test]
    fn the_host_is_unlimited_and_a_network_is_one_client() {
        let limiter = RateLimiter::new(1).unwrap();
        let now = Instant::now();
        let allowed = |text: &str| limiter.take(text.parse().unwrap(), now).is_ok();
        assert!(
            (0..100).all(|_| allowed("127.0.0.1") && allowed("::1") && allowed("::ffff:127.0.0.1"))
        );
        assert!(allowed("2001:db8::1") && allowed("2001:db8::2") && !allowed("2001:db8::3"));
        assert!(allowed("2001:db8:0:1::1"));
        assert!(allowed("::ffff:10.0.0.1") && allowed("10.0.0.1") && !allowed("10.0.0.1"));
        assert!(RateLimiter::new(0).is_none());
    }

    #[test]
    fn memory_is_bounded_and_comes_back() {
        let limiter = RateLimiter::new(1).unwrap();
        let start = Instant::now();
        let flood = 2 * u32::try_from(ADDRESSES_MAX).unwrap();
        let allowed = (0..flood).filter(|number| limiter.take(address(*number), start).is_ok());
        assert_eq!(
            allowed.count(),
            ADDRESSES_MAX + 2,
            "the rest shares a bucket"
        );
        let count = || limiter.buckets.lock().unwrap().full_at.len();
        assert_eq!(count(), ADDRESSES_MAX);
        let later = start + Duration::from_secs(60);
        assert!(limiter.take(address(flood), later).is_ok());
        assert_eq!(count(), 1, "full buckets are forgotten");
    }
}
