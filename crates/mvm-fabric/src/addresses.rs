//! The table of learned addresses: behind which port a station was last heard.
//!
//! What to do with a frame for a known or unknown station is decided in `segment`.

use std::collections::HashMap;
use std::time::Duration;

use crate::frame::Address;
use crate::link::Port;

/// A full port is searched for aged addresses at most this often, so that a guest inventing addresses
/// costs one look-up per frame and not one walk through the table.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
struct Entry {
    port: Port,
    heard: Duration,
}

/// Which station is behind which port.
///
/// Bounded per port and not as a whole: a guest that invents addresses crowds out only its own.
#[derive(Debug)]
pub(crate) struct AddressTable {
    entries: HashMap<Address, Entry>,
    /// How many entries each port holds.
    held: Vec<usize>,
    held_max: usize,
    age_max: Duration,
    swept: Option<Duration>,
}

impl AddressTable {
    pub(crate) fn new(addresses_per_port_max: usize, age_max: Duration) -> AddressTable {
        AddressTable {
            entries: HashMap::new(),
            held: Vec::new(),
            held_max: addresses_per_port_max,
            age_max,
            swept: None,
        }
    }

    /// Makes room for the next port.
    pub(crate) fn add_port(&mut self) {
        self.held.push(0);
    }

    /// Notes that `address` was heard behind `port`, moving it there if it was elsewhere.
    ///
    /// A port that already holds as many as it may learns nothing new; frames to such stations are flooded.
    pub(crate) fn learn(&mut self, address: Address, port: Port, now: Duration) {
        if !address.is_unicast() {
            return;
        }
        if let Some(entry) = self.entries.get_mut(&address) {
            if entry.port == port {
                entry.heard = now;
                return;
            }
            // Known to be wrong now, even if the new port has no room.
            self.held[entry.port.index()] -= 1;
            self.entries.remove(&address);
        }
        if self.has_room(port, now) {
            self.held[port.index()] += 1;
            self.entries.insert(address, Entry { port, heard: now });
        }
    }

    /// The port behind which `address` was heard, unless that was too long ago.
    pub(crate) fn find(&self, address: Address, now: Duration) -> Option<Port> {
        let entry = self.entries.get(&address)?;
        self.is_fresh(entry, now).then_some(entry.port)
    }

    /// Forgets every station behind `port`.
    pub(crate) fn forget(&mut self, port: Port) {
        self.entries.retain(|_, entry| entry.port != port);
        self.held[port.index()] = 0;
    }

    fn has_room(&mut self, port: Port, now: Duration) -> bool {
        if self.held[port.index()] < self.held_max {
            return true;
        }
        let due = self
            .swept
            .is_none_or(|swept| now.saturating_sub(swept) >= SWEEP_INTERVAL);
        if due {
            self.swept = Some(now);
            self.sweep(now);
        }
        self.held[port.index()] < self.held_max
    }

    fn sweep(&mut self, now: Duration) {
        let age_max = self.age_max;
        let held = &mut self.held;
        self.entries.retain(|_, entry| {
            let keep = now.saturating_sub(entry.heard) <= age_max;
            if !keep {
                held[entry.port.index()] -= 1;
            }
            keep
        });
    }

    fn is_fresh(&self, entry: &Entry, now: Duration) -> bool {
        now.saturating_sub(entry.heard) <= self.age_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Frame;

    const AGE: Duration = Duration::from_secs(300);

    fn station(number: u8) -> Address {
        let bytes = [0, 0, 0, 0, 0, 0, 0x52, 0x54, 0, 0, 0, number, 8, 0];
        Frame::parse(&bytes).unwrap().source()
    }

    fn table() -> (AddressTable, Duration) {
        let mut table = AddressTable::new(2, AGE);
        table.add_port();
        table.add_port();
        (table, Duration::ZERO)
    }

    #[test]
    fn a_station_moves_with_the_last_port_it_was_heard_on() {
        let (mut table, now) = table();
        table.learn(station(1), Port(0), now);
        assert_eq!(table.find(station(1), now), Some(Port(0)));
        table.learn(station(1), Port(1), now);
        assert_eq!(table.find(station(1), now), Some(Port(1)));
        assert_eq!(table.held, [0, 1]);
    }

    #[test]
    fn an_address_is_forgotten_by_age_and_refreshed_by_traffic() {
        let (mut table, now) = table();
        table.learn(station(1), Port(0), now);
        assert_eq!(table.find(station(1), now + AGE), Some(Port(0)));
        assert_eq!(
            table.find(station(1), now + AGE + Duration::from_secs(1)),
            None
        );
        table.learn(station(1), Port(0), now + AGE);
        assert_eq!(table.find(station(1), now + AGE * 2), Some(Port(0)));
    }

    #[test]
    fn a_full_port_learns_again_once_its_addresses_aged() {
        let (mut table, now) = table();
        for number in 1..=3 {
            table.learn(station(number), Port(0), now);
        }
        assert_eq!(table.find(station(3), now), None);
        table.learn(station(4), Port(1), now);
        assert_eq!(
            table.find(station(4), now),
            Some(Port(1)),
            "another port has its own room"
        );
        let later = now + AGE + Duration::from_secs(1);
        table.learn(station(3), Port(0), later);
        assert_eq!(table.find(station(3), later), Some(Port(0)));
        assert_eq!(table.entries.len(), 1);
    }

    #[test]
    fn a_station_that_moves_to_a_full_port_is_unknown() {
        let (mut table, now) = table();
        for number in 1..=2 {
            table.learn(station(number), Port(0), now);
        }
        table.learn(station(3), Port(1), now);
        table.learn(station(3), Port(0), now);
        assert_eq!(table.find(station(3), now), None);
        assert_eq!(table.held, [2, 0]);
    }

    #[test]
    fn forgetting_a_port_leaves_the_others() {
        let (mut table, now) = table();
        table.learn(station(1), Port(0), now);
        table.learn(station(2), Port(1), now);
        table.forget(Port(0));
        assert_eq!(table.find(station(1), now), None);
        assert_eq!(table.find(station(2), now), Some(Port(1)));
        assert_eq!(table.held, [0, 1]);
    }
}
