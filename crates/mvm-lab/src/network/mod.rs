//! The lab's network by machine name: who can hear whom and how well, changed in the field's words.
//!
//! ```text
//!   network.isolate("n1")?;                              who hears whom: partitions
//!   network.direction("n1", "n2")?.delay(fifty_ms)?;     how well: directions
//!   let cut = network.disturb(|n| n.halves())?;          until it is dropped: disturbance
//!   let flap = network.flap("n1", "n2", up, down)?;      on and off: flap
//!   let capture = network.capture(&file)?;               see it: capture
//! ```
//!
//! How frames are switched, cut and impaired is `mvm-fabric`'s; here are names, checks and the record of changes.
//! The page `docs/network.md` tells all of it to who writes scenarios.
//!
//! # Invariants
//!
//! - Machines that the topology does not link ([`LinkPlan`]) never exchange frames, whatever is healed.
//! - Every change is one event with the moment from which it counted.
//! - A change is made as a whole between two frames, or not at all; it meets IPv4, IPv6 and all else alike.

mod capture;
mod directions;
mod disturbance;
mod error;
mod flap;
mod partitions;
mod plan;
mod wiring;
mod words;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Instant,
};

use mvm_fabric::{
    AttachError, ChangeError, Link, LinkError, Links, Scope, Stopped, Switch, SwitchOptions, Vlan,
};

use crate::{
    event::{Event, Recorder, precise_ms},
    seed::Seed,
    topology::{Member, SegmentConfig},
};
use disturbance::{Before, Undo};
use wiring::{Place, Way, Wiring};

pub use capture::Capture;
pub use directions::Directions;
pub use disturbance::Disturbance;
pub use error::{ConnectError, NetworkError};
pub use flap::Flap;
pub use mvm_fabric::{
    Cause, Delay, Drops, GilbertElliott, Impairment, Jitter, Latency, Loss, PacketCaptureSummary,
    PortCounters, Probability, Rate, Reorder, Traffic,
};
pub use plan::{LinkPlan, PlanError, Region, Regions};

/// The network of a lab.
///
/// Verbs concern machines: what they cut or impair between two machines, they do on every segment that both are on,
/// at one moment. [`Network::on`] gives a view of one segment, whose verbs leave all others alone.
///
/// All methods may be called from any thread, and do not wait for machines. When one returns, its change is in
/// force. No frame passes while it is made: well below a millisecond among a dozen machines; if all directions are
/// impaired at once, some 10 ms among a hundred machines and 100 ms among 250.
pub struct Network {
    shared: Arc<Shared>,
    /// The one segment in view, or all.
    segment: Option<u8>,
    /// What brings back how the links were, for one under [`Network::disturb`].
    undo: Option<Arc<Mutex<Undo>>>,
}

/// What all views of a network have in common.
struct Shared {
    /// A restored lab gets a restored switch, with the same ports.
    switch: Mutex<Arc<Switch>>,
    wiring: Arc<Wiring>,
    /// Those that may still run.
    captures: Mutex<Vec<Weak<capture::Running>>>,
    seed: Seed,
    /// How many minorities were chosen.
    chosen: AtomicU64,
    recorder: Recorder,
}

impl Network {
    /// Starts a switch with one port per card, nothing plugged in, linked as `segments` say.
    pub(crate) fn connect<'a>(
        members: impl Iterator<Item = &'a Member>,
        segments: &BTreeMap<u8, SegmentConfig>,
        seed: Seed,
        recorder: &Recorder,
    ) -> Result<Network, ConnectError> {
        let options = SwitchOptions {
            seed: seed.0,
            ..SwitchOptions::DEFAULT
        };
        let switch = Switch::start_with(options).map_err(ConnectError::Start)?;
        let mut machines = Vec::new();
        for member in members {
            let machine = &member.config.name;
            let mut places = Vec::new();
            for card in &member.cards {
                let vlan = Vlan(card.segment.into());
                let name = format!("{machine} {}", card.name);
                // Each start of the machine takes a socket of its own; this first one is not used.
                let (port, _unused) =
                    switch
                        .attach_in(vlan, &name)
                        .map_err(|source| ConnectError::Attach {
                            machine: machine.clone(),
                            source,
                        })?;
                places.push(Place {
                    segment: card.segment,
                    port,
                });
            }
            machines.push((machine.clone(), places));
        }
        let plans = segments
            .iter()
            .map(|(number, config)| (*number, config.links.clone()));
        let network = Network {
            shared: Arc::new(Shared {
                switch: Mutex::new(Arc::new(switch)),
                wiring: Arc::new(Wiring::new(machines, &plans.collect())?),
                captures: Mutex::default(),
                seed,
                chosen: AtomicU64::new(0),
                recorder: recorder.clone(),
            }),
            segment: None,
            undo: None,
        };
        network.link_as_planned()?;
        Ok(network)
    }

    fn link_as_planned(&self) -> Result<(), NetworkError> {
        let wiring = Arc::clone(&self.shared.wiring);
        if wiring.missing.is_empty() && wiring.impairments.is_empty() {
            return Ok(());
        }
        let words = format!("a {}", wiring.plan_words(None));
        self.change(words, move |links| {
            wiring
                .missing
                .iter()
                .try_for_each(|link| links.cut_link(*link))?;
            wiring
                .impairments
                .iter()
                .try_for_each(|(link, impairment)| set_impairment(links, *link, *impairment))
        })
    }

    /// Returns a view of one segment: its verbs change and tell nothing of others.
    ///
    /// # Errors
    ///
    /// If no machine is on such a segment.
    pub fn on(&self, segment: u8) -> Result<Network, NetworkError> {
        let known = self.shared.wiring.segments();
        if !known.contains(&segment) {
            return Err(NetworkError::UnknownSegment { segment, known });
        }
        Ok(Network {
            shared: Arc::clone(&self.shared),
            segment: Some(segment),
            undo: self.undo.clone(),
        })
    }

    /// Returns the switch of now.
    pub(crate) fn switch(&self) -> Arc<Switch> {
        self.shared.switch()
    }

    /// Gives each card of a machine a new connection, and returns the machine's ends of them.
    pub(crate) fn plug_in(&self, machine: &str) -> Result<Vec<OwnedFd>, AttachError> {
        let switch = self.switch();
        let places = self.places_of(machine).iter();
        places.map(|place| switch.reattach(place.port)).collect()
    }

    /// Gives each card of a machine a connection that was made before, by its end for the switch.
    pub(crate) fn adopt(&self, machine: &str, ends: Vec<OwnedFd>) -> Result<(), AttachError> {
        let switch = self.switch();
        let mut places = self.places_of(machine).iter().zip(ends);
        places.try_for_each(|(place, end)| switch.adopt(place.port, end))
    }

    fn places_of(&self, machine: &str) -> &[Place] {
        let wiring = &self.shared.wiring;
        let position = wiring.position(machine);
        position.map_or(&[], |machine| &wiring.places[machine])
    }

    /// Puts another switch, which has the same ports, in the place of this one; its random choices are made from
    /// this run's seed.
    pub(crate) fn replace_switch(&self, switch: Switch) -> Result<(), Stopped> {
        match switch.set_seed(self.shared.seed.0) {
            Ok(_) => {}
            Err(ChangeError::Stopped(stopped)) => return Err(stopped),
            Err(ChangeError::Link(error)) => unreachable!("a seed concerns no link: {error}"),
        }
        capture::follow(&lock(&self.shared.captures), &switch)?;
        *lock(&self.shared.switch) = Arc::new(switch);
        Ok(())
    }

    /// Returns the seed of the network's random choices.
    pub fn seed(&self) -> Seed {
        self.shared.seed
    }

    /// Returns what each machine's cards have counted since the lab was built, `eth1` first, all at the same moment.
    ///
    /// Frames are told by [`Cause`] where they were dropped, at the port they came from and at the one they were
    /// for. A restored lab has the counters of its checkpoint and counts on from there.
    ///
    /// # Errors
    ///
    /// If the switch has stopped.
    pub fn counters(&self) -> Result<BTreeMap<String, Vec<PortCounters>>, NetworkError> {
        let counted = self.switch().counters()?;
        let wiring = &self.shared.wiring;
        let machines = wiring.names.iter().zip(&wiring.places);
        Ok(machines
            .map(|(name, places)| {
                let places = places.iter().filter(|place| self.views(place.segment));
                let ports = places.map(|place| counted.ports[place.port.index()].clone());
                (name.clone(), ports.collect())
            })
            .collect())
    }

    /// Returns the directions that pass nothing on some segment, as who is not heard and by whom; those that the
    /// topology does not have, too.
    ///
    /// # Errors
    ///
    /// If the switch has stopped.
    pub fn cuts(&self) -> Result<Vec<(String, String)>, NetworkError> {
        let links = self.switch().links()?;
        let wiring = &self.shared.wiring;
        let mut cuts: Vec<(usize, usize)> = Vec::new();
        for (from, from_place) in self.places() {
            for (to, to_place) in self.places() {
                let link = Link {
                    from: from_place.port,
                    to: to_place.port,
                };
                let meet = from != to && from_place.segment == to_place.segment;
                if meet && links.is_cut(link).map_err(ChangeError::from)? {
                    cuts.push((from, to));
                }
            }
        }
        cuts.sort_unstable();
        cuts.dedup();
        let name = |machine: usize| wiring.names[machine].clone();
        Ok(cuts
            .into_iter()
            .map(|(from, to)| (name(from), name(to)))
            .collect())
    }

    /// Returns what is wrong with the direction from one machine to another, cuts aside, on the first segment that
    /// both are on.
    ///
    /// # Errors
    ///
    /// If there is no such machine or direction, or the switch has stopped.
    pub fn impairment(&self, from: &str, to: &str) -> Result<Impairment, NetworkError> {
        let link = self.directions_of(from, to)?[0];
        let links = self.switch().links()?;
        Ok(links.impairment(link).map_err(ChangeError::from)?)
    }

    /// Tells whether a segment is in view.
    fn views(&self, segment: u8) -> bool {
        self.segment.is_none_or(|only| only == segment)
    }

    /// The cards in view, with the positions of their machines.
    fn places(&self) -> impl Iterator<Item = (usize, Place)> {
        self.shared
            .wiring
            .all_places()
            .filter(|(_, place)| self.views(place.segment))
    }

    /// Tells whether a machine has a card in view.
    fn views_machine(&self, machine: usize) -> bool {
        let mut places = self.shared.wiring.places[machine].iter();
        places.any(|place| self.views(place.segment))
    }

    /// The machines in view, by position.
    fn machines(&self) -> impl Iterator<Item = usize> {
        (0..self.shared.wiring.names.len()).filter(|machine| self.views_machine(*machine))
    }

    /// The names of the machines in view, in their order.
    fn names(&self) -> Vec<&str> {
        let name = |machine: usize| self.shared.wiring.names[machine].as_str();
        self.machines().map(name).collect()
    }

    /// The position of a machine, if it is in view.
    fn machine(&self, name: &str) -> Result<usize, NetworkError> {
        let machine = self.shared.wiring.position(name)?;
        let name = || name.to_owned();
        match (self.views_machine(machine), self.segment) {
            (true, _) => Ok(machine),
            (false, Some(segment)) => Err(NetworkError::NotOnSegment {
                name: name(),
                segment,
            }),
            (false, None) => Err(NetworkError::NoCard { name: name() }),
        }
    }

    /// The directions in view that are wanted.
    fn planned(&self, wanted: impl Fn(&Way) -> bool) -> Vec<Link> {
        let ways = self.shared.wiring.ways.iter();
        let ways = ways.filter(|way| self.views(way.segment) && wanted(way));
        ways.map(|way| way.link).collect()
    }

    /// Returns the directions between two machines in view, one per segment that both are on; at least one.
    fn directions_of(&self, from: &str, to: &str) -> Result<Vec<Link>, NetworkError> {
        let (one, other) = (self.machine(from)?, self.machine(to)?);
        if one == other {
            return Err(NetworkError::SameMachine {
                name: from.to_owned(),
            });
        }
        let links = self.planned(|way| (way.from, way.to) == (one, other));
        match links.is_empty() {
            true => Err(NetworkError::NoLink {
                one: from.to_owned(),
                other: to.to_owned(),
                plan: self.shared.wiring.plan_words(self.segment),
            }),
            false => Ok(links),
        }
    }

    /// What a change is called in events.
    fn said(&self, words: String) -> String {
        match self.segment {
            None => words,
            Some(segment) => format!("{words} on segment {segment}"),
        }
    }

    /// Makes a change and records it.
    fn change<C>(&self, words: String, change: C) -> Result<(), NetworkError>
    where
        C: FnOnce(&mut Links) -> Result<(), LinkError> + Send + 'static,
    {
        self.change_telling(change, |()| words)
    }

    /// Makes a change and records it in the words for what it came to, which it returns.
    fn change_telling<T, C>(
        &self,
        change: C,
        words: impl FnOnce(&T) -> String,
    ) -> Result<T, NetworkError>
    where
        T: Send + 'static,
        C: FnOnce(&mut Links) -> Result<T, LinkError> + Send + 'static,
    {
        let Some(undo) = &self.undo else {
            let (value, effect) = self.shared.apply(change)?;
            self.shared.changed(self.said(words(&value)), effect);
            return Ok(value);
        };
        // Held until the change is noted, so that changes are put back in the reverse of their order.
        let mut undo = lock(undo);
        let ((value, before), effect) = self.shared.apply(|links| {
            let old = links.clone();
            let value = change(links)?;
            Ok((value, Before::of_changed(&old, links)))
        })?;
        let words = self.said(words(&value));
        undo.add(words.clone(), before);
        self.shared.changed(words, effect);
        Ok(value)
    }
}

impl Shared {
    fn switch(&self) -> Arc<Switch> {
        Arc::clone(&lock(&self.switch))
    }

    /// Makes a change, and returns what it came to and the moment from which it counts.
    fn apply<T, C>(&self, change: C) -> Result<(T, Instant), NetworkError>
    where
        T: Send + 'static,
        C: FnOnce(&mut Links) -> Result<T, LinkError> + Send + 'static,
    {
        let (tell, told) = mpsc::channel();
        let effect = self.switch().change(move |links| {
            // Whoever asked for the change waits for this.
            let _ = tell.send(change(links)?);
            Ok(())
        })?;
        let value = told.recv().expect("a change that was made has told so");
        Ok((value, effect))
    }

    fn changed(&self, change: String, effect: Instant) {
        let since = effect.saturating_duration_since(self.recorder.origin());
        self.recorder.record(Event::Network {
            change,
            effect_ms: precise_ms(since),
        });
    }

    /// Returns another seed with each call, and in each run with the same seed the same ones.
    fn next_choice(&self) -> u64 {
        let number = self.chosen.fetch_add(1, Ordering::Relaxed);
        self.seed.of_choice(number)
    }
}

/// Sets what is wrong with one direction. No wider scope is ever impaired here, so nothing else counts for it.
fn set_impairment(links: &mut Links, link: Link, impairment: Impairment) -> Result<(), LinkError> {
    let scope = Scope::Link(link);
    match impairment.is_none() {
        true => links.clear(scope),
        false => links.impair(scope, impairment),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
