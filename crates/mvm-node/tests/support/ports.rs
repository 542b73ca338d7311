//! Ports for nodes that are started, killed and started again.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU32, Ordering},
};

/// Linux gives connections ports from 32,768 upward: one of those could have the port of a node that is down.
const FIRST: u32 = 10_000;
const COUNT: u32 = 20_000;
/// So many ports lie between those of two processes of this host that follow one another.
const BETWEEN: u32 = 64;

/// Ports of loopback on which nobody listens now, and which nobody else in this process is given.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(BETWEEN);
    let next = || {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + first.wrapping_add(given) % COUNT;
        u16::try_from(port).unwrap()
    };
    std::iter::repeat_with(next)
        .filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .take(count)
        .collect()
}
