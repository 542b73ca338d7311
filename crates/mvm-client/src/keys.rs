//! Idempotency keys that no two clients make alike.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::rand::{GetRandomFlags, getrandom};

/// Makes the keys of one client: 128 random bits, and a count.
#[derive(Debug)]
pub(crate) struct KeyMaker {
    prefix: u128,
    made: AtomicU64,
}

impl KeyMaker {
    /// Draws the client's bits.
    pub(crate) fn new() -> io::Result<Self> {
        let mut bytes = [0; 16];
        // So few bytes come whole, or not at all.
        getrandom(&mut bytes, GetRandomFlags::empty())?;
        Ok(Self {
            prefix: u128::from_le_bytes(bytes),
            made: AtomicU64::new(0),
        })
    }

    /// The next key.
    pub(crate) fn next(&self) -> String {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        format!("{:032x}-{number}", self.prefix)
    }
}
