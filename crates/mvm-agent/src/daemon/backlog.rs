//! What a service wrote last: a window onto its output, counted in bytes from its first.
//!
//! Whoever reads the service's pipe and who may lose what is decided in [`super::services`].

use std::collections::VecDeque;

use crate::protocol::BACKLOG_BYTES_MAX;

/// At most [`BACKLOG_BYTES_MAX`] bytes.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// The offset of the oldest byte.
    start: u64,
    bytes: VecDeque<u8>,
}

impl Backlog {
    /// The offset of the next byte to come.
    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// The offset from which one can read who wants to begin at `offset`.
    pub(super) fn nearest(&self, offset: u64) -> u64 {
        offset.clamp(self.start, self.end())
    }

    /// A piece of the output from `offset` on, of at most `bytes_max` bytes; empty only at the end.
    pub(super) fn piece(&self, offset: u64, bytes_max: usize) -> &[u8] {
        assert!(
            (self.start..=self.end()).contains(&offset),
            "a reader's place is kept"
        );
        let skipped = (offset - self.start) as usize;
        let (older, newer) = self.bytes.as_slices();
        let piece = match skipped.checked_sub(older.len()) {
            None => &older[skipped..],
            Some(skipped) => &newer[skipped..],
        };
        &piece[..piece.len().min(bytes_max)]
    }

    /// How many bytes can be pushed without dropping any from `kept_from` on.
    pub(super) fn room(&self, kept_from: u64) -> usize {
        let kept = self.end().saturating_sub(kept_from.max(self.start));
        BACKLOG_BYTES_MAX - kept as usize
    }

    /// Adds bytes, at most [`BACKLOG_BYTES_MAX`] of them, and drops the oldest to make room.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        assert!(
            bytes.len() <= BACKLOG_BYTES_MAX,
            "a pipe is read in small pieces"
        );
        let dropped = (self.bytes.len() + bytes.len()).saturating_sub(BACKLOG_BYTES_MAX);
        self.bytes.drain(..dropped);
        self.start += dropped as u64;
        self.bytes.extend(bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The byte at an offset, whatever was dropped before it.
    fn byte(offset: u64) -> u8 {
        (offset % 251) as u8
    }

    fn push(backlog: &mut Backlog, count: usize) {
        let end = backlog.end();
        let bytes: Vec<u8> = (end..end + count as u64).map(byte).collect();
        backlog.push(&bytes);
    }

    proptest! {
        #[test]
        fn every_kept_byte_is_at_its_offset(counts in proptest::collection::vec(0..300_000_usize, 1..12)) {
            let mut backlog = Backlog::default();
            for count in &counts {
                push(&mut backlog, *count);
            }
            let total: u64 = counts.iter().map(|count| *count as u64).sum();
            prop_assert_eq!(backlog.end(), total);
            let mut offset = backlog.nearest(0);
            prop_assert_eq!(offset, total.saturating_sub(BACKLOG_BYTES_MAX as u64));
            while offset < total {
                let piece = backlog.piece(offset, 10_000);
                prop_assert!((1..=10_000).contains(&piece.len()));
                for (index, found) in piece.iter().enumerate() {
                    prop_assert_eq!(*found, byte(offset + index as u64));
                }
                offset += piece.len() as u64;
            }
            prop_assert!(backlog.piece(total, 10).is_empty());
        }
    }

    #[test]
    fn room_is_what_can_come_without_losing_what_is_kept() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.room(0), BACKLOG_BYTES_MAX);
        push(&mut backlog, BACKLOG_BYTES_MAX);
        assert_eq!(backlog.room(0), 0);
        assert_eq!(backlog.room(1000), 1000);
        push(&mut backlog, 1000);
        assert_eq!(backlog.nearest(0), 1000);
        assert_eq!(backlog.room(0), 0);
        assert_eq!(backlog.room(u64::MAX), BACKLOG_BYTES_MAX);
    }

    #[test]
    fn a_place_outside_becomes_the_nearest_one() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.nearest(7), 0);
        push(&mut backlog, BACKLOG_BYTES_MAX);
        push(&mut backlog, 100);
        assert_eq!(backlog.nearest(7), 100);
        assert_eq!(backlog.nearest(200), 200);
        assert_eq!(backlog.nearest(u64::MAX), backlog.end());
    }
}
