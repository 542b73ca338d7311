//! Packets on their way to the host.

use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::protocol::{self, HelloBack, Nonce, StreamId, ToHost};

/// Above this many unsent bytes streams produce no more data.
const FULL_BYTES: usize = 256 * 1024;

/// Above this many unsent bytes the daemon stops reading from the host, so that a host which only asks and
/// never listens cannot make it grow. Wider than [`FULL_BYTES`], because answers must still go out while
/// data waits.
const OVERFULL_BYTES: usize = 1024 * 1024;

/// Encoded packets that the channel has not taken yet.
#[derive(Debug)]
pub(super) struct Outbox {
    nonce: Nonce,
    sequence: u32,
    packets: Vec<u8>,
    /// How much of `packets` was written.
    written: usize,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            nonce: Nonce(0),
            sequence: 0,
            packets: Vec::new(),
            written: 0,
        }
    }

    /// Begins another conversation: what the old one had to say is dropped, in the middle of a packet if
    /// need be, because the greeting begins with a delimiter.
    pub(super) fn restart(&mut self, back: &HelloBack) {
        self.nonce = back.nonce;
        self.sequence = 0;
        self.packets.clear();
        self.written = 0;
        self.hello_back(back);
    }

    pub(super) fn hello_back(&mut self, back: &HelloBack) {
        protocol::write_hello_back(back, &mut self.packets);
    }

    pub(super) fn gone(&mut self, nonce: Option<Nonce>) {
        protocol::write_gone(nonce, &mut self.packets);
    }

    pub(super) fn frame(&mut self, stream: StreamId, message: &ToHost, payload: &[u8]) {
        // Whatever the daemon says fits a packet by far: the longest are failures, which name a path or a
        // program from a request that fitted itself.
        if protocol::write_frame(
            self.nonce,
            self.sequence,
            stream,
            message,
            payload,
            &mut self.packets,
        )
        .is_ok()
        {
            self.sequence = self.sequence.wrapping_add(1);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unsent() == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.unsent() >= FULL_BYTES
    }

    pub(super) fn is_overfull(&self) -> bool {
        self.unsent() >= OVERFULL_BYTES
    }

    /// Writes as much as the channel takes now.
    pub(super) fn flush(&mut self, channel: impl AsFd) -> io::Result<()> {
        while !self.is_empty() {
            match rustix::io::write(&channel, &self.packets[self.written..]) {
                Ok(count) => self.written += count,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        if self.is_empty() || self.written >= FULL_BYTES {
            self.packets.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }

    fn unsent(&self) -> usize {
        self.packets.len() - self.written
    }
}
