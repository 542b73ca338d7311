//! Frames for tests: made, packed into a stream, and told apart again.
#![allow(dead_code)] // Each test file uses a part of it.

pub(crate) mod machine;
pub(crate) mod net;
pub(crate) mod segment;
pub(crate) mod tshark;

/// The hardware address of a numbered station.
pub(crate) fn station(number: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, number]
}

/// The address of all stations.
pub(crate) const EVERYBODY: [u8; 6] = [0xff; 6];

/// A frame with a sequence number as its payload, padded to `bytes`.
pub(crate) fn frame(target: [u8; 6], source: [u8; 6], sequence: u32, bytes: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(bytes);
    frame.extend_from_slice(&target);
    frame.extend_from_slice(&source);
    frame.extend_from_slice(&[0x88, 0xb5]);
    frame.extend_from_slice(&sequence.to_be_bytes());
    frame.resize(frame.len().max(bytes), 0);
    frame
}

/// The sequence number of a frame made here.
pub(crate) fn sequence(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[14..18].try_into().unwrap())
}

/// The frame as it goes through a socket.
pub(crate) fn packed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes(), frame].concat()
}

/// The frames of a stream, which must end with a whole one.
pub(crate) fn unpacked(mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some((prefix, rest)) = stream.split_first_chunk::<4>() {
        let (frame, rest) = rest.split_at(u32::from_be_bytes(*prefix) as usize);
        frames.push(frame.to_vec());
        stream = rest;
    }
    assert!(stream.is_empty(), "the stream ends within a frame");
    frames
}
