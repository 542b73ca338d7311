//! Becoming somebody: host name, hosts file, network, clock, randomness.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::time::SystemTime;

use rustix::time::{ClockId, Timespec, clock_settime};

use super::network;
use super::sys;
use super::work::failure;
use crate::protocol::{Failure, Identity};

/// Makes the machine the one `identity` says.
pub(super) fn assume(identity: &Identity, entropy: &[u8]) -> Result<(), Failure> {
    // First, so that nothing later draws from the randomness a sibling has too.
    step("reseed the kernel's random pool", reseed(entropy))?;
    if let Some(wall_clock) = identity.wall_clock {
        step("set the clock", set_clock(wall_clock))?;
    }
    step(
        "set the host name",
        rustix::system::sethostname(identity.hostname.as_bytes()).map_err(Into::into),
    )?;
    step(
        "write /etc/hostname",
        fs::write("/etc/hostname", format!("{}\n", identity.hostname)),
    )?;
    step(
        "write /etc/hosts",
        fs::write("/etc/hosts", hosts_file(&identity.hosts)),
    )?;
    step("bring the loopback up", network::bring_up_loopback())?;
    for interface in &identity.interfaces {
        step(
            &format!("set up the network card {:02x?}", interface.mac),
            network::set_up(interface),
        )?;
    }
    Ok(())
}

fn step(operation: &str, result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| failure(operation, &error))
}

fn reseed(entropy: &[u8]) -> io::Result<()> {
    if entropy.is_empty() {
        return Ok(());
    }
    sys::add_entropy(
        &OpenOptions::new().write(true).open("/dev/urandom")?,
        entropy,
    )
}

fn set_clock(wall_clock: SystemTime) -> io::Result<()> {
    let since_epoch = wall_clock
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(io::Error::other)?;
    let seconds = i64::try_from(since_epoch.as_secs()).map_err(io::Error::other)?;
    clock_settime(
        ClockId::Realtime,
        Timespec {
            tv_sec: seconds,
            tv_nsec: i64::from(since_epoch.subsec_nanos()),
        },
    )?;
    Ok(())
}

fn hosts_file(hosts: &[(IpAddr, String)]) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost\n");
    for (address, name) in hosts {
        text.push_str(&format!("{address} {name}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_always_among_the_hosts() {
        let hosts = [("192.168.1.1".parse().unwrap(), "node1".to_owned())];
        assert_eq!(
            hosts_file(&hosts),
            "127.0.0.1 localhost\n::1 localhost\n192.168.1.1 node1\n"
        );
    }
}
