//! Network cards, set up over rtnetlink: names, addresses, up.
//!
//! Three messages of one kernel interface, written by hand: a netlink library would weigh more than the
//! rest of the daemon. Source: rtnetlink(7), netlink(7), linux/if_addr.h.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

use crate::protocol::Interface;

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const ERROR: u16 = 2;
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;
const ATTRIBUTE_NAME: u16 = 3;
const ATTRIBUTE_ADDRESS: u16 = 1;
const ATTRIBUTE_LOCAL: u16 = 2;
const UP: u32 = 1;
/// The lab gives every address once: waiting for duplicates to show would only cost a second.
const NO_DUPLICATE_DETECTION: u8 = 0x02;
/// A new name for an interface has at most this many bytes (IFNAMSIZ less its terminator).
const NAME_BYTES_MAX: usize = 15;
const HEADER_BYTES: usize = 16;

pub(super) fn bring_up_loopback() -> io::Result<()> {
    set_link(&open()?, index_of("lo")?, None, true)
}

/// Finds the card by its hardware address, renames it if asked, adds its addresses and brings it up.
pub(super) fn set_up(interface: &Interface) -> io::Result<()> {
    let socket = open()?;
    let name = find(interface.mac)?;
    let index = index_of(&name)?;
    if let Some(wanted) = interface.name.as_deref().filter(|wanted| **wanted != name) {
        if wanted.is_empty() || wanted.len() > NAME_BYTES_MAX {
            return Err(io::Error::other(format!(
                "{wanted:?} is no interface name of 1 to {NAME_BYTES_MAX} bytes"
            )));
        }
        // Only a card that is down can be renamed.
        set_link(&socket, index, None, false)?;
        set_link(&socket, index, Some(wanted), false)?;
    }
    set_link(&socket, index, None, true)?;
    for (address, prefix) in &interface.addresses {
        add_address(&socket, index, *address, *prefix)?;
    }
    Ok(())
}

fn find(mac: [u8; 6]) -> io::Result<String> {
    let wanted = mac.map(|byte| format!("{byte:02x}")).join(":");
    for entry in fs::read_dir("/sys/class/net")?.flatten() {
        let address = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
        if address.trim() == wanted {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!("no card has the hardware address {wanted}"),
    ))
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

fn set_link(socket: &OwnedFd, index: u32, name: Option<&str>, up: bool) -> io::Result<()> {
    // struct ifinfomsg: family, padding, type, index, flags, change mask
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(if up { UP } else { 0 }.to_ne_bytes());
    body.extend(UP.to_ne_bytes());
    if let Some(name) = name {
        let mut text = name.as_bytes().to_vec();
        text.push(0);
        append_attribute(&mut body, ATTRIBUTE_NAME, &text);
    }
    ask(socket, NEW_LINK, 0, &body)
}

fn add_address(socket: &OwnedFd, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
    let (family, flags, bytes) = match address {
        IpAddr::V4(address) => (libc::AF_INET, 0, address.octets().to_vec()),
        IpAddr::V6(address) => (
            libc::AF_INET6,
            NO_DUPLICATE_DETECTION,
            address.octets().to_vec(),
        ),
    };
    // struct ifaddrmsg: family, prefix length, flags, scope, index
    let mut body = vec![family as u8, prefix, flags, 0];
    body.extend(index.to_ne_bytes());
    append_attribute(&mut body, ATTRIBUTE_LOCAL, &bytes);
    append_attribute(&mut body, ATTRIBUTE_ADDRESS, &bytes);
    ask(socket, NEW_ADDRESS, CREATE | REPLACE, &body)
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
