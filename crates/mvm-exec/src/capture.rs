//! Bounded memory for unbounded output: the first bytes for now, the last ones for the end, and a count of
//! what lies between. Pure; who reads the pipes is in `job`.

use std::collections::VecDeque;

use crate::OutputLimits;

/// How much is put into one chunk before the next is begun: a job that writes byte by byte does not cost a
/// chunk for each.
pub(crate) const CHUNK_BYTES_MAX: usize = 64 << 10;

/// Which of a job's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// What it wrote to its standard output.
    Stdout,
    /// What it wrote to its standard error.
    Stderr,
}

/// A piece of a job's output: bytes as they came, cut anywhere, also inside a character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Which stream it is of.
    pub stream: Stream,
    /// At least one byte.
    pub bytes: Vec<u8>,
}

/// What is kept of one stream: its first bytes as they come, its last ones at the end.
#[derive(Debug)]
pub struct Capture {
    limits: OutputLimits,
    taken: usize,
    last: VecDeque<u8>,
    omitted: u64,
}

impl Capture {
    /// Keeps within the limits.
    pub fn new(limits: OutputLimits) -> Self {
        Self {
            limits,
            taken: 0,
            last: VecDeque::new(),
            omitted: 0,
        }
    }

    /// Takes what was read and returns the part of it that is to be handed out at once.
    pub fn push<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let room = self.limits.first_bytes - self.taken;
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.taken += first.len();
        self.keep_last(rest);
        first
    }

    fn keep_last(&mut self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(self.limits.last_bytes)..];
        let excess = (self.last.len() + kept.len()).saturating_sub(self.limits.last_bytes);
        self.last.drain(..excess);
        self.last.extend(kept);
        self.omitted += (excess + bytes.len() - kept.len()) as u64;
    }

    /// Returns how many bytes were left out, and the last ones, for which there was no time before.
    pub fn finish(self) -> (u64, Vec<u8>) {
        (self.omitted, self.last.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pieces: &[&str], first: &str, omitted: u64, last: &str) {
        let mut capture = Capture::new(OutputLimits {
            first_bytes: 4,
            last_bytes: 3,
        });
        let live: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| capture.push(piece.as_bytes()).to_vec())
            .collect();
        assert_eq!(String::from_utf8_lossy(&live), first);
        let (count, rest) = capture.finish();
        assert_eq!((count, rest.as_slice()), (omitted, last.as_bytes()));
    }

    #[test]
    fn first_and_last_are_kept_and_the_rest_is_counted() {
        check(&[], "", 0, "");
        check(&["ab", "cd"], "abcd", 0, "");
        check(&["abcdefg"], "abcd", 0, "efg");
        check(&["abcdefgh"], "abcd", 1, "fgh");
        check(&["abc", "defghijklmnop"], "abcd", 9, "nop");
        check(&["a", "bcde", "f", "g", "h", "ij"], "abcd", 3, "hij");
        check(&["abcde", "0123456789"], "abcd", 8, "789");
    }

    #[test]
    fn either_limit_may_be_nothing() {
        let mut capture = Capture::new(OutputLimits {
            first_bytes: 0,
            last_bytes: 0,
        });
        assert_eq!(capture.push(b"abc"), b"");
        assert_eq!(capture.finish(), (3, Vec::new()));
    }
}
