//! Network cards, set up over rtnetlink: names, addresses, up, and default routes.
//!
//! A few messages of one kernel interface, written by hand: a netlink library would weigh more than the
//! rest of the daemon. Source: rtnetlink(7), netlink(7), linux/if_addr.h, linux/rtnetlink.h.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

use super::{announce, init};
use crate::boot::GATEWAY_MAC;
use crate::protocol::Interface;

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const ERROR: u16 = 2;
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;
const LINK_HARDWARE_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ROUTE_CARD: u16 = 4;
const ROUTE_GATEWAY: u16 = 5;
const MAIN_TABLE: u8 = 254;
/// Made by an administrator, neither by the kernel nor by a routing daemon.
const STATIC: u8 = 4;
const UNICAST: u8 = 1;
const UP: u32 = 1;
/// The lab gives every address once: waiting for duplicates to show would only cost a second.
const NO_DUPLICATE_DETECTION: u8 = 0x02;
/// A new name for an interface has at most this many bytes (IFNAMSIZ less its terminator).
const NAME_BYTES_MAX: usize = 15;
const HEADER_BYTES: usize = 16;
/// A value of `addr_gen_mode`: no link-local address is made (ip-sysctl).
const GENERATE_NO_ADDRESS: &str = "1";
const LINK_LOCAL_PREFIX: u8 = 64;

pub(super) fn bring_up_loopback() -> io::Result<()> {
    let flags = fs::read_to_string("/sys/class/net/lo/flags")?;
    let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16);
    if flags.is_ok_and(|flags| flags & UP != 0) {
        return Ok(());
    }
    set_link(&open()?, index_of("lo")?, Link::Up)
}

/// Brings all cards up under the names that most identities give them, with no address whatever: `eth0` for the one that
/// leads to the host's network, `eth1` upward for the others. A frozen machine has that behind it, which saves each one
/// resumed from it 80 ms under an emulator.
pub(super) fn prepare_cards() -> io::Result<()> {
    let socket = open()?;
    let found = cards()?
        .into_iter()
        .filter_map(|card| Some((card.name.strip_prefix("eth")?.parse().ok()?, card.mac)))
        .collect();
    for (from, to) in renames(found) {
        set_link(&socket, index_of(&from)?, Link::Name(&to))?;
    }
    for card in cards()?.iter().filter(|card| card.name.starts_with("eth")) {
        // A link-local address of now would follow a hardware address that changes.
        fs::write(setting(&card.name, "addr_gen_mode"), GENERATE_NO_ADDRESS)?;
        if card.mac == GATEWAY_MAC {
            // QEMU plays a router there; what counts is what the identity says.
            fs::write(setting(&card.name, "accept_ra"), "0")?;
        }
        set_link(&socket, index_of(&card.name)?, Link::Up)?;
    }
    Ok(())
}

/// The renames, in order, that number cards anew: the gateway's gets 0, the others 1 upward in the order they had. No name
/// is given while another card has it.
fn renames(mut found: Vec<(u32, [u8; 6])>) -> Vec<(String, String)> {
    let name = |number: u32| format!("eth{number}");
    found.sort_unstable();
    let gateway = found.iter().position(|(_, mac)| *mac == GATEWAY_MAC);
    let gateway = gateway.map(|place| found.remove(place).0);
    let wanted: Vec<(u32, u32)> = found
        .into_iter()
        .map(|(number, _)| number)
        .zip(1..)
        .collect();
    let aside = "gateway".to_owned();
    let moved = gateway.filter(|number| *number != 0);
    // Those that go up make room from the last on, those that go down from the first on.
    let up = wanted.iter().rev().filter(|(number, to)| number < to);
    let down = wanted.iter().filter(|(number, to)| number > to);
    let others = up
        .chain(down)
        .map(|(number, to)| (name(*number), name(*to)));
    moved
        .map(|number| (name(number), aside.clone()))
        .into_iter()
        .chain(others)
        .chain(moved.map(|_| (aside, name(0))))
        .collect()
}

/// Where the kernel keeps a setting of IPv6 on a card.
fn setting(card: &str, name: &str) -> String {
    format!("/proc/sys/net/ipv6/conf/{card}/{name}")
}

/// Finds the card, renames it and changes its hardware address if asked, brings it up, adds its addresses
/// and default routes, and announces the addresses.
pub(super) fn set_up(interface: &Interface) -> io::Result<()> {
    let socket = open()?;
    let card = find(interface)?;
    let index = index_of(&card.name)?;
    let name = interface
        .name
        .as_deref()
        .filter(|wanted| **wanted != card.name);
    let address = interface.address.filter(|wanted| *wanted != card.mac);
    if let Some(name) = name.filter(|name| name.is_empty() || name.len() > NAME_BYTES_MAX) {
        return Err(io::Error::other(format!(
            "{name:?} is no interface name of 1 to {NAME_BYTES_MAX} bytes"
        )));
    }
    if name.is_some() {
        // Only a card that is down can be renamed.
        set_link(&socket, index, Link::Down)?;
    }
    if let Some(address) = address {
        set_hardware_address(&socket, index, address)?;
    }
    if let Some(name) = name {
        set_link(&socket, index, Link::Name(name))?;
    }
    set_link(&socket, index, Link::Up)?;
    for (address, prefix) in &interface.addresses {
        add_address(&socket, index, *address, *prefix)?;
    }
    let mode = fs::read_to_string(setting(name.unwrap_or(&card.name), "addr_gen_mode"));
    if mode.is_ok_and(|mode| mode.trim() == GENERATE_NO_ADDRESS) {
        let address = link_local(address.unwrap_or(card.mac));
        add_address(&socket, index, address.into(), LINK_LOCAL_PREFIX)?;
    }
    for gateway in &interface.gateways {
        add_default_route(&socket, index, *gateway)?;
    }
    if !interface.announce {
        return Ok(());
    }
    let addresses = interface.addresses.iter().map(|(address, _)| *address);
    if let Err(error) = announce::announce(index, address.unwrap_or(card.mac), addresses) {
        // Packet sockets may be a module that is not here. Neighbours who remember another card then take
        // some seconds to find out.
        init::console(&format!("mvm-agent: could not announce addresses: {error}"));
    }
    Ok(())
}

/// Most cards take a new address as they are, some only when they are down.
fn set_hardware_address(socket: &OwnedFd, index: u32, address: [u8; 6]) -> io::Result<()> {
    match set_link(socket, index, Link::HardwareAddress(address)) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            set_link(socket, index, Link::Down)?;
            set_link(socket, index, Link::HardwareAddress(address))
        }
        set => set,
    }
}

/// The link-local address that follows from a hardware address (RFC 4291, appendix A).
fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    Ipv6Addr::from([
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        a ^ 2,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ])
}

struct Card {
    name: String,
    mac: [u8; 6],
}

/// Finds a card by the hardware address it had, or else by the one it was given before.
fn find(interface: &Interface) -> io::Result<Card> {
    let cards = cards()?;
    let with = |mac| cards.iter().position(|card: &Card| card.mac == mac);
    let found = with(interface.mac).or_else(|| interface.address.and_then(with));
    found
        .and_then(|place| cards.into_iter().nth(place))
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("no card has the hardware address {}", spell(interface.mac)),
            )
        })
}

/// The machine's cards; what has no hardware address of six bytes is none.
fn cards() -> io::Result<Vec<Card>> {
    let entries = fs::read_dir("/sys/class/net")?.flatten();
    let card = |entry: fs::DirEntry| {
        let address = fs::read_to_string(entry.path().join("address")).ok()?;
        Some(Card {
            name: entry.file_name().to_string_lossy().into_owned(),
            mac: parse(address.trim())?,
        })
    };
    Ok(entries.filter_map(card).collect())
}

fn parse(address: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = address
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    bytes?.try_into().ok()
}

fn spell(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn index_of(name: &str) -> io::Result<u32> {
    let text = fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))?;
    text.trim().parse().map_err(io::Error::other)
}

fn open() -> io::Result<OwnedFd> {
    // Protocol 0 of this family is NETLINK_ROUTE.
    Ok(socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// What is changed about a card.
enum Link<'a> {
    Up,
    Down,
    Name(&'a str),
    HardwareAddress([u8; 6]),
}

fn set_link(socket: &OwnedFd, index: u32, change: Link<'_>) -> io::Result<()> {
    let (flags, mask) = match change {
        Link::Up => (UP, UP),
        Link::Down => (0, UP),
        Link::Name(_) | Link::HardwareAddress(_) => (0, 0),
    };
    // struct ifinfomsg: family, padding, type, index, flags, change mask
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(u32::to_ne_bytes(flags));
    body.extend(u32::to_ne_bytes(mask));
    match change {
        Link::Up | Link::Down => {}
        Link::Name(name) => {
            append_attribute(&mut body, LINK_NAME, &[name.as_bytes(), &[0]].concat());
        }
        Link::HardwareAddress(address) => {
            append_attribute(&mut body, LINK_HARDWARE_ADDRESS, &address);
        }
    }
    ask(socket, NEW_LINK, 0, &body)
}

fn add_address(socket: &OwnedFd, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
    let (family, bytes) = family(address);
    let flags = match address {
        IpAddr::V4(_) => 0,
        IpAddr::V6(_) => NO_DUPLICATE_DETECTION,
    };
    // struct ifaddrmsg: family, prefix length, flags, scope, index
    let mut body = vec![family, prefix, flags, 0];
    body.extend(index.to_ne_bytes());
    append_attribute(&mut body, ADDRESS_LOCAL, &bytes);
    append_attribute(&mut body, ADDRESS, &bytes);
    ask(socket, NEW_ADDRESS, CREATE | REPLACE, &body)
}

fn add_default_route(socket: &OwnedFd, index: u32, gateway: IpAddr) -> io::Result<()> {
    let (family, bytes) = family(gateway);
    // struct rtmsg: family, lengths of target and source, type of service, table, origin, scope, type, flags
    let mut body = vec![family, 0, 0, 0, MAIN_TABLE, STATIC, 0, UNICAST];
    body.extend(0u32.to_ne_bytes());
    append_attribute(&mut body, ROUTE_GATEWAY, &bytes);
    append_attribute(&mut body, ROUTE_CARD, &index.to_ne_bytes());
    ask(socket, NEW_ROUTE, CREATE | REPLACE, &body)
}

/// An address as the kernel has it: its family and its bytes.
fn family(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (libc::AF_INET as u8, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6 as u8, address.octets().to_vec()),
    }
}

fn append_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("attributes are names and addresses");
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Sends one request and awaits its acknowledgement.
fn ask(socket: &OwnedFd, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let mut message = Vec::new();
    let length = u32::try_from(HEADER_BYTES + body.len()).expect("requests are short");
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((REQUEST | ACKNOWLEDGE | flags).to_ne_bytes());
    message.extend(1u32.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(body);
    send(socket, &message, SendFlags::empty())?;
    let mut answer = [0; 4096];
    let (_, count) = recv(socket, &mut answer, RecvFlags::empty())?;
    acknowledged(&answer[..count])
}

/// Reads an acknowledgement: an error message whose code is 0 or a negated errno.
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let kind = answer
        .get(4..6)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u16::from_ne_bytes);
    let code = answer
        .get(16..20)
        .and_then(|bytes| bytes.try_into().ok())
        .map(i32::from_ne_bytes);
    match (kind, code) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(code)) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        _ => Err(io::Error::other(
            "the kernel gave another answer than an acknowledgement",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_addresses_follow_the_hardware_address() {
        let address = link_local([0x52, 0x54, 0, 0x12, 1, 3]);
        assert_eq!(address.to_string(), "fe80::5054:ff:fe12:103");
    }

    #[track_caller]
    fn check_renames(found: &[u32], gateway: Option<u32>, expected: &[&str]) {
        let card = |number: &u32| match gateway {
            Some(gateway) if gateway == *number => (*number, GATEWAY_MAC),
            _ => (*number, [0x52, 0x54, 0, 0x12, 0, *number as u8]),
        };
        let told: Vec<String> = renames(found.iter().map(card).collect())
            .into_iter()
            .map(|(from, to)| format!("{from}>{to}"))
            .collect();
        assert_eq!(told, expected, "{found:?}, gateway {gateway:?}");
    }

    #[test]
    fn cards_are_numbered_from_1_and_the_gateway_is_0() {
        check_renames(&[], None, &[]);
        check_renames(&[1, 0], None, &["eth1>eth2", "eth0>eth1"]);
        check_renames(&[0], Some(0), &[]);
        check_renames(&[0, 1, 2], Some(0), &[]);
        check_renames(
            &[0, 1, 2],
            Some(1),
            &["eth1>gateway", "eth0>eth1", "gateway>eth0"],
        );
        check_renames(
            &[0, 1, 2],
            Some(2),
            &["eth2>gateway", "eth1>eth2", "eth0>eth1", "gateway>eth0"],
        );
        check_renames(&[3, 5], None, &["eth3>eth1", "eth5>eth2"]);
    }

    #[test]
    fn hardware_addresses_have_six_bytes() {
        let mac = [0x52, 0x54, 0, 0, 0xab, 1];
        assert_eq!(parse(&spell(mac)), Some(mac));
        for address in [
            "",
            "52:54:00:00:ab",
            "52:54:00:00:ab:01:02",
            "52:54:00:00:ab:xx",
        ] {
            assert_eq!(parse(address), None, "{address}");
        }
    }
}
