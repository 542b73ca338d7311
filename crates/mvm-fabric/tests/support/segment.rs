//! A segment with stations behind its ports.

use std::time::Duration;

use mvm_fabric::{Cause, Limits, Link, LinkError, Links, Port, Segment};

use super::{EVERYBODY, frame, sequence, station, unpacked};

/// A segment of ports `a`, `b`, ... with station 1 behind the first, 2 behind the second, and so on.
pub(crate) struct Net {
    pub(crate) segment: Segment,
    pub(crate) ports: Vec<Port>,
    pub(crate) now: Duration,
}

impl Net {
    /// Nobody has spoken yet.
    pub(crate) fn silent(ports: u8, limits: Limits) -> Net {
        let mut segment = Segment::new(limits, 0);
        let ports = (0..ports)
            .map(|n| segment.add_port(&char::from(b'a' + n).to_string()).unwrap())
            .collect();
        Net {
            segment,
            ports,
            now: Duration::ZERO,
        }
    }

    /// Everybody is learned; counters show that and no more.
    pub(crate) fn acquainted(ports: u8) -> Net {
        let mut net = Net::silent(ports, Limits::DEFAULT);
        for number in 1..=ports {
            net.send(
                usize::from(number) - 1,
                &frame(EVERYBODY, station(number), 0, 64),
            );
        }
        for index in 0..net.ports.len() {
            net.take(index);
        }
        net
    }

    pub(crate) fn send(&mut self, from: usize, frame: &[u8]) {
        self.segment.forward(self.ports[from], frame, self.now);
    }

    /// From the station behind `from` to the one behind `to`.
    pub(crate) fn send_to(&mut self, from: usize, to: usize, sequence: u32) {
        self.send(
            from,
            &frame(station(to as u8 + 1), station(from as u8 + 1), sequence, 64),
        );
    }

    /// The sequence numbers of the frames that wait for a port.
    pub(crate) fn take(&mut self, to: usize) -> Vec<u32> {
        let pending = self.segment.pending(self.ports[to]).to_vec();
        self.segment.sent(self.ports[to], pending.len());
        unpacked(&pending)
            .iter()
            .map(|frame| sequence(frame))
            .collect()
    }

    pub(crate) fn receivers(&mut self) -> Vec<usize> {
        (0..self.ports.len())
            .filter(|index| !self.take(*index).is_empty())
            .collect()
    }

    pub(crate) fn dropped_from(&self, index: usize, cause: Cause) -> u64 {
        self.segment.counters().ports[index]
            .dropped_from
            .frames(cause)
    }

    pub(crate) fn dropped_to(&self, index: usize, cause: Cause) -> u64 {
        self.segment.counters().ports[index]
            .dropped_to
            .frames(cause)
    }

    pub(crate) fn change<T>(
        &mut self,
        change: impl FnOnce(&mut Links, &[Port]) -> Result<T, LinkError>,
    ) -> Result<T, LinkError> {
        let ports = &self.ports;
        self.segment.change(|links| change(links, ports))
    }

    pub(crate) fn cut_link(&mut self, from: usize, to: usize) {
        let link = self.link(from, to);
        self.segment.change(|links| links.cut_link(link)).unwrap();
    }

    pub(crate) fn link(&self, from: usize, to: usize) -> Link {
        Link {
            from: self.ports[from],
            to: self.ports[to],
        }
    }

    /// For every ordered pair, whether a frame between two stations arrives.
    pub(crate) fn reach(&mut self) -> Vec<String> {
        let count = self.ports.len();
        let mut rows = Vec::new();
        for from in 0..count {
            let mut row = String::new();
            for to in 0..count {
                if from != to {
                    self.send_to(from, to, 9);
                }
                row.push(if from == to {
                    '.'
                } else {
                    ['-', '+'][usize::from(self.receivers() == [to])]
                });
            }
            rows.push(row);
        }
        rows
    }
}
