//! Telling the neighbours who has an address now: gratuitous ARP and unsolicited neighbour advertisements.
//!
//! A restored machine takes addresses that others may remember with another card. Two frames of two old
//! protocols, written by hand. Source: RFC 826, RFC 5227 section 3, RFC 4861 section 4.4.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::sys;

type HardwareAddress = [u8; 6];

const BROADCAST: HardwareAddress = [0xff; 6];
/// Where all hosts listen for IPv6 (`ff02::1`).
const ALL_NODES: HardwareAddress = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES_ADDRESS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ARP_REQUEST: u8 = 1;
const NEXT_HEADER_ICMP: u8 = 58;
/// Neighbours refuse an advertisement that may have crossed a router.
const HOP_LIMIT: u8 = 255;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Take this in place of what you remember.
const OVERRIDE: u8 = 0x20;
const OPTION_TARGET_LINK_ADDRESS: u8 = 2;

/// Announces that the card with this index and hardware address has `addresses`.
pub(super) fn announce(
    index: u32,
    mac: HardwareAddress,
    addresses: impl Iterator<Item = IpAddr>,
) -> io::Result<()> {
    // Protocol 0: it sends and receives nothing.
    let socket = socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    for address in addresses {
        match address {
            IpAddr::V4(address) => {
                sys::send_on_link(&socket, index, &arp_announcement(mac, address))?;
            }
            IpAddr::V6(address) => {
                sys::send_on_link(&socket, index, &neighbour_advertisement(mac, address))?;
            }
        }
    }
    Ok(())
}

/// A request for one's own address: what RFC 5227 has machines announce themselves with.
fn arp_announcement(mac: HardwareAddress, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, ARP);
    // Ethernet, IPv4, and the lengths of their addresses.
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, ARP_REQUEST]);
    frame.extend(mac);
    frame.extend(address.octets());
    // It asks for the hardware address, so it names none.
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

fn neighbour_advertisement(mac: HardwareAddress, address: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend(address.octets());
    // The length of an option counts in eights.
    message.extend([OPTION_TARGET_LINK_ADDRESS, 1]);
    message.extend(mac);
    let checksum = icmp_checksum(address, ALL_NODES_ADDRESS, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = ethernet(ALL_NODES, mac, IPV6);
    frame.extend([
        0x60,
        0,
        0,
        0,
        0,
        message.len() as u8,
        NEXT_HEADER_ICMP,
        HOP_LIMIT,
    ]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES_ADDRESS.octets());
    frame.extend(message);
    frame
}

fn ethernet(target: HardwareAddress, source: HardwareAddress, kind: [u8; 2]) -> Vec<u8> {
    [&target[..], &source, &kind].concat()
}

/// The ones' complement sum over a pseudo-header and a message of even length whose checksum is zero.
fn icmp_checksum(source: Ipv6Addr, target: Ipv6Addr, message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        let pairs = bytes.chunks_exact(2);
        pairs
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
            .sum()
    };
    let pseudo = message.len() as u32 + u32::from(NEXT_HEADER_ICMP);
    let mut sum = words(&source.octets()) + words(&target.octets()) + pseudo + words(message);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: HardwareAddress = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex
            .chars()
            .filter_map(|digit| digit.to_digit(16))
            .map(|digit| digit as u8)
            .collect();
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    }

    #[test]
    fn an_arp_announcement_names_its_own_address_twice() {
        let address = Ipv4Addr::new(192, 168, 1, 7);
        assert_eq!(
            arp_announcement(MAC, address),
            bytes(
                "ffffffffffff 525400123456 0806 0001 0800 06 04 0001 \
                 525400123456 c0a80107 000000000000 c0a80107"
            )
        );
    }

    /// The checksum was computed by another program.
    #[test]
    fn a_neighbour_advertisement_overrides_and_adds_up() {
        let address: Ipv6Addr = "2001:db8:1::7".parse().unwrap();
        assert_eq!(
            neighbour_advertisement(MAC, address),
            bytes(
                "333300000001 525400123456 86dd 60000000 0020 3a ff \
                 20010db8000100000000000000000007 ff020000000000000000000000000001 \
                 88 00 7461 20000000 20010db8000100000000000000000007 02 01 525400123456"
            )
        );
    }

    /// Whoever receives it adds everything up, the checksum too, and expects ones.
    #[test]
    fn every_advertisement_passes_its_receiver() {
        for last in 0..2000 {
            let address = Ipv6Addr::new(0xfd00, 0xffff, 0xffff, 0, 0, 0, 0xfffe, last);
            let frame = neighbour_advertisement(MAC, address);
            let sum = icmp_checksum(address, ALL_NODES_ADDRESS, &frame[54..]);
            assert_eq!(sum, 0, "{address}");
        }
    }
}
