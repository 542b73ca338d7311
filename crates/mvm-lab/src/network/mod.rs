//! The lab's network by machine name: who can hear whom and how well, changed in the field's words.
//!
//! ```text
//!   network.isolate("n1")?;                              who hears whom: partitions
//!   network.direction("n1", "n2")?.delay(fifty_ms)?;     how well: directions
//!   let cut = network.disturb(|n| n.halves())?;          until it is dropped: disturbance
//!   let flap = network.flap("n1", "n2", up, down)?;      on and off: flap
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

mod directions;
mod disturbance;
mod error;
mod flap;
mod partitions;
mod plan;
mod words;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Instant,
};

use mvm_fabric::{
    ChangeError, Link, LinkError, Links, Port, Scope, Stopped, Switch, SwitchOptions,
};

use crate::{
    event::{Event, Recorder, precise_ms},
    seed::Seed,
};
use disturbance::{Before, Undo};

pub use directions::Directions;
pub use disturbance::Disturbance;
pub use error::{ConnectError, NetworkError};
pub use flap::Flap;
pub use mvm_fabric::{
    Cause, Delay, Drops, GilbertElliott, Impairment, Jitter, Latency, Loss, PortCounters,
    Probability, Rate, Reorder, Traffic,
};
pub(crate) use plan::Resolved;
pub use plan::{LinkPlan, PlanError, Region, Regions};

/// The network of a lab.
///
/// All methods may be called from any thread, and do not wait for machines. When one returns, its change is in
/// force. No frame passes while it is made: well below a millisecond among a dozen machines; if all directions are
/// impaired at once, some 10 ms among a hundred machines and 100 ms among 250.
pub struct Network {
    shared: Arc<Shared>,
    /// What brings back how the links were, for one under [`Network::disturb`].
    undo: Option<Mutex<Undo>>,
}

/// What all views of a network have in common.
struct Shared {
    /// A restored lab gets a restored switch, with the same ports.
    switch: Mutex<Arc<Switch>>,
    ports: BTreeMap<String, Port>,
    plan: Arc<Planned>,
    seed: Seed,
    /// How many minorities were chosen.
    chosen: AtomicU64,
    recorder: Recorder,
}

/// How the links are when nothing is cut or impaired.
struct Planned {
    /// The plan's name.
    words: String,
    /// Directions there are not.
    missing: BTreeSet<Link>,
    /// What is wrong with directions for good.
    impairments: BTreeMap<Link, Impairment>,
}

impl Network {
    /// Starts a switch with one port per name, nothing plugged in, linked as `plan` says, which was resolved for
    /// the same names.
    pub(crate) fn connect<'a>(
        names: impl Iterator<Item = &'a String>,
        plan: &LinkPlan,
        resolved: &Resolved,
        seed: Seed,
        recorder: &Recorder,
    ) -> Result<Network, ConnectError> {
        let options = SwitchOptions {
            seed: seed.0,
            ..SwitchOptions::DEFAULT
        };
        let switch = Switch::start_with(options).map_err(ConnectError::Start)?;
        let mut ports = BTreeMap::new();
        for name in names {
            // Each start of the machine takes a socket of its own; this first one is not used.
            let (port, _unused) = switch.attach(name).map_err(|source| ConnectError::Attach {
                machine: name.clone(),
                source,
            })?;
            ports.insert(name.clone(), port);
        }
        let network = Network {
            shared: Arc::new(Shared {
                switch: Mutex::new(Arc::new(switch)),
                plan: Arc::new(Planned::new(plan, resolved, ports.values())),
                ports,
                seed,
                chosen: AtomicU64::new(0),
                recorder: recorder.clone(),
            }),
            undo: None,
        };
        if *plan != LinkPlan::FullMesh {
            network.link_as_planned()?;
        }
        Ok(network)
    }

    fn link_as_planned(&self) -> Result<(), NetworkError> {
        let plan = Arc::clone(&self.shared.plan);
        let words = format!("a {}", plan.words);
        self.change(words, move |links| {
            plan.impairments
                .iter()
                .try_for_each(|(link, impairment)| set_impairment(links, *link, *impairment))
        })
    }

    /// Returns the switch of now.
    pub(crate) fn switch(&self) -> Arc<Switch> {
        self.shared.switch()
    }

    /// Puts another switch, which has the same ports, in the place of this one; its random choices are made from
    /// this run's seed.
    pub(crate) fn replace_switch(&self, switch: Switch) -> Result<(), Stopped> {
        match switch.set_seed(self.shared.seed.0) {
            Ok(_) => {}
            Err(ChangeError::Stopped(stopped)) => return Err(stopped),
            Err(ChangeError::Link(error)) => unreachable!("a seed concerns no link: {error}"),
        }
        *lock(&self.shared.switch) = Arc::new(switch);
        Ok(())
    }

    /// Returns the seed of the network's random choices.
    pub fn seed(&self) -> Seed {
        self.shared.seed
    }

    /// Returns what each machine's port has counted since the lab was built, all at the same moment.
    ///
    /// Frames are told by [`Cause`] where they were dropped, at the port they came from and at the one they were
    /// for. A restored lab has the counters of its checkpoint and counts on from there.
    ///
    /// # Errors
    ///
    /// If the switch has stopped.
    pub fn counters(&self) -> Result<BTreeMap<String, PortCounters>, NetworkError> {
        let counted = self.switch().counters()?.ports.into_iter();
        Ok(counted
            .map(|port| (port.name.as_ref().to_owned(), port))
            .collect())
    }

    /// Returns the directions that pass nothing, as who is not heard and by whom; those that the topology does
    /// not have, too.
    ///
    /// # Errors
    ///
    /// If the switch has stopped.
    pub fn cuts(&self) -> Result<Vec<(String, String)>, NetworkError> {
        let links = self.switch().links()?;
        let name = |port: Port| links.name(port).as_ref().to_owned();
        Ok(links
            .cuts()
            .map(|link| (name(link.from), name(link.to)))
            .collect())
    }

    /// Returns what is wrong with the direction from one machine to another, cuts aside.
    ///
    /// # Errors
    ///
    /// If there is no such machine or direction, or the switch has stopped.
    pub fn impairment(&self, from: &str, to: &str) -> Result<Impairment, NetworkError> {
        let link = self.direction_of(from, to)?;
        let links = self.switch().links()?;
        Ok(links.impairment(link).map_err(ChangeError::from)?)
    }

    pub(crate) fn port(&self, name: &str) -> Result<Port, NetworkError> {
        let ports = &self.shared.ports;
        ports
            .get(name)
            .copied()
            .ok_or_else(|| NetworkError::UnknownMachine {
                name: name.to_owned(),
                known: ports.keys().cloned().collect(),
            })
    }

    /// Returns all machines' names, in their order.
    fn names(&self) -> Vec<&str> {
        self.shared.ports.keys().map(String::as_str).collect()
    }

    /// Returns the direction between two machines, if the topology has it.
    fn direction_of(&self, from: &str, to: &str) -> Result<Link, NetworkError> {
        let link = Link {
            from: self.port(from)?,
            to: self.port(to)?,
        };
        if link.from == link.to {
            return Err(NetworkError::SameMachine {
                name: from.to_owned(),
            });
        }
        if self.shared.plan.missing.contains(&link) {
            return Err(NetworkError::NoLink {
                one: from.to_owned(),
                other: to.to_owned(),
                plan: self.shared.plan.words.clone(),
            });
        }
        Ok(link)
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
            self.shared.changed(words(&value), effect);
            return Ok(value);
        };
        // Held until the change is noted, so that changes are put back in the reverse of their order.
        let mut undo = lock(undo);
        let ((value, before), effect) = self.shared.apply(|links| {
            let old = links.clone();
            let value = change(links)?;
            Ok((value, Before::of_changed(&old, links)))
        })?;
        let words = words(&value);
        undo.add(words.clone(), before);
        self.shared.changed(words, effect);
        Ok(value)
    }
}

impl Shared {
    fn switch(&self) -> Arc<Switch> {
        Arc::clone(&lock(&self.switch))
    }

    /// Makes a change, keeps cut what the topology does not link, and returns what the change came to and the
    /// moment from which it counts.
    fn apply<T, C>(&self, change: C) -> Result<(T, Instant), NetworkError>
    where
        T: Send + 'static,
        C: FnOnce(&mut Links) -> Result<T, LinkError> + Send + 'static,
    {
        let plan = Arc::clone(&self.plan);
        let (tell, told) = mpsc::channel();
        let effect = self.switch().change(move |links| {
            let value = change(links)?;
            for link in &plan.missing {
                links.cut_link(*link)?;
            }
            // Whoever asked for the change waits for this.
            let _ = tell.send(value);
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

impl Planned {
    fn new<'a>(
        plan: &LinkPlan,
        resolved: &Resolved,
        ports: impl Iterator<Item = &'a Port>,
    ) -> Planned {
        let ports: Vec<Port> = ports.copied().collect();
        let link = |(from, to): (usize, usize)| Link {
            from: ports[from],
            to: ports[to],
        };
        let delayed = |delay: Latency| Impairment {
            delay: Delay::constant(delay),
            ..Impairment::NONE
        };
        let delays = resolved.delays.iter();
        Planned {
            words: plan.to_string(),
            missing: resolved.missing.iter().copied().map(link).collect(),
            impairments: delays
                .map(|(pair, delay)| (link(*pair), delayed(*delay)))
                .collect(),
        }
    }

    /// What is wrong with a direction for good.
    fn impairment(&self, link: Link) -> Impairment {
        self.impairments.get(&link).copied().unwrap_or_default()
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
