//! Ethernet frames and hardware addresses, as far as a switch looks at them.
//!
//! How frames are packed into a stream of bytes is in `deframer` (in) and `queue` (out).

use std::hash::{Hash, Hasher};

use crate::link::Vlan;
use crate::transit::Payload;

/// The smallest frame that has a header: two addresses and a type.
///
/// Network cards pad frames to 60 bytes, QEMU does not.
pub const FRAME_BYTES_MIN: usize = 14;

/// The largest frame accepted from a machine.
///
/// The virtio specification's size for the largest receive buffer a driver must offer: 64 KiB of payload,
/// the Ethernet header and a virtio header. No frame of a sane guest is larger.
pub const FRAME_BYTES_MAX: usize = 65_562;

/// A hardware address, kept as a number because that hashes and compares in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address(u64);

impl Address {
    /// The lowest bit of the first byte marks a group of receivers.
    const GROUP_BIT: u64 = 1 << 40;
    /// Above these is room for a VLAN.
    const BITS: u64 = (1 << 48) - 1;

    fn from_bytes(bytes: [u8; 6]) -> Address {
        let [a, b, c, d, e, f] = bytes;
        Address(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// The address as one of a VLAN's, which another VLAN's are never equal to.
    pub(crate) fn within(self, vlan: Vlan) -> Address {
        Address(self.0 & Address::BITS | u64::from(vlan.0) << 48)
    }

    /// Tells whether the address names one station: neither a group, nor broadcast, nor all zeroes.
    pub(crate) fn is_unicast(self) -> bool {
        self.0 & Address::GROUP_BIT == 0 && self.0 & Address::BITS != 0
    }
}

impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// A frame that is long enough to have a header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    header: &'a [u8; FRAME_BYTES_MIN],
    bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Looks at `bytes` as a frame; `None` if they are too short to be one.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Frame<'a>> {
        let header = bytes.first_chunk()?;
        Some(Frame { header, bytes })
    }

    /// Where the frame goes.
    pub(crate) fn target(&self) -> Address {
        let [a, b, c, d, e, f, ..] = *self.header;
        Address::from_bytes([a, b, c, d, e, f])
    }

    /// Where the frame says it comes from.
    pub(crate) fn source(&self) -> Address {
        let [_, _, _, _, _, _, a, b, c, d, e, f, ..] = *self.header;
        Address::from_bytes([a, b, c, d, e, f])
    }

    /// The whole frame.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl Payload for [u8] {
    fn wire_bytes(&self) -> usize {
        self.len()
    }

    fn payload_bytes(&self) -> usize {
        self.len().saturating_sub(FRAME_BYTES_MIN)
    }

    /// Flips one bit of the payload.
    fn corrupt(owned: &mut Vec<u8>, random: u64) {
        let payload = owned.get_mut(FRAME_BYTES_MIN..).unwrap_or_default();
        if payload.is_empty() {
            return;
        }
        let bit = random % (8 * payload.len() as u64);
        payload[(bit / 8) as usize] ^= 1 << (bit % 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: [u8; 6], unicast: bool) {
        assert_eq!(Address::from_bytes(bytes).is_unicast(), unicast);
    }

    #[test]
    fn only_single_stations_are_unicast() {
        check([0x52, 0x54, 0, 0, 0, 1], true);
        check([0, 0, 0, 0, 0, 1], true);
        check([0, 0, 0, 0, 0, 0], false);
        check([0xff; 6], false);
        check([0x33, 0x33, 0, 0, 0, 1], false);
        check([0x01, 0x00, 0x5e, 0, 0, 1], false);
    }

    #[test]
    fn a_frame_needs_a_whole_header() {
        let bytes: Vec<u8> = (0..20).collect();
        assert!(Frame::parse(&bytes[..FRAME_BYTES_MIN - 1]).is_none());
        let frame = Frame::parse(&bytes).unwrap();
        assert_eq!(frame.target(), Address::from_bytes([0, 1, 2, 3, 4, 5]));
        assert_eq!(frame.source(), Address::from_bytes([6, 7, 8, 9, 10, 11]));
        assert_eq!(frame.bytes(), bytes);
    }

    #[test]
    fn corruption_flips_one_bit_and_spares_the_header() {
        let mut touched = [false; 3 * 8];
        for random in 0..1000_u64 {
            let mut frame = vec![0xa5; FRAME_BYTES_MIN + 3];
            <[u8]>::corrupt(&mut frame, random.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let (header, payload) = frame.split_at(FRAME_BYTES_MIN);
            assert_eq!(header, [0xa5; FRAME_BYTES_MIN]);
            let flipped = |bit: &usize| (payload[bit / 8] ^ 0xa5) >> (bit % 8) & 1 == 1;
            let bits: Vec<usize> = (0..24).filter(flipped).collect();
            assert_eq!(bits.len(), 1);
            touched[bits[0]] = true;
        }
        assert_eq!(touched, [true; 3 * 8]);
        for bytes in [0, 1, FRAME_BYTES_MIN] {
            let mut frame = vec![0xa5; bytes];
            <[u8]>::corrupt(&mut frame, 1);
            assert_eq!(frame, vec![0xa5; bytes]);
        }
    }
}
