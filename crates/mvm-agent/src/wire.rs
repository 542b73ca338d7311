//! Packets on a byte stream that may start, stop and lose bytes anywhere.
//!
//! A packet is `COBS(content ‖ crc32(content)) ‖ 0`. Consistent Overhead Byte Stuffing removes every zero
//! from the packet, so a zero is always and only a packet's end: a reader which joined in the middle, or
//! lost bytes, is in step again at the next zero, and the checksum throws away the piece before it.
//! What the content means is [`crate::protocol`]'s business.

/// The largest content of a packet, in bytes. It bounds what a peer can make the other side buffer, and
/// with it the arguments and environment of one command.
pub const CONTENT_BYTES_MAX: usize = 256 * 1024;

/// The longest run of non-zero bytes one COBS block carries.
const BLOCK_BYTES_MAX: usize = 254;

const CHECKSUM_BYTES: usize = 4;

/// The longest stuffed packet, without its delimiter: one code byte per block, plus one.
const STUFFED_BYTES_MAX: usize =
    CONTENT_BYTES_MAX + CHECKSUM_BYTES + (CONTENT_BYTES_MAX + CHECKSUM_BYTES) / BLOCK_BYTES_MAX + 1;

/// The byte that ends every packet.
pub const DELIMITER: u8 = 0;

/// Appends one packet holding `content`, with its delimiter.
///
/// # Panics
///
/// When `content` is longer than [`CONTENT_BYTES_MAX`]: callers bound what they build.
pub fn encode(content: &[u8], packet: &mut Vec<u8>) {
    assert!(
        content.len() <= CONTENT_BYTES_MAX,
        "a packet's content is bounded by its builder"
    );
    let checksum = crc32fast::hash(content).to_le_bytes();
    let mut stuffing = Stuffing::begin(packet);
    stuffing.push(content);
    stuffing.push(&checksum);
    packet.push(DELIMITER);
}

/// Appends stuffed bytes; the code byte of the open block is at `code_at` and is filled in as it grows.
struct Stuffing<'a> {
    packet: &'a mut Vec<u8>,
    code_at: usize,
}

impl<'a> Stuffing<'a> {
    fn begin(packet: &'a mut Vec<u8>) -> Self {
        let code_at = packet.len();
        packet.push(1);
        Self { packet, code_at }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = BLOCK_BYTES_MAX + 1 - usize::from(self.packet[self.code_at]);
            if room == 0 {
                self.open_block();
                continue;
            }
            let window = &bytes[..room.min(bytes.len())];
            let run = window
                .iter()
                .position(|byte| *byte == 0)
                .unwrap_or(window.len());
            self.packet.extend_from_slice(&window[..run]);
            // `run` is at most `room`, so the code stays at or below 255.
            self.packet[self.code_at] += run as u8;
            bytes = &bytes[run..];
            if run < window.len() {
                self.open_block();
                bytes = &bytes[1..];
            }
        }
    }

    fn open_block(&mut self) {
        self.code_at = self.packet.len();
        self.packet.push(1);
    }
}

/// Cuts a byte stream into packets, and drops what is not one.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Vec<u8>,
    /// The current piece is longer than any packet: it is skipped up to its delimiter.
    overlong: bool,
    dropped: u64,
}

impl Decoder {
    /// Creates a decoder that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Consumes `bytes` up to the end of the next intact packet and returns its content; `None` once
    /// `bytes` is used up.
    ///
    /// Never holds more than one packet of the largest size, whatever it is fed.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<Vec<u8>> {
        while let Some(end) = bytes.iter().position(|byte| *byte == DELIMITER) {
            self.keep(&bytes[..end]);
            *bytes = &bytes[end + 1..];
            let overlong = std::mem::take(&mut self.overlong);
            // Empty pieces are legal: a delimiter in front of a packet is how a sender gets in step.
            if self.partial.is_empty() && !overlong {
                continue;
            }
            let content = if overlong {
                None
            } else {
                unpack(&self.partial)
            };
            self.partial.clear();
            match content {
                Some(content) => return Some(content),
                None => self.dropped += 1,
            }
        }
        self.keep(bytes);
        *bytes = &[];
        None
    }

    /// How many pieces were thrown away because they were no intact packet.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn keep(&mut self, piece: &[u8]) {
        if self.overlong || self.partial.len() + piece.len() > STUFFED_BYTES_MAX {
            self.overlong = true;
            self.partial = Vec::new();
            return;
        }
        self.partial.extend_from_slice(piece);
    }
}

/// Undoes the stuffing and checks the checksum.
fn unpack(stuffed: &[u8]) -> Option<Vec<u8>> {
    let mut content = unstuff(stuffed)?;
    let content_bytes = content.len().checked_sub(CHECKSUM_BYTES)?;
    let claimed = content.split_off(content_bytes);
    (crc32fast::hash(&content).to_le_bytes()[..] == claimed[..]).then_some(content)
}

fn unstuff(mut stuffed: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::with_capacity(stuffed.len());
    while let Some((code, rest)) = stuffed.split_first() {
        let run = usize::from(*code).checked_sub(1)?;
        if run > rest.len() {
            return None;
        }
        content.extend_from_slice(&rest[..run]);
        stuffed = &rest[run..];
        if run < BLOCK_BYTES_MAX && !stuffed.is_empty() {
            content.push(0);
        }
    }
    Some(content)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode_all(decoder: &mut Decoder, mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        while let Some(content) = decoder.next(&mut bytes) {
            packets.push(content);
        }
        packets
    }

    fn packet(content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(content, &mut bytes);
        bytes
    }

    /// Contents that make the block boundaries interesting: long runs, and zeros here and there.
    fn content() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..600),
            proptest::collection::vec(prop_oneof![9 => Just(7_u8), 1 => Just(0_u8)], 240..780),
            (250_usize..260).prop_map(|length| vec![1; length]),
        ]
    }

    proptest! {
        #[test]
        fn packets_read_back_however_the_stream_is_chopped(
            contents in proptest::collection::vec(content(), 1..6), chunk in 1_usize..400,
        ) {
            let stream: Vec<u8> = contents.iter().flat_map(|content| packet(content)).collect();
            let mut decoder = Decoder::new();
            let mut read = Vec::new();
            for piece in stream.chunks(chunk) {
                read.extend(decode_all(&mut decoder, piece));
            }
            prop_assert_eq!(read, contents);
            prop_assert_eq!(decoder.dropped(), 0);
        }

        #[test]
        fn a_packet_holds_no_zero_but_its_end(content in content()) {
            let bytes = packet(&content);
            prop_assert_eq!(bytes.iter().position(|byte| *byte == 0), Some(bytes.len() - 1));
        }

        #[test]
        fn a_cut_stream_is_in_step_again_at_the_next_packet(
            lost in content(), kept in content(), cut in any::<prop::sample::Index>(),
        ) {
            let whole = packet(&lost);
            let mut stream = whole[..cut.index(whole.len())].to_vec();
            stream.push(DELIMITER);
            stream.extend(packet(&kept));
            let mut decoder = Decoder::new();
            prop_assert_eq!(decode_all(&mut decoder, &stream).pop(), Some(kept));
        }

        #[test]
        fn a_changed_byte_never_yields_another_content(
            content in content(), place in any::<prop::sample::Index>(), change in 1_u8..,
        ) {
            let mut bytes = packet(&content);
            let place = place.index(bytes.len());
            bytes[place] ^= change;
            bytes.push(DELIMITER);
            prop_assert_eq!(decode_all(&mut Decoder::new(), &bytes), Vec::<Vec<u8>>::new());
        }

        #[test]
        fn garbage_neither_panics_nor_grows(garbage in proptest::collection::vec(any::<u8>(), 0..4000)) {
            let mut decoder = Decoder::new();
            decode_all(&mut decoder, &garbage);
            prop_assert!(decoder.partial.len() <= STUFFED_BYTES_MAX);
        }
    }

    #[test]
    fn an_endless_piece_is_skipped_and_the_next_packet_read() {
        let mut decoder = Decoder::new();
        for _ in 0..40 {
            assert_eq!(
                decode_all(&mut decoder, &[0x55; 16 * 1024]),
                Vec::<Vec<u8>>::new()
            );
            assert!(decoder.partial.len() <= STUFFED_BYTES_MAX);
        }
        let mut stream = vec![DELIMITER];
        stream.extend(packet(b"after"));
        assert_eq!(decode_all(&mut decoder, &stream), [b"after".to_vec()]);
        assert_eq!(decoder.dropped(), 1);
    }

    #[test]
    fn the_largest_content_passes() {
        let largest = vec![3; CONTENT_BYTES_MAX];
        assert_eq!(
            decode_all(&mut Decoder::new(), &packet(&largest)),
            [largest]
        );
    }
}
