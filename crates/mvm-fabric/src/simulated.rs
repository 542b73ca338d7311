//! An in-memory network for tests without machines: named nodes that send each other messages over links that
//! can be cut and impaired like those of a switch.
//!
//! There is no thread, no socket and no clock: the time is an argument. What links do is in `transit`, which
//! the switch uses, too; there are no addresses to learn here, and nobody reads too slowly.

use std::borrow::Cow;
use std::time::Duration;

use crate::counters::{Cause, Counters, PortCounters, Tally, Waiting};
use crate::link::{AddPortError, Link, LinkError, Port};
use crate::links::Links;
use crate::segment::Limits;
use crate::transit::{Changed, Fate, Payload, Transit, Verdict};

/// A message that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival<M> {
    /// The direction it came.
    pub link: Link,
    /// The message, which may be corrupted.
    pub message: M,
}

/// A simulated network of nodes that send messages of type `M`.
///
/// Time is told as the [`Duration`] since the beginning of the simulation, and never goes back. A message over
/// a link with which nothing is wrong arrives at the time it is sent, which takes a call of
/// [`Network::next_arrival`] all the same. The same calls with the same seed give the same arrivals.
///
/// # Example
///
/// A node says a number to another, which answers with the next one; each message takes 10 ms.
///
/// ```
/// use std::time::Duration;
///
/// use mvm_fabric::simulated::Network;
/// use mvm_fabric::{Delay, Impairment, Latency, Payload, Scope};
///
/// #[derive(Clone, Debug, PartialEq)]
/// struct Number(u64);
///
/// impl Payload for Number {
///     fn wire_bytes(&self) -> usize {
///         8
///     }
///
///     fn corrupt(number: &mut Number, random: u64) {
///         number.0 ^= 1 << (random % 64);
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut network = Network::new(42);
/// let alice = network.add_node("alice")?;
/// let bob = network.add_node("bob")?;
/// let delay = Delay::constant(Latency::from_millis(10)?);
/// let slow = Impairment { delay, ..Impairment::NONE };
/// let mut now = Duration::ZERO;
/// network.change(now, |links| links.impair(Scope::All, slow))?;
///
/// network.send(alice, bob, &Number(0), now)?;
/// let mut last = None;
/// // The loop of every simulation: step to the next event, and let the nodes act on it.
/// while let Some(due) = network.next_due() {
///     now = now.max(due);
///     while let Some(arrival) = network.next_arrival(now) {
///         if arrival.message.0 < 3 {
///             let reply = arrival.link.reverse();
///             network.send(reply.from, reply.to, &Number(arrival.message.0 + 1), now)?;
///         }
///         last = Some(arrival.message);
///     }
/// }
/// assert_eq!(last, Some(Number(3)));
/// assert_eq!(now, Duration::from_millis(40));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Network<M: Payload<Owned = M>> {
    limits: Limits,
    tallies: Vec<Tally>,
    transit: Transit<M>,
}

impl<M: Payload<Owned = M>> Network<M> {
    /// Makes a network without nodes, within [`Limits::DEFAULT`], whose random choices are made from `seed`.
    pub fn new(seed: u64) -> Network<M> {
        Network::with_limits(Limits::DEFAULT, seed)
    }

    /// Makes a network without nodes. Of the limits only those of ports and of bytes in flight count.
    pub fn with_limits(limits: Limits, seed: u64) -> Network<M> {
        Network {
            limits,
            tallies: Vec::new(),
            transit: Transit::new(seed, limits.in_flight_bytes_max),
        }
    }

    /// Adds a node, which hears and is heard by all others.
    ///
    /// # Errors
    ///
    /// If the name is taken or the network is full.
    pub fn add_node(&mut self, name: &str) -> Result<Port, AddPortError> {
        let node = self.transit.add_port(name, self.limits.ports_max)?;
        self.tallies.push(Tally::default());
        Ok(node)
    }

    /// How the links are, and which nodes there are.
    pub fn links(&self) -> &Links {
        self.transit.links()
    }

    /// Changes links between two messages, as [`Switch::change`](crate::Switch::change) does.
    ///
    /// Messages on their way over a direction that is cut now are dropped. Those on their way over one with
    /// which nothing is wrong any more arrive now.
    ///
    /// # Errors
    ///
    /// Whatever `change` returns; nothing is changed then.
    pub fn change<T>(
        &mut self,
        now: Duration,
        change: impl FnOnce(&mut Links) -> Result<T, LinkError>,
    ) -> Result<T, LinkError> {
        let (answer, Changed { cut, released }) = self.transit.change(change)?;
        for (link, _) in cut {
            self.count_drop(link, Cause::Cut);
        }
        for (link, message) in released {
            self.keep(link, Fate::Arrives(Cow::Owned(message)), now);
        }
        Ok(answer)
    }

    /// Sends a message.
    ///
    /// # Errors
    ///
    /// If a node is unknown, or both are the same. A message that is lost is no error: it is counted.
    pub fn send(
        &mut self,
        from: Port,
        to: Port,
        message: &M,
        now: Duration,
    ) -> Result<(), LinkError> {
        let link = Link { from, to };
        self.transit.links().check_link(link)?;
        let bytes = message.wire_bytes();
        self.tallies[from.index()].received.add_frame(bytes);
        match self.transit.judge(link, message, now) {
            Verdict::Pass => self.keep(link, Fate::Arrives(Cow::Borrowed(message)), now),
            Verdict::Drop(cause) => self.count_drop(link, cause),
            Verdict::Deliver(delivery) => {
                let twice = delivery.second.is_some();
                self.tallies[to.index()].add_delivery(delivery.corrupted, twice);
                self.keep(link, delivery.first, now);
                if let Some(second) = delivery.second {
                    self.keep(link, second, now);
                }
            }
        }
        Ok(())
    }

    /// When the next message arrives; `None` if there is none on its way.
    pub fn next_due(&self) -> Option<Duration> {
        self.transit.next_due()
    }

    /// Takes out the next message that has arrived by now, in the order of time.
    pub fn next_arrival(&mut self, now: Duration) -> Option<Arrival<M>> {
        let (link, message) = self.transit.pop_due(now)?;
        let tally = &mut self.tallies[link.to.index()];
        tally.sent.add_frame(message.wire_bytes());
        Some(Arrival { link, message })
    }

    /// Takes out all messages that have arrived by now, in the order of time.
    pub fn deliveries(&mut self, now: Duration) -> Vec<Arrival<M>> {
        std::iter::from_fn(|| self.next_arrival(now)).collect()
    }

    /// What all nodes have sent (`received`, by the network) and got (`sent`), and why they did not get the
    /// rest. All are up, and nothing is ever queued.
    pub fn counters(&self) -> Counters {
        let ports = self.links().ports().zip(&self.tallies);
        let ports = ports.map(|(node, tally)| {
            let waiting = Waiting {
                queued: Default::default(),
                in_flight: self.transit.flight.amount(node),
            };
            PortCounters::new(node, self.links().name(node), true, waiting, tally)
        });
        Counters {
            ports: ports.collect(),
        }
    }

    /// Puts a copy that arrives now where [`Network::next_arrival`] finds it, and counts one that is dropped.
    fn keep(&mut self, link: Link, fate: Fate<'_, M>, now: Duration) {
        let fate = match fate {
            Fate::Arrives(message) => self.transit.launch(link, message, now),
            Fate::InFlight | Fate::Dropped(..) => fate,
        };
        if let Fate::Dropped(cause, _) = fate {
            self.count_drop(link, cause);
        }
    }

    fn count_drop(&mut self, link: Link, cause: Cause) {
        self.tallies[link.from.index()]
            .dropped_from
            .add_frame(cause);
        self.tallies[link.to.index()].dropped_to.add_frame(cause);
    }
}
