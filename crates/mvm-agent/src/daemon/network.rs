//! Network cards: which is which, what they are called, and what an identity makes of them.
//!
//! How the kernel is told is [`super::netlink`]'s.

use std::fs;
use std::io;
use std::net::Ipv6Addr;

use super::netlink::{Batch, Link, Netlink};
use super::{announce, init};
use crate::boot::GATEWAY_MAC;
use crate::protocol::Interface;

const UP: u32 = 1;
/// A new name for an interface has at most this many bytes (IFNAMSIZ less its terminator).
const NAME_BYTES_MAX: usize = 15;
/// A value of `addr_gen_mode`: no link-local address is made (ip-sysctl).
const GENERATE_NO_ADDRESS: &str = "1";
const LINK_LOCAL_PREFIX: u8 = 64;
/// What the kernel says to everybody so that one of several tellings arrives, it need say only once: the switch loses nothing
/// that no test asked it to lose, and among a hundred machines that come up each telling goes to all others. For routers
/// (`router_solicitations`, RFC 4861) and for switches that follow multicast groups (`mld_qrv`, RFC 3810).
const TELLINGS: &str = "1";
const MULTICAST_TELLINGS: &str = "/proc/sys/net/ipv6/mld_qrv";
/// The card that comes with the module `dummy`. It drops all that it is given.
const DUMMY: &str = "dummy0";
/// Of the card that leads to the host's network, in machines that have one.
const WAY_OUT: &str = "eth0";

/// A network card as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Card {
    index: u32,
    name: String,
    mac: [u8; 6],
    /// The kernel makes no link-local address for it, so the identity does.
    lacks_link_local: bool,
    is_up: bool,
}

pub(super) fn bring_up_loopback() -> io::Result<()> {
    let flags = fs::read_to_string("/sys/class/net/lo/flags")?;
    let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16);
    if flags.is_ok_and(|flags| flags & UP != 0) {
        return Ok(());
    }
    let mut batch = Batch::default();
    batch.set_link(index_of("lo")?, Link::Up);
    Netlink::open()?.carry_out(&batch)
}

/// Brings all cards up under the names that most identities give them, with no address whatever: `eth0` for the one that
/// leads to the host's network or stands in for it, `eth1` upward for the others. A frozen machine has that behind it, which saves each one
/// resumed from it 80 ms under an emulator. Returns them.
pub(super) fn prepare_cards(netlink: &Netlink) -> io::Result<Vec<Card>> {
    let found = cards()?
        .into_iter()
        .filter_map(|(name, mac)| Some((name.strip_prefix("eth")?.parse().ok()?, mac)))
        .collect();
    let mut batch = Batch::default();
    for (from, to) in renames(found) {
        batch.set_link(index_of(&from)?, Link::Name(&to));
        netlink.carry_out(&std::mem::take(&mut batch))?;
    }
    stand_in(netlink)?;
    fs::write(MULTICAST_TELLINGS, TELLINGS)?;
    let mut prepared = Vec::new();
    for (name, mac) in cards()? {
        if !name.starts_with("eth") {
            continue;
        }
        fs::write(setting(&name, "router_solicitations"), TELLINGS)?;
        // A link-local address of now would follow a hardware address that changes.
        fs::write(setting(&name, "addr_gen_mode"), GENERATE_NO_ADDRESS)?;
        if mac == GATEWAY_MAC {
            // QEMU plays a router there; what counts is what the identity says.
            fs::write(setting(&name, "accept_ra"), "0")?;
        }
        let index = index_of(&name)?;
        batch.set_link(index, Link::Up);
        prepared.push(Card {
            index,
            name,
            mac,
            lacks_link_local: true,
            is_up: true,
        });
    }
    netlink.carry_out(&batch)?;
    Ok(prepared)
}

/// Gives a machine without a way out an `eth0` all the same, which scripts take for granted and which leads nowhere. IPv6
/// would choose it for multicasts that name no card.
fn stand_in(netlink: &Netlink) -> io::Result<()> {
    let Ok(dummy) = index_of(DUMMY) else {
        return Ok(());
    };
    let mut batch = Batch::default();
    if index_of(WAY_OUT).is_ok() {
        batch.remove_link(dummy);
        return netlink.carry_out(&batch);
    }
    fs::write(setting(DUMMY, "disable_ipv6"), "1")?;
    batch.set_link(dummy, Link::HardwareAddress(GATEWAY_MAC));
    batch.set_link(dummy, Link::Name(WAY_OUT));
    netlink.carry_out(&batch)
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

/// Sets all cards up that are as they were prepared. An error says that one is not, or that the kernel wants more time
/// taken: [`set_up`] does.
pub(super) fn set_up_prepared(
    netlink: &Netlink,
    prepared: &[Card],
    interfaces: &[Interface],
) -> io::Result<()> {
    let mut batch = Batch::default();
    let mut chosen = Vec::new();
    for interface in interfaces {
        let card = choose(prepared, interface)?;
        change(&mut batch, interface, card, Renewal::AsItIs)?;
        chosen.push((interface, card));
    }
    netlink.carry_out(&batch)?;
    for (interface, card) in chosen {
        announce(interface, card);
    }
    Ok(())
}

/// Finds the card, renames it and changes its hardware address if asked, brings it up, adds its addresses
/// and default routes, and announces the addresses.
pub(super) fn set_up(interface: &Interface) -> io::Result<()> {
    let netlink = Netlink::open()?;
    let found: Vec<Card> = cards()?
        .into_iter()
        .map(|(name, mac)| look_at(name, mac))
        .collect::<io::Result<_>>()?;
    let card = choose(&found, interface)?;
    let mut batch = Batch::default();
    change(&mut batch, interface, card, Renewal::AsItIs)?;
    match netlink.carry_out(&batch) {
        // Most cards take a new hardware address as they are, some only when they are down.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            let mut batch = Batch::default();
            change(&mut batch, interface, card, Renewal::DownFirst)?;
            netlink.carry_out(&batch)?;
        }
        other => other?,
    }
    announce(interface, card);
    Ok(())
}

/// Whether a card is taken down before it is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Renewal {
    AsItIs,
    DownFirst,
}

/// Adds what makes `card` the one that `interface` describes.
fn change(
    batch: &mut Batch,
    interface: &Interface,
    card: &Card,
    renewal: Renewal,
) -> io::Result<()> {
    let index = card.index;
    let name = interface.name.as_deref();
    let name = name.filter(|wanted| **wanted != card.name);
    let mac = interface.address.filter(|wanted| *wanted != card.mac);
    if let Some(name) = name.filter(|name| name.is_empty() || name.len() > NAME_BYTES_MAX) {
        return Err(io::Error::other(format!(
            "{name:?} is no interface name of 1 to {NAME_BYTES_MAX} bytes"
        )));
    }
    // Only a card that is down can be renamed.
    let goes_down = name.is_some() || renewal == Renewal::DownFirst;
    if goes_down {
        batch.set_link(index, Link::Down);
    }
    if let Some(mac) = mac {
        batch.set_link(index, Link::HardwareAddress(mac));
    }
    if let Some(name) = name {
        batch.set_link(index, Link::Name(name));
    }
    if goes_down || !card.is_up {
        batch.set_link(index, Link::Up);
    }
    for (address, prefix) in &interface.addresses {
        batch.add_address(index, *address, *prefix);
    }
    if card.lacks_link_local {
        let address = link_local(mac.unwrap_or(card.mac));
        batch.add_address(index, address.into(), LINK_LOCAL_PREFIX);
    }
    for gateway in &interface.gateways {
        batch.add_default_route(index, *gateway);
    }
    Ok(())
}

fn announce(interface: &Interface, card: &Card) {
    if !interface.announce {
        return;
    }
    let addresses = interface.addresses.iter().map(|(address, _)| *address);
    let mac = interface.address.unwrap_or(card.mac);
    if let Err(error) = announce::announce(card.index, mac, addresses) {
        // Packet sockets may be a module that is not here. Neighbours who remember another card then take
        // some seconds to find out.
        init::console(&format!("mvm-agent: could not announce addresses: {error}"));
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

/// Chooses a card by the hardware address it had, or else by the one it was given before.
fn choose<'a>(cards: &'a [Card], interface: &Interface) -> io::Result<&'a Card> {
    let with = |mac| cards.iter().find(|card| card.mac == mac);
    let found = with(interface.mac).or_else(|| interface.address.and_then(with));
    found.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("no card has the hardware address {}", spell(interface.mac)),
        )
    })
}

/// A card that anything may have happened to.
fn look_at(name: String, mac: [u8; 6]) -> io::Result<Card> {
    let mode = fs::read_to_string(setting(&name, "addr_gen_mode"));
    Ok(Card {
        index: index_of(&name)?,
        lacks_link_local: mode.is_ok_and(|mode| mode.trim() == GENERATE_NO_ADDRESS),
        is_up: false,
        name,
        mac,
    })
}

/// The names and hardware addresses of the machine's cards; what has none of six bytes is no card.
fn cards() -> io::Result<Vec<(String, [u8; 6])>> {
    let entries = fs::read_dir("/sys/class/net")?.flatten();
    let card = |entry: fs::DirEntry| {
        let address = fs::read_to_string(entry.path().join("address")).ok()?;
        let name = entry.file_name().to_string_lossy().into_owned();
        Some((name, parse(address.trim())?))
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
