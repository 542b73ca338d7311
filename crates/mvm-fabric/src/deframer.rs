//! Cuts the byte stream of a machine into frames.
//!
//! QEMU's `-netdev stream` puts the length of each frame in front of it, as four bytes, big end first.
//! The other way round is in `queue`.

use crate::frame::FRAME_BYTES_MAX;

/// The bytes in front of each frame, in both directions.
pub(crate) const PREFIX_BYTES: usize = 4;

/// How much is read at once at the least.
///
/// About a thousand small frames or forty full ones: a system call is then a small part of the cost, while
/// a change of links still waits well below a millisecond for its turn.
const READ_BYTES: usize = 64 * 1024;

/// The length in front of a frame cannot be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MalformedLength(pub(crate) u32);

/// Bytes received and not yet taken out as frames.
#[derive(Debug)]
pub(crate) struct Deframer {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Deframer {
    pub(crate) fn new() -> Deframer {
        // A partial frame never fills more than the first part, so READ_BYTES are always free.
        let bytes = PREFIX_BYTES + FRAME_BYTES_MAX + READ_BYTES;
        Deframer {
            buffer: vec![0; bytes].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    /// Makes a deframer as if `partial` were received, which [`is_partial`] must hold for.
    pub(crate) fn resume(partial: &[u8]) -> Deframer {
        let mut deframer = Deframer::new();
        deframer.buffer[..partial.len()].copy_from_slice(partial);
        deframer.end = partial.len();
        deframer
    }

    /// What is received and not taken out: the beginning of a frame, once all whole ones are taken out.
    pub(crate) fn partial(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// What is received behind a length that is malformed.
    pub(crate) fn rest(&self) -> &[u8] {
        self.partial().get(PREFIX_BYTES..).unwrap_or_default()
    }

    /// Where to put the next bytes of the stream. Never empty once all whole frames are taken out.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        &mut self.buffer[self.end..]
    }

    /// Notes that `bytes` were put into [`Deframer::space`].
    pub(crate) fn filled(&mut self, bytes: usize) {
        self.end += bytes;
        assert!(
            self.end <= self.buffer.len(),
            "more bytes than there was space for"
        );
    }

    /// Takes out the next frame, if all of it is there.
    pub(crate) fn next_frame(&mut self) -> Result<Option<&[u8]>, MalformedLength> {
        let frame = first_frame(&self.buffer[self.start..self.end])?;
        if let Some(frame) = frame {
            self.start += PREFIX_BYTES + frame.len();
        }
        Ok(frame)
    }
}

/// Tells whether `bytes` are the beginning of a frame and less than the whole of it; nothing is, too.
pub(crate) fn is_partial(bytes: &[u8]) -> bool {
    first_frame(bytes) == Ok(None)
}

/// The frame that `stream` begins with, if all of it is there.
fn first_frame(stream: &[u8]) -> Result<Option<&[u8]>, MalformedLength> {
    let Some((prefix, rest)) = stream.split_first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*prefix);
    let bytes = length as usize;
    if bytes == 0 || bytes > FRAME_BYTES_MAX {
        return Err(MalformedLength(length));
    }
    Ok(rest.get(..bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(deframer: &mut Deframer, bytes: &[u8]) {
        deframer.space()[..bytes.len()].copy_from_slice(bytes);
        deframer.filled(bytes.len());
    }

    fn take_all(deframer: &mut Deframer, frames: &mut Vec<Vec<u8>>) {
        while let Some(frame) = deframer.next_frame().unwrap() {
            frames.push(frame.to_vec());
        }
    }

    #[track_caller]
    fn check_length(length: u32, malformed: bool) {
        let mut deframer = Deframer::new();
        put(&mut deframer, &length.to_be_bytes());
        let expected = if malformed {
            Err(MalformedLength(length))
        } else {
            Ok(None)
        };
        assert_eq!(deframer.next_frame(), expected);
    }

    #[test]
    fn a_length_of_zero_or_beyond_the_maximum_is_malformed() {
        check_length(0, true);
        check_length(1, false);
        check_length(FRAME_BYTES_MAX as u32, false);
        check_length(FRAME_BYTES_MAX as u32 + 1, true);
        check_length(u32::MAX, true);
    }

    #[test]
    fn a_stream_is_resumed_within_a_frame() {
        let mut first = Deframer::new();
        put(&mut first, &[0, 0, 0, 2, 1, 1, 0, 0, 0, 3, 7]);
        let mut frames = Vec::new();
        take_all(&mut first, &mut frames);
        assert_eq!(first.partial(), [0, 0, 0, 3, 7]);
        let mut second = Deframer::resume(first.partial());
        put(&mut second, &[8, 9]);
        take_all(&mut second, &mut frames);
        assert_eq!(frames, [vec![1, 1], vec![7, 8, 9]]);
        assert_eq!(second.partial(), []);
    }

    #[test]
    fn neither_a_whole_frame_nor_a_malformed_length_is_partial() {
        assert!(is_partial(&[]));
        assert!(is_partial(&[0xff; 3]));
        assert!(is_partial(&[0, 0, 0, 2, 1]));
        assert!(!is_partial(&[0, 0, 0, 2, 1, 1]));
        assert!(!is_partial(&[0; 4]));
        assert!(!is_partial(&[0xff; 4]));
    }

    #[test]
    fn there_is_always_space_behind_a_partial_frame() {
        let mut deframer = Deframer::new();
        put(&mut deframer, &(FRAME_BYTES_MAX as u32).to_be_bytes());
        put(&mut deframer, &vec![7; FRAME_BYTES_MAX - 1]);
        assert_eq!(deframer.next_frame(), Ok(None));
        assert!(deframer.space().len() > READ_BYTES);
        put(&mut deframer, &[7]);
        assert_eq!(
            deframer.next_frame(),
            Ok(Some(&vec![7; FRAME_BYTES_MAX][..]))
        );
    }

    proptest! {
        #[test]
        fn frames_survive_any_fragmentation(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..40),
            cuts in prop::collection::vec(1..500_usize, 1..20),
        ) {
            let mut stream = Vec::new();
            for frame in &frames {
                stream.extend_from_slice(&(frame.len() as u32).to_be_bytes());
                stream.extend_from_slice(frame);
            }
            let mut deframer = Deframer::new();
            let mut taken = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                put(&mut deframer, piece);
                take_all(&mut deframer, &mut taken);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(taken, frames);
        }
    }
}
