//! The blocks of a pcapng file: bytes from values.
//!
//! Written after draft-ietf-opsawg-pcapng, and only as much of it as is written here: one section, little end
//! first, of Ethernet interfaces with times in nanoseconds. The names of fields and options are the draft's.
//! When blocks are written, and to which file, is in `packet_capture`.
//!
//! The crate for it would be `pcap-file`. Its stable release (2.0, of 2023) writes the times of interface
//! statistics with their halves exchanged, and version 3 has been in release candidates since; it would also
//! bring a reader, a procedural macro, and a list of options per frame to be allocated on the switch's thread.

/// The type of a Section Header Block, the same from both ends.
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
/// Tells the byte order.
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// The version, 1.0.
const VERSION_MAJOR: u16 = 1;
const VERSION_MINOR: u16 = 0;
/// The length of the section is not told, for it grows.
const SECTION_LENGTH_UNKNOWN: u64 = u64::MAX;

const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

const LINKTYPE_ETHERNET: u16 = 1;
/// Negative powers of ten: nanoseconds.
const TSRESOL_NANOSECONDS: u8 = 9;

const OPT_ENDOFOPT: u16 = 0;
const OPT_COMMENT: u16 = 1;
const SHB_HARDWARE: u16 = 2;
const SHB_OS: u16 = 3;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ISB_STARTTIME: u16 = 2;
const ISB_ENDTIME: u16 = 3;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;

/// Blocks and options begin at multiples of this.
const ALIGNMENT: usize = 4;

/// A time as the file has it: nanoseconds since 1970, UTC.
pub(crate) type UnixNanos = u64;

/// Who wrote the section, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section<'a> {
    pub(crate) hardware: &'a str,
    pub(crate) os: &'a str,
    pub(crate) application: &'a str,
}

/// A frame, or as much of it as is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    /// The position of the interface in the section.
    pub(crate) interface: u32,
    pub(crate) time: UnixNanos,
    pub(crate) direction: Direction,
    /// Kept bytes.
    pub(crate) bytes: &'a [u8],
    pub(crate) original_bytes: u32,
    pub(crate) comment: Option<&'a str>,
}

/// Which way a frame went through its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Neither: it was dropped.
    None,
    Inbound,
    Outbound,
}

/// What is told of an interface when all is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Statistics {
    pub(crate) interface: u32,
    pub(crate) start: UnixNanos,
    pub(crate) end: UnixNanos,
    /// How many packets there were, those not in the file included.
    pub(crate) received: u64,
    /// How many of them are not in the file.
    pub(crate) dropped: u64,
}

/// Begins the file.
pub(crate) fn section_header(out: &mut Vec<u8>, section: Section<'_>) {
    block(out, SECTION_HEADER, |out| {
        out.extend(BYTE_ORDER_MAGIC.to_le_bytes());
        out.extend(VERSION_MAJOR.to_le_bytes());
        out.extend(VERSION_MINOR.to_le_bytes());
        out.extend(SECTION_LENGTH_UNKNOWN.to_le_bytes());
        text_option(out, SHB_HARDWARE, section.hardware);
        text_option(out, SHB_OS, section.os);
        text_option(out, SHB_USERAPPL, section.application);
        option(out, OPT_ENDOFOPT, &[]);
    });
}

/// Begins an interface. They are numbered from zero, in this order. No limit of kept bytes is written as zero.
pub(crate) fn interface_description(out: &mut Vec<u8>, name: &str, snap_bytes: u32) {
    block(out, INTERFACE_DESCRIPTION, |out| {
        out.extend(LINKTYPE_ETHERNET.to_le_bytes());
        out.extend([0; 2]);
        out.extend(snap_bytes.to_le_bytes());
        text_option(out, IF_NAME, name);
        option(out, IF_TSRESOL, &[TSRESOL_NANOSECONDS]);
        option(out, OPT_ENDOFOPT, &[]);
    });
}

/// Adds a packet of an interface that was begun.
pub(crate) fn enhanced_packet(out: &mut Vec<u8>, packet: &Packet<'_>) {
    block(out, ENHANCED_PACKET, |out| {
        out.extend(packet.interface.to_le_bytes());
        time(out, packet.time);
        out.extend((packet.bytes.len() as u32).to_le_bytes());
        out.extend(packet.original_bytes.to_le_bytes());
        out.extend_from_slice(packet.bytes);
        pad(out);
        if let Some(comment) = packet.comment {
            text_option(out, OPT_COMMENT, comment);
        }
        if let Some(flags) = packet.direction.flags() {
            option(out, EPB_FLAGS, &flags.to_le_bytes());
        }
        option(out, OPT_ENDOFOPT, &[]);
    });
}

/// Tells the statistics of an interface that was begun.
pub(crate) fn interface_statistics(out: &mut Vec<u8>, statistics: &Statistics) {
    block(out, INTERFACE_STATISTICS, |out| {
        out.extend(statistics.interface.to_le_bytes());
        time(out, statistics.end);
        for (code, at) in [
            (ISB_STARTTIME, statistics.start),
            (ISB_ENDTIME, statistics.end),
        ] {
            option_header(out, code, 8);
            time(out, at);
        }
        option(out, ISB_IFRECV, &statistics.received.to_le_bytes());
        option(out, ISB_IFDROP, &statistics.dropped.to_le_bytes());
        option(out, OPT_ENDOFOPT, &[]);
    });
}

impl Direction {
    /// The lowest two bits of the flags word, which is left out if it would tell nothing.
    fn flags(self) -> Option<u32> {
        match self {
            Direction::None => None,
            Direction::Inbound => Some(1),
            Direction::Outbound => Some(2),
        }
    }
}

/// Adds a block, whose length stands at both ends of it.
fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(kind.to_le_bytes());
    let length_at = out.len();
    out.extend([0; 4]);
    body(out);
    let length = (out.len() + 4 - start) as u32;
    out.extend(length.to_le_bytes());
    out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Adds a time, the upper half first, whatever the byte order.
fn time(out: &mut Vec<u8>, time: UnixNanos) {
    out.extend(((time >> 32) as u32).to_le_bytes());
    out.extend((time as u32).to_le_bytes());
}

/// Adds a text, as much of it as an option takes.
fn text_option(out: &mut Vec<u8>, code: u16, text: &str) {
    let end = text.floor_char_boundary(usize::from(u16::MAX));
    option(out, code, &text.as_bytes()[..end]);
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    option_header(out, code, value.len() as u16);
    out.extend_from_slice(value);
    pad(out);
}

fn option_header(out: &mut Vec<u8>, code: u16, bytes: u16) {
    out.extend(code.to_le_bytes());
    out.extend(bytes.to_le_bytes());
}

/// Fills up to where the next part may begin. What is written to begins there, too.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the bytes, and what holds for every block.
    #[track_caller]
    fn check(write: impl FnOnce(&mut Vec<u8>), expected: &[&[u8]]) {
        let mut out = Vec::new();
        write(&mut out);
        assert_eq!(out, expected.concat());
        let length = u32::from_le_bytes(out[4..8].try_into().unwrap());
        assert_eq!(length as usize, out.len());
        assert_eq!(&out[4..8], &out[out.len() - 4..]);
        assert_eq!(out.len() % ALIGNMENT, 0);
    }

    #[test]
    fn a_section_tells_who_wrote_it() {
        let section = Section {
            hardware: "x86_64",
            os: "Linux",
            application: "test",
        };
        check(
            |out| section_header(out, section),
            &[
                &[0x0a, 0x0d, 0x0d, 0x0a, 64, 0, 0, 0],
                &[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0],
                &[0xff; 8],
                b"\x02\0\x06\0x86_64\0\0",
                b"\x03\0\x05\0Linux\0\0\0",
                b"\x04\0\x04\0test",
                &[0, 0, 0, 0],
                &[64, 0, 0, 0],
            ],
        );
    }

    #[test]
    fn an_interface_has_a_name_and_counts_nanoseconds() {
        check(
            |out| interface_description(out, "node1 eth1", 0),
            &[
                &[1, 0, 0, 0, 48, 0, 0, 0],
                &[1, 0, 0, 0, 0, 0, 0, 0],
                b"\x02\0\x0a\0node1 eth1\0\0",
                &[9, 0, 1, 0, 9, 0, 0, 0],
                &[0, 0, 0, 0],
                &[48, 0, 0, 0],
            ],
        );
    }

    #[test]
    fn a_packet_has_its_time_and_direction() {
        let packet = Packet {
            interface: 3,
            time: 0x0102_0304_0506_0708,
            direction: Direction::Inbound,
            bytes: &[0xaa; 5],
            original_bytes: 0x0900,
            comment: None,
        };
        check(
            |out| enhanced_packet(out, &packet),
            &[
                &[6, 0, 0, 0, 52, 0, 0, 0],
                &[3, 0, 0, 0],
                &[4, 3, 2, 1, 8, 7, 6, 5],
                &[5, 0, 0, 0, 0, 9, 0, 0],
                &[0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0, 0, 0],
                &[2, 0, 4, 0, 1, 0, 0, 0],
                &[0, 0, 0, 0],
                &[52, 0, 0, 0],
            ],
        );
    }

    #[test]
    fn a_dropped_packet_has_a_comment_and_no_direction() {
        let packet = Packet {
            interface: 0,
            time: 1,
            direction: Direction::None,
            bytes: &[],
            original_bytes: 0,
            comment: Some("dropped: cut"),
        };
        check(
            |out| enhanced_packet(out, &packet),
            &[
                &[6, 0, 0, 0, 52, 0, 0, 0],
                &[0, 0, 0, 0],
                &[0, 0, 0, 0, 1, 0, 0, 0],
                &[0, 0, 0, 0, 0, 0, 0, 0],
                b"\x01\0\x0c\0dropped: cut",
                &[0, 0, 0, 0],
                &[52, 0, 0, 0],
            ],
        );
    }

    #[test]
    fn statistics_tell_from_when_to_when_and_how_many() {
        let statistics = Statistics {
            interface: 1,
            start: 1 << 32,
            end: 2 << 32 | 5,
            received: 7,
            dropped: 6,
        };
        check(
            |out| interface_statistics(out, &statistics),
            &[
                &[5, 0, 0, 0, 76, 0, 0, 0],
                &[1, 0, 0, 0],
                &[2, 0, 0, 0, 5, 0, 0, 0],
                &[2, 0, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0],
                &[3, 0, 8, 0, 2, 0, 0, 0, 5, 0, 0, 0],
                &[4, 0, 8, 0, 7, 0, 0, 0, 0, 0, 0, 0],
                &[5, 0, 8, 0, 6, 0, 0, 0, 0, 0, 0, 0],
                &[0, 0, 0, 0],
                &[76, 0, 0, 0],
            ],
        );
    }

    #[test]
    fn a_text_too_long_for_an_option_is_shortened_between_two_characters() {
        let mut out = Vec::new();
        // Characters of two bytes, and the limit is odd.
        text_option(&mut out, OPT_COMMENT, &"\u{e9}".repeat(40_000));
        assert_eq!(out[..4], [1, 0, 0xfe, 0xff]);
        assert_eq!(out.len(), 4 + 65_536);
        assert!(std::str::from_utf8(&out[4..4 + 65_534]).is_ok());
    }
}
