//! A simulated network of numbered messages, with a log of what arrived and when.

use std::time::Duration;

use mvm_fabric::simulated::{Arrival, Network};
use mvm_fabric::{
    Cause, Delay, Impairment, Latency, Limits, Link, Links, Loss, Payload, Port, PortCounters,
    Probability, Scope,
};

/// A numbered message of a given size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) number: u32,
    pub(crate) bytes: usize,
    pub(crate) corrupted: bool,
}

impl Payload for Message {
    fn wire_bytes(&self) -> usize {
        self.bytes
    }

    fn corrupt(owned: &mut Message, _random: u64) {
        owned.corrupted = true;
    }
}

pub(crate) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(crate) fn latency(milliseconds: u64) -> Latency {
    Latency::from_millis(milliseconds).unwrap()
}

pub(crate) fn probability(value: f64) -> Probability {
    Probability::new(value).unwrap()
}

pub(crate) fn delayed(milliseconds: u64) -> Impairment {
    Impairment {
        delay: Delay::constant(latency(milliseconds)),
        ..Impairment::NONE
    }
}

pub(crate) fn lossy(value: f64) -> Impairment {
    Impairment {
        loss: Loss::Independent(probability(value)),
        ..Impairment::NONE
    }
}

/// Nodes `a`, `b`, ..., with a log of what arrived and when.
pub(crate) struct Net {
    pub(crate) network: Network<Message>,
    pub(crate) nodes: Vec<Port>,
    pub(crate) now: Duration,
    pub(crate) arrived: Vec<(Duration, Arrival<Message>)>,
}

impl Net {
    pub(crate) fn new(nodes: u8, seed: u64) -> Net {
        Net::within(Limits::DEFAULT, nodes, seed)
    }

    pub(crate) fn within(limits: Limits, nodes: u8, seed: u64) -> Net {
        let mut network = Network::with_limits(limits, seed);
        let nodes = (0..nodes)
            .map(|n| network.add_node(&char::from(b'a' + n).to_string()).unwrap())
            .collect();
        Net {
            network,
            nodes,
            now: Duration::ZERO,
            arrived: Vec::new(),
        }
    }

    /// A network of two with one impairment everywhere.
    pub(crate) fn impaired(impairment: Impairment) -> Net {
        let mut net = Net::new(2, 1);
        net.impair(Scope::All, impairment);
        net
    }

    pub(crate) fn impair(&mut self, scope: Scope, impairment: Impairment) {
        self.change(|links| links.impair(scope, impairment).unwrap());
    }

    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Links)) {
        let changed = self.network.change(self.now, |links| {
            change(links);
            Ok(())
        });
        changed.unwrap();
    }

    pub(crate) fn link(&self, from: usize, to: usize) -> Link {
        Link {
            from: self.nodes[from],
            to: self.nodes[to],
        }
    }

    pub(crate) fn send_bytes(&mut self, from: usize, to: usize, number: u32, bytes: usize) {
        let message = Message {
            number,
            bytes,
            corrupted: false,
        };
        let (from, to) = (self.nodes[from], self.nodes[to]);
        self.network.send(from, to, &message, self.now).unwrap();
    }

    pub(crate) fn send(&mut self, from: usize, to: usize, number: u32) {
        self.send_bytes(from, to, number, 100);
    }

    /// Goes on to a time, event by event.
    pub(crate) fn advance(&mut self, until: Duration) {
        while let Some(due) = self.network.next_due().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            let arrivals = self.network.deliveries(self.now);
            assert!(!arrivals.is_empty(), "what is due arrives");
            self.arrived
                .extend(arrivals.into_iter().map(|arrival| (self.now, arrival)));
        }
        self.now = self.now.max(until);
    }

    /// Goes on until nothing is on its way, and gives the times and numbers of what arrived since.
    pub(crate) fn finish(&mut self) -> Vec<(Duration, u32)> {
        let now = self.now;
        self.advance(Duration::MAX);
        self.now = self.arrived.last().map_or(now, |(at, _)| now.max(*at));
        let arrived = std::mem::take(&mut self.arrived);
        arrived
            .into_iter()
            .map(|(at, arrival)| (at, arrival.message.number))
            .collect()
    }

    pub(crate) fn finish_numbers(&mut self) -> Vec<u32> {
        self.finish()
            .into_iter()
            .map(|(_, number)| number)
            .collect()
    }

    pub(crate) fn counters(&self, node: usize) -> PortCounters {
        let counters = self.network.counters();
        counters.port(self.nodes[node]).unwrap().clone()
    }

    #[track_caller]
    pub(crate) fn check_drops(&self, node: usize, cause: Cause, frames: u64) {
        let counters = self.counters(node);
        assert_eq!(counters.dropped_to.frames(cause), frames);
        assert_eq!(counters.dropped_to.total(), frames, "{counters:?}");
    }
}
