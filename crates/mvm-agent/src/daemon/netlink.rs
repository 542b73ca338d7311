//! The messages that set up network cards, sent to the kernel in one go: rtnetlink, as far as it is needed.
//!
//! Written by hand: a netlink library would weigh more than the rest of the daemon. Which cards get what is
//! [`super::network`]'s. Source: rtnetlink(7), netlink(7), linux/if_addr.h, linux/rtnetlink.h.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

const NEW_LINK: u16 = 16;
const REMOVE_LINK: u16 = 17;
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
const HEADER_BYTES: usize = 16;
const FLAGS_AT: usize = 6;

/// What is changed about a card.
#[derive(Debug, Clone, Copy)]
pub(super) enum Link<'a> {
    Up,
    Down,
    Name(&'a str),
    HardwareAddress([u8; 6]),
}

/// A socket to the kernel's network configuration. Nothing is left to read on it between two batches.
#[derive(Debug)]
pub(super) struct Netlink(OwnedFd);

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        // Protocol 0 of this family is NETLINK_ROUTE.
        Ok(Self(socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?))
    }

    /// Has the kernel carry out all changes of a batch, in order. One that fails does not keep the later ones from being
    /// carried out.
    ///
    /// # Errors
    ///
    /// What the kernel said to the first that failed.
    pub(super) fn carry_out(&self, batch: &Batch) -> io::Result<()> {
        let Some(last) = batch.last else {
            return Ok(());
        };
        // Errors are told unasked; that the last is done tells that all are.
        let mut message = batch.bytes.clone();
        if let Some(flags) = message.get_mut(last + FLAGS_AT) {
            *flags |= ACKNOWLEDGE as u8;
        }
        send(&self.0, &message, SendFlags::empty())?;
        let mut failed = None;
        loop {
            let mut answer = [0; 1024];
            let (_, count) = recv(&self.0, &mut answer, RecvFlags::empty())?;
            let (number, told) = read_answer(&answer[..count])?;
            if let Err(error) = told {
                failed.get_or_insert(error);
            }
            if number == batch.count {
                return failed.map_or(Ok(()), Err);
            }
        }
    }
}

/// Changes to be carried out together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// How many there are; they are numbered from 1.
    count: u32,
    /// Where the last one begins.
    last: Option<usize>,
}

impl Batch {
    pub(super) fn set_link(&mut self, index: u32, change: Link<'_>) {
        let (flags, mask) = match change {
            Link::Up => (UP, UP),
            Link::Down => (0, UP),
            Link::Name(_) | Link::HardwareAddress(_) => (0, 0),
        };
        self.begin(NEW_LINK, 0);
        self.link(index, flags, mask);
        match change {
            Link::Up | Link::Down => {}
            Link::Name(name) => self.attribute(LINK_NAME, &[name.as_bytes(), &[0]].concat()),
            Link::HardwareAddress(address) => self.attribute(LINK_HARDWARE_ADDRESS, &address),
        }
        self.end();
    }

    /// Of those that the kernel made up: hardware stays.
    pub(super) fn remove_link(&mut self, index: u32) {
        self.begin(REMOVE_LINK, 0);
        self.link(index, 0, 0);
        self.end();
    }

    pub(super) fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) {
        let (family, flags) = match address {
            IpAddr::V4(_) => (libc::AF_INET, 0),
            IpAddr::V6(_) => (libc::AF_INET6, NO_DUPLICATE_DETECTION),
        };
        self.begin(NEW_ADDRESS, CREATE | REPLACE);
        // struct ifaddrmsg: family, prefix length, flags, scope, index
        self.bytes.extend([family as u8, prefix, flags, 0]);
        self.bytes.extend(index.to_ne_bytes());
        self.address(ADDRESS_LOCAL, address);
        self.address(ADDRESS, address);
        self.end();
    }

    pub(super) fn add_default_route(&mut self, index: u32, gateway: IpAddr) {
        let family = match gateway {
            IpAddr::V4(_) => libc::AF_INET,
            IpAddr::V6(_) => libc::AF_INET6,
        };
        self.begin(NEW_ROUTE, CREATE | REPLACE);
        // struct rtmsg: family, lengths of target and source, type of service, table, origin, scope, type, flags
        self.bytes
            .extend([family as u8, 0, 0, 0, MAIN_TABLE, STATIC, 0, UNICAST]);
        self.bytes.extend(0u32.to_ne_bytes());
        self.address(ROUTE_GATEWAY, gateway);
        self.attribute(ROUTE_CARD, &index.to_ne_bytes());
        self.end();
    }

    /// Writes the header of the next message; its length follows at its end.
    fn begin(&mut self, kind: u16, flags: u16) {
        self.count += 1;
        self.last = Some(self.bytes.len());
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((REQUEST | flags).to_ne_bytes());
        self.bytes.extend(self.count.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
    }

    fn end(&mut self) {
        let begin = self.last.unwrap_or_default();
        let length = u32::try_from(self.bytes.len() - begin).expect("requests are short");
        self.bytes[begin..begin + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn link(&mut self, index: u32, flags: u32, mask: u32) {
        // struct ifinfomsg: family, padding, type, index, flags, change mask
        self.bytes.extend([0; 4]);
        self.bytes.extend(index.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(mask.to_ne_bytes());
    }

    fn address(&mut self, kind: u16, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.attribute(kind, &address.octets()),
            IpAddr::V6(address) => self.attribute(kind, &address.octets()),
        }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).expect("attributes are names and addresses");
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        // Messages begin at multiples of four, so this is one within its message too.
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Reads which message the kernel answers, and what: an error message whose code is 0 or a negated errno.
fn read_answer(answer: &[u8]) -> io::Result<(u32, io::Result<()>)> {
    let word = |at: usize| -> Option<[u8; 4]> { answer.get(at..at + 4)?.try_into().ok() };
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok());
    match (kind.map(u16::from_ne_bytes), word(8), word(HEADER_BYTES)) {
        (Some(ERROR), Some(number), Some(code)) => {
            let told = match i32::from_ne_bytes(code) {
                0 => Ok(()),
                code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
            };
            Ok((u32::from_ne_bytes(number), told))
        }
        _ => Err(io::Error::other(
            "the kernel gave another answer than an acknowledgement",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_follow_one_another_with_their_lengths_and_numbers() {
        let mut batch = Batch::default();
        batch.set_link(7, Link::Name("eth12"));
        batch.set_link(7, Link::Up);
        batch.add_address(7, "10.0.0.1".parse().unwrap(), 24);
        batch.add_default_route(7, "fe80::1".parse().unwrap());
        batch.remove_link(7);
        let mut seen = Vec::new();
        let mut at = 0;
        while at < batch.bytes.len() {
            let word = |offset: usize| {
                let bytes = &batch.bytes[at + offset..at + offset + 4];
                u32::from_ne_bytes(bytes.try_into().unwrap())
            };
            seen.push((word(8), word(4) & 0xffff, word(0)));
            at += word(0) as usize;
        }
        assert_eq!(at, batch.bytes.len());
        assert_eq!(
            seen,
            [
                (1, 16, 44),
                (2, 16, 32),
                (3, 20, 40),
                (4, 24, 56),
                (5, 17, 32)
            ]
        );
    }

    #[test]
    fn answers_tell_which_and_what() {
        let answer = |kind: u16, number: u32, code: i32| {
            let mut bytes = vec![0; 4];
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 2]);
            bytes.extend(number.to_ne_bytes());
            bytes.extend([0; 4]);
            bytes.extend(code.to_ne_bytes());
            bytes
        };
        let (number, told) = read_answer(&answer(ERROR, 3, 0)).unwrap();
        assert_eq!((number, told.is_ok()), (3, true));
        let (number, told) = read_answer(&answer(ERROR, 2, -libc::EBUSY)).unwrap();
        let error = told.unwrap_err();
        assert_eq!((number, error.raw_os_error()), (2, Some(libc::EBUSY)));
        for bad in [answer(NEW_LINK, 1, 0), vec![0; 17], Vec::new()] {
            assert!(read_answer(&bad).is_err());
        }
    }

    /// Only the system's owner may change anything, so everything is refused, in whatever order.
    #[test]
    fn a_batch_is_answered_once_and_leaves_nothing_to_read() {
        let netlink = Netlink::open().unwrap();
        for _ in 0..2 {
            let mut batch = Batch::default();
            // No card has this index.
            batch.set_link(u32::MAX / 2, Link::Up);
            batch.set_link(u32::MAX / 2, Link::Down);
            let error = netlink.carry_out(&batch).unwrap_err();
            assert!(error.raw_os_error().is_some(), "{error}");
        }
        netlink.carry_out(&Batch::default()).unwrap();
    }
}
