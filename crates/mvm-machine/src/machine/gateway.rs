//! A machine's way out: one more card, behind which QEMU itself plays a small network with the host as its router.
//!
//! QEMU opens the guest's connections as sockets of its own (its "user network"), so it takes no root, and nobody can
//! reach the machine through it. Machines do not see one another there; each has the same addresses. Pings are
//! answered where the host lets its users ping.
//!
//! The card is part of the machine like any other, so it is frozen and resumed with it. Its connections are not: they
//! are sockets of a QEMU that is gone, and a machine that comes back finds them reset.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mvm_agent::{boot::GATEWAY_MAC, client::Interface};

use super::MacAddress;

const IPV4_PREFIX: u8 = 24;
const IPV6_PREFIX: u8 = 64;

/// A way out to the host's network: `eth0` of the guest.
///
/// The addresses are those that QEMU's user network has unless told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway;

impl Gateway {
    /// The card's hardware address, in every machine.
    pub const MAC: MacAddress = MacAddress(GATEWAY_MAC);
    /// The machine.
    pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
    /// The host: what listens on its loopback is reached here, and everything else through here.
    pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
    /// Asks the name servers of the host.
    pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
    /// The machine.
    pub const GUEST_IPV6: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0x15);
    /// The host.
    pub const HOST_IPV6: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 2);

    /// What the identity of a machine with this card says of it: name, addresses and default routes.
    pub fn interface(self) -> Interface {
        Interface {
            mac: Gateway::MAC.0,
            address: None,
            name: Some("eth0".to_owned()),
            addresses: vec![
                (Gateway::GUEST.into(), IPV4_PREFIX),
                (Gateway::GUEST_IPV6.into(), IPV6_PREFIX),
            ],
            gateways: vec![Gateway::HOST.into(), Gateway::HOST_IPV6.into()],
            // Nobody else is there.
            announce: false,
        }
    }

    /// What the identity says of name servers.
    pub fn name_servers(self) -> Vec<IpAddr> {
        vec![Gateway::NAME_SERVER.into()]
    }
}
