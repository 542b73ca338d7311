//! Frames in flight: each with the direction it goes and the time it arrives, bounded in bytes per egress port.
//!
//! When a frame arrives is decided in `direction`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::counters::Traffic;
use crate::link::{Link, Port};

/// What a frame in flight takes besides its bytes: its place in trees and what the allocator adds. Counted
/// towards the bound, lest many small frames take many times the memory.
pub(crate) const OVERHEAD_BYTES: usize = 96;

/// The order in which frames arrive; those of one moment in the order they were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    due: Duration,
    sequence: u64,
}

#[derive(Debug)]
struct Flying<T> {
    bytes: usize,
    payload: T,
}

/// All frames in flight.
#[derive(Debug)]
pub(crate) struct Flight<T> {
    directions: BTreeMap<Link, BTreeMap<Key, Flying<T>>>,
    /// The first frame of each direction that has one.
    heads: BTreeSet<(Key, Link)>,
    sequence: u64,
    /// By egress port.
    amounts: Vec<Traffic>,
    bytes_max: usize,
}

impl<T> Flight<T> {
    pub(crate) fn new(bytes_max: usize) -> Flight<T> {
        Flight {
            directions: BTreeMap::new(),
            heads: BTreeSet::new(),
            sequence: 0,
            amounts: Vec::new(),
            bytes_max,
        }
    }

    /// Makes room for the next port.
    pub(crate) fn add_port(&mut self) {
        self.amounts.push(Traffic::default());
    }

    /// How much is on its way to a port.
    pub(crate) fn amount(&self, to: Port) -> Traffic {
        self.amounts[to.index()]
    }

    /// Tells whether one more frame may be on its way to a port.
    pub(crate) fn has_room(&self, to: Port, bytes: usize) -> bool {
        let amount = self.amount(to);
        let taken = amount.bytes as usize + amount.frames as usize * OVERHEAD_BYTES;
        taken + bytes + OVERHEAD_BYTES <= self.bytes_max
    }

    /// Puts a frame on its way, for which there is room.
    pub(crate) fn insert(&mut self, link: Link, due: Duration, bytes: usize, payload: T) {
        assert!(self.has_room(link.to, bytes), "too much in flight");
        let key = Key {
            due,
            sequence: self.sequence,
        };
        self.sequence += 1;
        self.amounts[link.to.index()].add_frame(bytes);
        let frames = self.directions.entry(link).or_default();
        match frames.first_key_value() {
            Some((first, _)) if *first < key => {}
            Some((first, _)) => {
                self.heads.remove(&(*first, link));
                self.heads.insert((key, link));
            }
            None => {
                self.heads.insert((key, link));
            }
        }
        frames.insert(key, Flying { bytes, payload });
    }

    /// When the next frame arrives anywhere.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.heads.first().map(|(key, _)| key.due)
    }

    /// Tells whether a frame of a direction should have arrived by now.
    pub(crate) fn is_due(&self, link: Link, now: Duration) -> bool {
        let first = self
            .directions
            .get(&link)
            .and_then(BTreeMap::first_key_value);
        first.is_some_and(|(key, _)| key.due <= now)
    }

    /// Takes out the next frame that has arrived by now.
    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<(Link, T)> {
        let (key, link) = *self.heads.first().filter(|(key, _)| key.due <= now)?;
        self.heads.remove(&(key, link));
        let frames = self.directions.get_mut(&link)?;
        let flying = frames.remove(&key)?;
        if let Some((next, _)) = frames.first_key_value() {
            self.heads.insert((*next, link));
        }
        self.amounts[link.to.index()].subtract_frame(flying.bytes);
        Some((link, flying.payload))
    }

    /// Takes out all frames of a direction, in the order in which they would have arrived.
    pub(crate) fn take(&mut self, link: Link) -> Vec<T> {
        let frames = self.directions.remove(&link).unwrap_or_default();
        if let Some((first, _)) = frames.first_key_value() {
            self.heads.remove(&(*first, link));
        }
        let amount = &mut self.amounts[link.to.index()];
        frames
            .into_values()
            .map(|flying| {
                amount.subtract_frame(flying.bytes);
                flying.payload
            })
            .collect()
    }

    /// The directions that have frames.
    pub(crate) fn links(&self) -> impl Iterator<Item = Link> {
        self.directions
            .iter()
            .filter(|(_, frames)| !frames.is_empty())
            .map(|(link, _)| *link)
    }

    /// All frames, in the order in which they arrive.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Link, Duration, &T)> {
        let mut all: Vec<_> = self
            .directions
            .iter()
            .flat_map(|(link, frames)| frames.iter().map(move |(key, flying)| (key, link, flying)))
            .collect();
        all.sort_unstable_by_key(|(key, _, _)| **key);
        all.into_iter()
            .map(|(key, link, flying)| (*link, key.due, &flying.payload))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn link(from: u32, to: u32) -> Link {
        Link {
            from: Port(from),
            to: Port(to),
        }
    }

    fn flight(bytes_max: usize) -> Flight<u32> {
        let mut flight = Flight::new(bytes_max);
        for _ in 0..3 {
            flight.add_port();
        }
        flight
    }

    #[test]
    fn the_bound_counts_overhead_and_is_per_egress_port() {
        let mut flight = flight(2 * (OVERHEAD_BYTES + 10));
        flight.insert(link(0, 1), Duration::ZERO, 10, 1);
        assert!(!flight.has_room(Port(1), 11));
        flight.insert(link(2, 1), Duration::ZERO, 10, 2);
        assert!(!flight.has_room(Port(1), 0));
        assert!(flight.has_room(Port(2), 10));
        assert_eq!(flight.take(link(0, 1)), [1]);
        assert!(flight.has_room(Port(1), 10));
    }

    /// What is done, and with which direction and time.
    #[derive(Clone, Debug)]
    enum Step {
        Insert(u32, u32, u64),
        Pop(u64),
        Take(u32, u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..3_u32, 0..3_u32, 0..9_u64).prop_map(|(a, b, due)| Step::Insert(a, b, due)),
            4 => (0..9_u64).prop_map(Step::Pop),
            1 => (0..3_u32, 0..3_u32).prop_map(|(a, b)| Step::Take(a, b)),
        ]
    }

    proptest! {
        /// A sorted list does the same.
        #[test]
        fn frames_come_out_by_time_and_then_by_order_of_sending(
            steps in prop::collection::vec(step(), 1..100),
        ) {
            let mut flight = flight(usize::MAX);
            let mut model: Vec<(Duration, u32, Link)> = Vec::new();
            for (number, step) in (0..).zip(steps) {
                match step {
                    Step::Insert(from, to, due) => {
                        let due = Duration::from_secs(due);
                        flight.insert(link(from, to), due, 1, number);
                        model.push((due, number, link(from, to)));
                        model.sort();
                    }
                    Step::Pop(now) => {
                        let now = Duration::from_secs(now);
                        let expected = model.first().copied().filter(|(due, ..)| *due <= now);
                        if let Some((due, _, link)) = expected {
                            prop_assert!(flight.is_due(link, now));
                            prop_assert_eq!(flight.next_due(), Some(due));
                            model.remove(0);
                        }
                        let expected = expected.map(|(_, number, link)| (link, number));
                        prop_assert_eq!(flight.pop_due(now), expected);
                    }
                    Step::Take(from, to) => {
                        let taken = model.extract_if(.., |(_, _, of)| *of == link(from, to));
                        let taken: Vec<u32> = taken.map(|(_, number, _)| number).collect();
                        prop_assert_eq!(flight.take(link(from, to)), taken);
                    }
                }
                let listed: Vec<_> = flight.iter().map(|(link, due, number)| (due, *number, link)).collect();
                prop_assert_eq!(&listed, &model);
                for to in [Port(0), Port(1), Port(2)] {
                    let frames = model.iter().filter(|(_, _, link)| link.to == to).count() as u64;
                    prop_assert_eq!(flight.amount(to), Traffic { frames, bytes: frames });
                }
            }
        }
    }
}
