//! The way from one port to another: whether a frame passes, is dropped, or goes on its way altered, twice
//! or later.
//!
//! Generic over what is sent, with the time as an argument, so that a switch of Ethernet frames (`segment`)
//! and a simulated network (`simulated`) share it. The settings are in `links`, the decisions about one
//! direction in `direction`. Counting what is told here is up to the caller.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::chance::Chance;
use crate::counters::Cause;
use crate::direction::{Direction, Size};
use crate::flight::Flight;
use crate::link::{AddPortError, Link, LinkError, Port};
use crate::links::Links;

/// What can be sent: it has a size, and can be corrupted.
///
/// It is borrowed where it only passes, and owned (as [`ToOwned`] says) where it waits.
pub trait Payload: ToOwned {
    /// Its size on the wire, by which a rate takes its time.
    fn wire_bytes(&self) -> usize;

    /// Its size without the header, to which an MTU applies. If it is zero, there is nothing to corrupt.
    fn payload_bytes(&self) -> usize {
        self.wire_bytes()
    }

    /// Alters it a little, at a place chosen by a random number.
    fn corrupt(owned: &mut Self::Owned, random: u64);
}

/// What is to be done with a frame.
pub(crate) enum Verdict<'a, P: Payload + ?Sized> {
    /// Deliver it now, as it is.
    Pass,
    /// Deliver it altered, or twice, or later.
    Deliver(Delivery<'a, P>),
    /// It ends here.
    Drop(Cause),
}

/// A frame delivered in another way than as it came.
pub(crate) struct Delivery<'a, P: Payload + ?Sized> {
    pub(crate) corrupted: bool,
    pub(crate) first: Fate<'a, P>,
    /// Of the duplicate, if there is one.
    pub(crate) second: Option<Fate<'a, P>>,
}

/// What became of one copy.
pub(crate) enum Fate<'a, P: Payload + ?Sized> {
    /// It arrives now; the caller delivers it.
    Arrives(Cow<'a, P>),
    /// It is on its way, and comes out of [`Transit::pop_due`].
    InFlight,
    /// It ends here, as it was then.
    Dropped(Cause, Cow<'a, P>),
}

/// Frames whose way has ended because links were changed.
#[derive(Debug)]
pub(crate) struct Changed<T> {
    /// Frames dropped, since their direction is cut now.
    pub(crate) cut: Vec<(Link, T)>,
    /// Frames to be delivered now, since nothing is wrong with their direction any more.
    pub(crate) released: Vec<(Link, T)>,
}

/// Links and the frames on their way over them.
#[derive(Debug)]
pub(crate) struct Transit<P: Payload + ?Sized> {
    links: Links,
    /// Those that were ever impaired and had a frame.
    pub(crate) directions: BTreeMap<Link, Direction>,
    pub(crate) flight: Flight<P::Owned>,
}

impl<P: Payload + ?Sized> Transit<P> {
    pub(crate) fn new(seed: u64, in_flight_bytes_max: usize) -> Transit<P> {
        Transit {
            links: Links::new(seed),
            directions: BTreeMap::new(),
            flight: Flight::new(in_flight_bytes_max),
        }
    }

    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    pub(crate) fn add_port(&mut self, name: &str, ports_max: usize) -> Result<Port, AddPortError> {
        let port = self.links.add_port(name, ports_max)?;
        self.flight.add_port();
        Ok(port)
    }

    /// Decides about a frame that sets out now, and keeps what arrives later.
    ///
    /// A direction in order costs one look into a table.
    pub(crate) fn judge<'a>(
        &mut self,
        link: Link,
        payload: &'a P,
        now: Duration,
    ) -> Verdict<'a, P> {
        let cell = self.links.cell(link);
        if cell.cut {
            Verdict::Drop(Cause::Cut)
        } else if cell.impaired {
            self.impair(link, payload, now)
        } else {
            Verdict::Pass
        }
    }

    /// Puts something on its way that arrives at a given time, whatever the links, unless there is no room.
    pub(crate) fn launch<'a>(
        &mut self,
        link: Link,
        payload: Cow<'a, P>,
        due: Duration,
    ) -> Fate<'a, P> {
        let bytes = payload.wire_bytes();
        if !self.flight.has_room(link.to, bytes) {
            return Fate::Dropped(Cause::InFlightFull, payload);
        }
        self.flight.insert(link, due, bytes, payload.into_owned());
        Fate::InFlight
    }

    /// When [`Transit::pop_due`] next has something.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.flight.next_due()
    }

    /// Takes out the next frame that has arrived by now.
    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<(Link, P::Owned)> {
        self.flight.pop_due(now)
    }

    /// Changes links, as a whole or, if the change fails, not at all.
    pub(crate) fn change<T>(
        &mut self,
        change: impl FnOnce(&mut Links) -> Result<T, LinkError>,
    ) -> Result<(T, Changed<P::Owned>), LinkError> {
        let mut links = self.links.clone();
        let answer = change(&mut links)?;
        let reseeded = links.seed() != self.links.seed();
        self.links = links;
        if reseeded {
            for (link, direction) in &mut self.directions {
                direction.chance = stream(&self.links, *link);
            }
        }
        Ok((answer, self.settle()))
    }

    /// Takes all frames to a port off their way, and gives them with the direction of each.
    pub(crate) fn drop_to(&mut self, to: Port) -> Vec<(Link, P::Owned)> {
        let links: Vec<Link> = self.flight.links().filter(|link| link.to == to).collect();
        links.into_iter().flat_map(|link| self.end(link)).collect()
    }

    /// Ends the way of frames whose direction is cut or in order now.
    pub(crate) fn settle(&mut self) -> Changed<P::Owned> {
        let mut changed = Changed {
            cut: Vec::new(),
            released: Vec::new(),
        };
        let links: Vec<Link> = self.flight.links().collect();
        for link in links {
            let cell = self.links.cell(link);
            if cell.cut {
                changed.cut.extend(self.end(link));
            } else if !cell.impaired {
                changed.released.extend(self.end(link));
            }
        }
        changed
    }

    /// The state of an impaired direction, as it is before its first frame.
    pub(crate) fn fresh_direction(&self, link: Link) -> Direction {
        Direction::new(stream(&self.links, link))
    }

    fn impair<'a>(&mut self, link: Link, payload: &'a P, now: Duration) -> Verdict<'a, P> {
        let size = Size {
            bytes: payload.wire_bytes(),
            payload_bytes: payload.payload_bytes(),
        };
        let impairment = *self.links.impairment_of(link);
        let links = &self.links;
        let direction = self
            .directions
            .entry(link)
            .or_insert_with(|| Direction::new(stream(links, link)));
        let kept = match direction.judge(&impairment, size) {
            Ok(kept) => kept,
            Err(cause) => return Verdict::Drop(cause),
        };
        let first_due = direction.schedule(&impairment, size.bytes, now);
        let second_due = kept
            .twice
            .then(|| direction.schedule(&impairment, size.bytes, now));
        let mut payload = Cow::Borrowed(payload);
        if let Some(random) = kept.corrupt {
            P::corrupt(payload.to_mut(), random);
        }
        let second = second_due.map(|due| (due, payload.clone()));
        Verdict::Deliver(Delivery {
            corrupted: kept.corrupt.is_some(),
            first: self.dispatch(link, payload, first_due, now),
            second: second.map(|(due, payload)| self.dispatch(link, payload, due, now)),
        })
    }

    fn dispatch<'a>(
        &mut self,
        link: Link,
        payload: Cow<'a, P>,
        due: Result<Duration, Cause>,
        now: Duration,
    ) -> Fate<'a, P> {
        match due {
            Err(cause) => Fate::Dropped(cause, payload),
            // Not past those that should have arrived and are not taken out yet.
            Ok(due) if due <= now && !self.flight.is_due(link, now) => Fate::Arrives(payload),
            Ok(due) => self.launch(link, payload, due),
        }
    }

    /// Takes all frames of a direction off their way, as if none had been sent.
    fn end(&mut self, link: Link) -> impl Iterator<Item = (Link, P::Owned)> + use<P> {
        if let Some(direction) = self.directions.get_mut(&link) {
            direction.empty();
        }
        let payloads = self.flight.take(link).into_iter();
        payloads.map(move |payload| (link, payload))
    }
}

fn stream(links: &Links, link: Link) -> Chance {
    Chance::of_direction(links.seed(), links.name(link.from), links.name(link.to))
}
