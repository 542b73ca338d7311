//! Becoming somebody: randomness, host name, machine id, hosts file, network, file systems. And the clock.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_settime};

use super::at_hand::{AtHand, LOCALHOST_LINES, OpenFile};
use super::work::{failure, refusal};
use super::{layers, mounts, network, sys};
use crate::protocol::{Failure, Identity, Interface};

/// Makes the machine the one `identity` says; with what is at hand if that is current.
pub(super) fn assume(
    identity: &Identity,
    entropy: &[u8],
    at_hand: Option<&AtHand>,
) -> Result<(), Failure> {
    if let Some(id) = identity
        .machine_id
        .as_deref()
        .filter(|id| !is_machine_id(id))
    {
        return Err(refusal(
            "write /etc/machine-id",
            format!("{id:?} is not 32 lower-case hexadecimal digits"),
        ));
    }
    // First, so that nothing later draws from the randomness a sibling has too.
    reseed(entropy, at_hand)?;
    // The files below are the machine's own from here on.
    if let Some(planned) = &identity.layers {
        layers::lay(planned)?;
    }
    let files = at_hand.and_then(|at_hand| at_hand.files.as_ref());
    step(
        "set the host name",
        rustix::system::sethostname(identity.hostname.as_bytes()).map_err(Into::into),
    )?;
    step(
        "write /etc/hostname",
        write(
            "/etc/hostname",
            files.map(|files| &files.hostname),
            &format!("{}\n", identity.hostname),
        ),
    )?;
    if let Some(id) = &identity.machine_id {
        step(
            "write /etc/machine-id",
            write(
                "/etc/machine-id",
                files.map(|files| &files.machine_id),
                &format!("{id}\n"),
            ),
        )?;
    }
    step(
        "write /etc/hosts",
        write(
            "/etc/hosts",
            files.map(|files| &files.hosts),
            &hosts_file(&identity.hosts),
        ),
    )?;
    if !identity.name_servers.is_empty() {
        step(
            "write /etc/resolv.conf",
            fs::write("/etc/resolv.conf", resolver_file(&identity.name_servers)),
        )?;
    }
    set_up_network(&identity.interfaces, at_hand)?;
    for mount in &identity.mounts {
        step(
            &format!("mount {}", mount.target),
            mounts::mount_planned(mount),
        )?;
    }
    Ok(())
}

/// Writes a file anew; through `open` if it is as it was opened.
fn write(path: &str, open: Option<&OpenFile>, content: &str) -> io::Result<()> {
    match open {
        Some(open) => open.write_over(content),
        None => fs::write(path, content),
    }
}

fn set_up_network(interfaces: &[Interface], at_hand: Option<&AtHand>) -> Result<(), Failure> {
    let set_up = at_hand.is_some_and(|at_hand| {
        network::set_up_prepared(&at_hand.netlink, &at_hand.cards, interfaces).is_ok()
    });
    if set_up {
        return Ok(());
    }
    // What went wrong there goes wrong here once more, or is mended.
    step("bring the loopback up", network::bring_up_loopback())?;
    for interface in interfaces {
        step(
            &format!("set up the network card {:02x?}", interface.mac),
            network::set_up(interface),
        )?;
    }
    Ok(())
}

/// Gives the kernel fresh randomness, which it uses at once. As the daemon has one thread, nothing is
/// started before that is done.
pub(super) fn reseed(entropy: &[u8], at_hand: Option<&AtHand>) -> Result<(), Failure> {
    let operation = "reseed the kernel's random pool";
    if entropy.is_empty() {
        return Err(refusal(operation, "the host sent no randomness"));
    }
    let added = match at_hand {
        Some(at_hand) => sys::add_entropy(&at_hand.random, entropy),
        None => OpenOptions::new()
            .write(true)
            .open("/dev/urandom")
            .and_then(|pool| sys::add_entropy(&pool, entropy)),
    };
    step(operation, added)
}

/// Sets the wall clock.
pub(super) fn set_clock(since_epoch: Duration) -> Result<(), Failure> {
    step("set the clock", set_realtime(since_epoch))
}

pub(super) fn step<T>(operation: &str, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| failure(operation, &error))
}

fn set_realtime(since_epoch: Duration) -> io::Result<()> {
    let time = Timespec {
        tv_sec: i64::try_from(since_epoch.as_secs()).map_err(io::Error::other)?,
        tv_nsec: i64::from(since_epoch.subsec_nanos()),
    };
    Ok(clock_settime(ClockId::Realtime, time)?)
}

fn is_machine_id(text: &str) -> bool {
    text.len() == 32
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn hosts_file(hosts: &[(IpAddr, String)]) -> String {
    let mut text = String::from(LOCALHOST_LINES);
    for (address, name) in hosts {
        text.push_str(&format!("{address} {name}\n"));
    }
    text
}

fn resolver_file(name_servers: &[IpAddr]) -> String {
    name_servers
        .iter()
        .map(|address| format!("nameserver {address}\n"))
        .collect()
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

    #[test]
    fn each_name_server_has_its_line() {
        let servers = ["10.0.2.3".parse().unwrap(), "fec0::3".parse().unwrap()];
        assert_eq!(
            resolver_file(&servers),
            "nameserver 10.0.2.3\nnameserver fec0::3\n"
        );
    }

    #[test]
    fn a_machine_id_is_32_lower_case_hexadecimal_digits() {
        assert!(is_machine_id("0123456789abcdef0123456789abcdef"));
        for text in [
            "",
            "0123456789abcdef0123456789abcde",
            "0123456789abcdef0123456789abcdef0",
            "0123456789ABCDEF0123456789ABCDEF",
            "0123456789abcdef0123456789abcdeg",
            "01234567-89ab-cdef-0123-456789abc",
            "0123456789abcdef0123456789abcde\n",
            "0123456789abcdef0123456789abcd\u{e9}",
        ] {
            assert!(!is_machine_id(text), "{text:?}");
        }
    }
}
