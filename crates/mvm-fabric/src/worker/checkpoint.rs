//! What the thread does for a checkpoint: holds, empties sockets, takes its state down, goes on.
//!
//! The order of these is the caller's, see [`crate::Switch::hold`]. The segment's part of a state is in
//! `segment::state`.

use std::time::Duration;

use super::Worker;
use super::clock::Clock;
use crate::counters::Counters;
use crate::link::Port;
use crate::socket::{self, MACHINE_SEND_BUFFER_BYTES};
use crate::switch::{CaptureError, Drained, STATE_VERSION, SwitchState, Unread, UnreadError};

/// What is read from one machine in one [`Worker::drain`] at the most, so that one that goes on sending
/// cannot keep the thread. The kernel doubles the size asked for and never holds more than that.
const DRAIN_BYTES_MAX: usize = 2 * MACHINE_SEND_BUFFER_BYTES;

impl Worker {
    /// Holds a fresh worker whose segment was restored and is at the time `now`. `partial` is what machines
    /// had sent of a frame, by port.
    pub(crate) fn held(mut self, now: Duration, partial: &[Vec<u8>]) -> Worker {
        self.clock = Clock::standing(now);
        self.partial = self.segment.ports().zip(partial.iter().cloned()).collect();
        self
    }

    pub(crate) fn hold(&mut self) {
        tracing::debug!(already = self.clock.is_standing(), "switch held");
        self.clock.stand();
    }

    pub(crate) fn release(&mut self) {
        tracing::debug!(held = self.clock.is_standing(), "switch released");
        self.clock.go_on();
        // It may be set by the clock that went before the hold.
        self.alarm.forget();
        self.partial.clear();
        // Ports that were restored and got no machine in time.
        for port in self.segment.ports() {
            if self.sockets[port.index()].is_none() {
                self.segment.lower(port);
            }
        }
        // What waits is sent before the thread waits again.
    }

    pub(crate) fn unread(&self) -> Result<Vec<Unread>, UnreadError> {
        let mut unread = Vec::new();
        for port in self.segment.ports() {
            let Some(socket) = &self.sockets[port.index()] else {
                continue;
            };
            let kernel_memory_bytes =
                socket::unread_memory_bytes(&socket.end).map_err(|error| UnreadError::Kernel {
                    port,
                    source: error.into(),
                })?;
            let frame_begun = !self.segment.begun(port).is_empty();
            if kernel_memory_bytes > 0 || frame_begun {
                unread.push(Unread {
                    port,
                    kernel_memory_bytes,
                    frame_begun,
                });
            }
        }
        Ok(unread)
    }

    pub(crate) fn drain(&mut self) -> Drained {
        let ports = self.segment.ports();
        let bytes = ports.map(|port| self.drain_port(port)).sum();
        let partial = |port: &Port| !self.received_partial(*port).is_empty();
        Drained {
            bytes,
            partial: self.segment.ports().filter(partial).collect(),
        }
    }

    fn drain_port(&mut self, port: Port) -> usize {
        let mut total = 0;
        while total < DRAIN_BYTES_MAX {
            let bytes = self.receive(port);
            if bytes == 0 {
                break;
            }
            total += bytes;
            // Matters if the switch is not held: queues would overflow.
            self.flush(super::FLUSH_EARLY_BYTES);
        }
        total
    }

    /// What a machine has sent of a frame, or had when it was captured and is awaited since.
    fn received_partial(&self, port: Port) -> &[u8] {
        match &self.sockets[port.index()] {
            Some(socket) => socket.deframer.partial(),
            None => self.partial.get(&port).map_or(&[], Vec::as_slice),
        }
    }

    pub(crate) fn capture(&self) -> Result<SwitchState, CaptureError> {
        if !self.clock.is_standing() {
            return Err(CaptureError::NotHeld);
        }
        let ports = self.segment.ports();
        Ok(SwitchState {
            version: STATE_VERSION,
            segment: self.segment.capture(self.clock.now()),
            partial: ports
                .map(|port| self.received_partial(port).to_vec())
                .collect(),
        })
    }

    /// The segment's counters; a port that awaits its machine is not up, though the segment keeps its frames.
    pub(crate) fn counters(&self) -> Counters {
        let mut counters = self.segment.counters();
        for (port, socket) in counters.ports.iter_mut().zip(&self.sockets) {
            port.up = socket.is_some();
        }
        counters
    }
}
