//! How the messages of the folder in common travel: on a port of their own, each in a packet ([`crate::wire`]).
//!
//! A packet names the session that it belongs to, because a port outlives its sessions: what an earlier one left there, in
//! a machine that was frozen too, is passed over. What the messages mean is FUSE's business.

use super::Nonce;
use crate::wire;

/// Where a machine has the folder that all machines of a lab and their host have in common.
pub const SHARED_FOLDER: &str = "/tmp/shared";

/// How much a message of a read or write carries at most.
pub const SHARED_DATA_BYTES_MAX: usize = 64 * 1024;

/// The longest message: a write, or two names and the target of a link.
pub const SHARED_MESSAGE_BYTES_MAX: usize = SHARED_DATA_BYTES_MAX + 4 * 1024;

const NONCE_BYTES: usize = 8;

const _: () = assert!(NONCE_BYTES + SHARED_MESSAGE_BYTES_MAX <= wire::CONTENT_BYTES_MAX);

/// Appends a packet with a message, which is no longer than [`SHARED_MESSAGE_BYTES_MAX`].
pub fn write_shared(Nonce(session): Nonce, message: &[u8], packet: &mut Vec<u8>) {
    let content = [&session.to_le_bytes(), message].concat();
    // It begins with a delimiter as well: whoever wrote before may have been stopped within a packet.
    packet.push(wire::DELIMITER);
    wire::encode(&content, packet);
}

/// Returns the message in a packet of this session.
pub fn read_shared(Nonce(session): Nonce, content: &[u8]) -> Option<&[u8]> {
    content.strip_prefix(&session.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_packets_of_the_session_are_messages() {
        let mut bytes = Vec::new();
        write_shared(Nonce(1), b"of an earlier one", &mut bytes);
        let mut cut = Vec::new();
        write_shared(Nonce(2), b"cut", &mut cut);
        bytes.extend(&cut[..cut.len() - 3]);
        write_shared(Nonce(2), &[0; SHARED_MESSAGE_BYTES_MAX], &mut bytes);
        let (mut decoder, mut rest) = (wire::Decoder::new(), bytes.as_slice());
        let mut messages = Vec::new();
        while let Some(content) = decoder.next(&mut rest) {
            messages.extend(read_shared(Nonce(2), &content).map(<[u8]>::to_vec));
        }
        assert_eq!(messages, [vec![0; SHARED_MESSAGE_BYTES_MAX]]);
        assert_eq!(decoder.dropped(), 1);
    }
}
