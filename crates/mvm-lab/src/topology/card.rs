//! A machine's network card on a segment: its names and addresses follow from three numbers.
//!
//! As in the NixOS test driver, machine N has `192.168.V.N` and `2001:db8:V::N` on segment V.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mvm_machine::machine::{MacAddress, Mtu};

/// A network card of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// The number of its segment.
    pub segment: u8,
    /// What the guest calls it, such as `eth1`.
    pub name: String,
    /// The largest packet that it sends.
    pub mtu: Mtu,
    /// Its hardware address.
    pub mac: MacAddress,
    /// Its IPv4 address; the network has 24 bits.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address; the network has 64 bits. Numbers' decimal digits are read as hexadecimal, as NixOS does.
    pub ipv6: Ipv6Addr,
}

impl Card {
    /// The card of the machine of a number on a segment; `place` counts from 1 within the machine.
    pub(super) fn new(segment: u8, mtu: Mtu, machine: u8, place: u8) -> Card {
        Card {
            segment,
            mtu,
            name: format!("eth{place}"),
            mac: MacAddress([0x52, 0x54, 0x00, 0x12, segment, machine]),
            ipv4: Ipv4Addr::new(192, 168, segment, machine),
            ipv6: Ipv6Addr::new(
                0x2001,
                0xdb8,
                spelled_alike(segment),
                0,
                0,
                0,
                0,
                spelled_alike(machine),
            ),
        }
    }

    /// Returns its addresses with their prefix lengths.
    pub fn addresses(&self) -> Vec<(IpAddr, u8)> {
        vec![(self.ipv4.into(), 24), (self.ipv6.into(), 64)]
    }
}

/// The number that is written in hexadecimal as this one is in decimal.
fn spelled_alike(number: u8) -> u16 {
    u16::from_str_radix(&number.to_string(), 16).expect("decimal digits are hexadecimal ones")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(segment: u8, machine: u8, place: u8, expected: &str) {
        let card = Card::new(segment, Mtu::STANDARD, machine, place);
        let told = format!("{} {} {} {}", card.name, card.mac, card.ipv4, card.ipv6);
        assert_eq!(told, expected);
    }

    #[test]
    fn addresses_follow_from_numbers() {
        check(1, 3, 1, "eth1 52:54:00:12:01:03 192.168.1.3 2001:db8:1::3");
        check(
            2,
            10,
            3,
            "eth3 52:54:00:12:02:0a 192.168.2.10 2001:db8:2::10",
        );
        check(
            254,
            250,
            8,
            "eth8 52:54:00:12:fe:fa 192.168.254.250 2001:db8:254::250",
        );
    }
}
