//! What of a packet capture is not in the file yet: whole blocks, within bounds, and the accounts of them.
//!
//! No I/O, no thread and no clock here: those are in `packet_capture`. How a block looks is told in `pcapng`.

use super::{PacketCaptureOptions, PacketCaptureSummary};
use crate::pcapng::{self, Direction, Packet, Section, Statistics, UnixNanos};

/// With as much the writer begins at once. So what bounds the buffer is left for when it gets no processor, or the
/// disk stalls.
const URGENT_BYTES: usize = 1 << 20;

/// The position of an interface in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InterfaceId(u32);

/// A frame at an interface.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) interface: InterfaceId,
    pub(crate) kind: Kind<'a>,
    /// The frame as a whole.
    pub(crate) bytes: &'a [u8],
}

/// What happened to a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind<'a> {
    /// Its machine has sent it.
    Received,
    /// It is handed over to its machine.
    Sent,
    /// It has ended.
    Dropped {
        /// Why and where.
        comment: &'a str,
    },
}

/// Whether records are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Recording,
    /// The file is as large as it may be.
    Full,
    /// No more is written.
    Ended,
}

#[derive(Debug)]
struct Interface {
    name: String,
    /// Records, those not in the file included.
    records: u64,
    missing: u64,
}

#[derive(Debug)]
pub(super) struct Buffer {
    options: PacketCaptureOptions,
    start: UnixNanos,
    stage: Stage,
    /// Whole blocks that the writer has not taken yet.
    blocks: Vec<u8>,
    interfaces: Vec<Interface>,
    summary: PacketCaptureSummary,
}

impl Buffer {
    /// Begins a file, with a section.
    pub(super) fn new(
        options: PacketCaptureOptions,
        section: Section<'_>,
        start: UnixNanos,
    ) -> Buffer {
        let mut buffer = Buffer {
            options,
            start,
            stage: Stage::Recording,
            blocks: Vec::new(),
            interfaces: Vec::new(),
            summary: PacketCaptureSummary::default(),
        };
        buffer.append(|blocks| pcapng::section_header(blocks, section));
        buffer
    }

    /// The interface of this name, which is added if there is none.
    pub(super) fn interface(&mut self, name: &str) -> InterfaceId {
        let known = self.interfaces.iter().position(|known| known.name == name);
        let index = known.unwrap_or_else(|| self.add_interface(name));
        InterfaceId(index as u32)
    }

    /// Adds a record, unless a bound is reached; that is counted, then.
    pub(super) fn record(&mut self, record: &Record<'_>, time: UnixNanos) {
        if self.stage == Stage::Ended {
            return;
        }
        self.interfaces[record.interface.0 as usize].records += 1;
        let snap_bytes = self.snap_bytes();
        let kept = &record.bytes[..record.bytes.len().min(snap_bytes)];
        if self.stage == Stage::Full {
            self.leave_out(record.interface);
        } else if self.blocks.len() + kept.len() > self.options.buffer_bytes_max {
            self.lose(record.interface);
        } else {
            self.append_packet(record, kept, time);
        }
    }

    /// Ends the file, with the statistics of all interfaces.
    pub(super) fn end(&mut self, time: UnixNanos) {
        if self.stage == Stage::Ended {
            return;
        }
        self.stage = Stage::Ended;
        let mut blocks = Vec::new();
        for (index, interface) in (0..).zip(&self.interfaces) {
            let statistics = Statistics {
                interface: index,
                start: self.start,
                end: time,
                received: interface.records,
                dropped: interface.missing,
            };
            pcapng::interface_statistics(&mut blocks, &statistics);
        }
        self.append(|all| all.extend(blocks));
    }

    /// Gives up: nothing more can be written.
    pub(super) fn fail(&mut self) {
        self.stage = Stage::Ended;
        self.blocks = Vec::new();
    }

    pub(super) fn is_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// How many bytes the writer has not taken yet.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.blocks.len()
    }

    /// Tells whether the writer should take what is there without delay.
    pub(super) fn is_urgent(&self) -> bool {
        let urgent_bytes = URGENT_BYTES.min(self.options.buffer_bytes_max / 2);
        self.is_ended() || self.blocks.len() > urgent_bytes
    }

    /// Gives the blocks that wait to the writer, for memory to put others into.
    pub(super) fn take(&mut self, empty: Vec<u8>) -> Vec<u8> {
        std::mem::replace(&mut self.blocks, empty)
    }

    /// What came of all records so far.
    pub(super) fn summary(&self) -> PacketCaptureSummary {
        self.summary
    }

    fn add_interface(&mut self, name: &str) -> usize {
        if self.stage != Stage::Ended {
            // Also in a full file: what is missing is told by interface.
            let snap_bytes = self.options.snap_bytes.map_or(0, u32::from);
            self.append(|blocks| pcapng::interface_description(blocks, name, snap_bytes));
        }
        self.interfaces.push(Interface {
            name: name.to_owned(),
            records: 0,
            missing: 0,
        });
        self.interfaces.len() - 1
    }

    fn snap_bytes(&self) -> usize {
        let bytes = self.options.snap_bytes;
        bytes.map_or(usize::MAX, |bytes| bytes.get() as usize)
    }

    /// Adds a packet, or finds the file full by it.
    fn append_packet(&mut self, record: &Record<'_>, kept: &[u8], time: UnixNanos) {
        let (direction, comment) = match record.kind {
            Kind::Received => (Direction::Inbound, None),
            Kind::Sent => (Direction::Outbound, None),
            Kind::Dropped { comment } => (Direction::None, Some(comment)),
        };
        let packet = Packet {
            interface: record.interface.0,
            time,
            direction,
            bytes: kept,
            original_bytes: record.bytes.len() as u32,
            comment,
        };
        let before = self.blocks.len();
        pcapng::enhanced_packet(&mut self.blocks, &packet);
        let bytes = (self.blocks.len() - before) as u64;
        if self.summary.bytes + bytes > self.options.bytes_max {
            self.blocks.truncate(before);
            self.stage = Stage::Full;
            return self.leave_out(record.interface);
        }
        self.summary.bytes += bytes;
        match record.kind {
            Kind::Received => self.summary.received += 1,
            Kind::Sent => self.summary.sent += 1,
            Kind::Dropped { .. } => self.summary.dropped += 1,
        }
    }

    fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.blocks.len();
        write(&mut self.blocks);
        self.summary.bytes += (self.blocks.len() - before) as u64;
    }

    fn lose(&mut self, interface: InterfaceId) {
        self.summary.lost += 1;
        self.interfaces[interface.0 as usize].missing += 1;
    }

    fn leave_out(&mut self, interface: InterfaceId) {
        self.summary.left_out += 1;
        self.interfaces[interface.0 as usize].missing += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const SECTION: Section<'static> = Section {
        hardware: "",
        os: "",
        application: "",
    };

    fn buffer(options: PacketCaptureOptions) -> (Buffer, InterfaceId) {
        let mut buffer = Buffer::new(options, SECTION, 0);
        let interface = buffer.interface("node1");
        (buffer, interface)
    }

    fn record(interface: InterfaceId, bytes: &[u8]) -> Record<'_> {
        Record {
            interface,
            kind: Kind::Received,
            bytes,
        }
    }

    /// The numbers of blocks by type.
    fn blocks(mut file: &[u8]) -> Vec<u32> {
        let mut kinds = Vec::new();
        while !file.is_empty() {
            let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
            kinds.push(word(0));
            file = &file[word(4) as usize..];
        }
        kinds
    }

    const SHB: u32 = 0x0a0d_0d0a;
    const IDB: u32 = 1;
    const ISB: u32 = 5;
    const EPB: u32 = 6;

    #[test]
    fn an_interface_is_known_by_its_name() {
        let (mut buffer, one) = buffer(PacketCaptureOptions::DEFAULT);
        let other = buffer.interface("node2");
        assert_ne!(one, other);
        assert_eq!(buffer.interface("node1"), one);
        assert_eq!(blocks(&buffer.blocks), [SHB, IDB, IDB]);
    }

    #[test]
    fn the_file_ends_with_statistics_and_takes_nothing_more() {
        let (mut buffer, one) = buffer(PacketCaptureOptions::DEFAULT);
        buffer.record(&record(one, &[0; 14]), 1);
        buffer.end(2);
        buffer.end(3);
        buffer.record(&record(one, &[0; 14]), 4);
        assert_eq!(blocks(&buffer.blocks), [SHB, IDB, EPB, ISB]);
        let summary = PacketCaptureSummary {
            received: 1,
            bytes: buffer.blocks.len() as u64,
            ..PacketCaptureSummary::default()
        };
        assert_eq!(buffer.summary(), summary);
    }

    #[test]
    fn what_finds_no_room_is_lost_until_the_writer_has_taken_the_rest() {
        let (mut buffer, one) = buffer(PacketCaptureOptions {
            buffer_bytes_max: 500,
            ..PacketCaptureOptions::DEFAULT
        });
        for _ in 0..10 {
            buffer.record(&record(one, &[0; 100]), 1);
        }
        let PacketCaptureSummary { received, lost, .. } = buffer.summary();
        assert_eq!((received, lost), (3, 7));
        assert!(buffer.is_urgent());
        assert_eq!(blocks(&buffer.take(Vec::new())), [SHB, IDB, EPB, EPB, EPB]);
        assert!(!buffer.is_urgent());
        buffer.record(&record(one, &[0; 100]), 2);
        assert_eq!(buffer.summary().received, 4);
        buffer.end(3);
        assert_eq!(blocks(&buffer.blocks), [EPB, ISB]);
        // Of eleven records, seven were lost.
        let statistics = &buffer.blocks[buffer.blocks.len() - 32..];
        assert_eq!(statistics[4], 11);
        assert_eq!(statistics[16], 7);
    }

    #[test]
    fn a_full_file_stays_full_and_counts_what_is_left_out() {
        let (mut buffer, one) = buffer(PacketCaptureOptions {
            bytes_max: 500,
            ..PacketCaptureOptions::DEFAULT
        });
        for bytes in [100, 100, 300, 1, 1] {
            buffer.record(&record(one, &vec![0; bytes]), 1);
        }
        let summary = buffer.summary();
        assert_eq!((summary.received, summary.left_out), (2, 3));
        assert!(summary.bytes <= 500);
        assert_eq!(blocks(&buffer.blocks), [SHB, IDB, EPB, EPB]);
    }

    #[test]
    fn a_snapped_frame_tells_its_size() {
        let (mut buffer, one) = buffer(PacketCaptureOptions {
            snap_bytes: NonZeroU32::new(60),
            ..PacketCaptureOptions::DEFAULT
        });
        let begun = buffer.blocks.len();
        buffer.record(&record(one, &[7; 1514]), 1);
        let lengths = &buffer.blocks[begun + 20..begun + 28];
        assert_eq!(lengths, [60, 0, 0, 0, 0xea, 5, 0, 0]);
    }

    #[test]
    fn a_failed_file_takes_nothing() {
        let (mut buffer, one) = buffer(PacketCaptureOptions::DEFAULT);
        buffer.fail();
        buffer.record(&record(one, &[0; 14]), 1);
        buffer.interface("node2");
        buffer.end(2);
        assert_eq!(buffer.waiting_bytes(), 0);
    }
}
