//! Randomness.

/// Bits that nobody can foretell.
pub(crate) fn entropy() -> u64 {
    let mut bytes = [0; 8];
    // Fails for no reason that a running system has: eight bytes are never cut short, and the pool is filled at boot.
    let drawn = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(drawn, Ok(bytes.len()), "the kernel gives random numbers");
    u64::from_le_bytes(bytes)
}
