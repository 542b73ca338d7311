//! Which machine is on which port of the switch, and which directions there are between them. Pure: fixed when a lab
//! is built.
//!
//! A machine has a port per card, and each port belongs to the VLAN of its segment. There are only directions between
//! different machines on one segment that its [`LinkPlan`] links.

use std::collections::{BTreeMap, BTreeSet};

use mvm_fabric::{Delay, Impairment, Link, Port};

use super::{ConnectError, LinkPlan, NetworkError};

/// A card's place at the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u8,
    pub(super) port: Port,
}

/// A direction there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) segment: u8,
    pub(super) link: Link,
    /// The position of the machine it comes from.
    pub(super) from: usize,
    /// The position of the machine it goes to.
    pub(super) to: usize,
}

/// The cards of all machines, and the directions between them.
#[derive(Debug, Default)]
pub(super) struct Wiring {
    /// The machines' names, sorted; positions of machines are positions here.
    pub(super) names: Vec<String>,
    /// By machine, its cards in their order.
    pub(super) places: Vec<Vec<Place>>,
    pub(super) ways: Vec<Way>,
    /// Directions on one segment that its plan does not have.
    pub(super) missing: BTreeSet<Link>,
    /// What is wrong with directions for good.
    pub(super) impairments: BTreeMap<Link, Impairment>,
    /// By segment, its plan's name.
    plans: BTreeMap<u8, String>,
}

impl Wiring {
    /// Wires machines, sorted by name, each with its cards.
    pub(super) fn new(
        machines: Vec<(String, Vec<Place>)>,
        plans: &BTreeMap<u8, LinkPlan>,
    ) -> Result<Wiring, ConnectError> {
        let (names, places) = machines.into_iter().unzip();
        let mut wiring = Wiring {
            names,
            places,
            ..Wiring::default()
        };
        let segments: BTreeSet<u8> = wiring
            .all_places()
            .map(|(_, place)| place.segment)
            .collect();
        for segment in segments {
            let plan = plans.get(&segment).cloned().unwrap_or_default();
            wiring.wire(segment, &plan)?;
        }
        Ok(wiring)
    }

    fn wire(&mut self, segment: u8, plan: &LinkPlan) -> Result<(), ConnectError> {
        let on_it: Vec<(usize, Port)> = self
            .all_places()
            .filter(|(_, place)| place.segment == segment)
            .map(|(machine, place)| (machine, place.port))
            .collect();
        let names: Vec<&str> = on_it
            .iter()
            .map(|(machine, _)| self.names[*machine].as_str())
            .collect();
        let resolved = plan
            .resolve(&names)
            .map_err(|source| ConnectError::Plan { segment, source })?;
        for (one, (from, from_port)) in on_it.iter().enumerate() {
            for (other, (to, to_port)) in
                on_it.iter().enumerate().filter(|(other, _)| *other != one)
            {
                let link = Link {
                    from: *from_port,
                    to: *to_port,
                };
                if resolved.missing.contains(&(one, other)) {
                    self.missing.insert(link);
                    continue;
                }
                if let Some(delay) = resolved.delays.get(&(one, other)) {
                    let delayed = Impairment {
                        delay: Delay::constant(*delay),
                        ..Impairment::NONE
                    };
                    self.impairments.insert(link, delayed);
                }
                self.ways.push(Way {
                    segment,
                    link,
                    from: *from,
                    to: *to,
                });
            }
        }
        self.plans.insert(segment, plan.to_string());
        Ok(())
    }

    /// Every card, with the position of its machine.
    pub(super) fn all_places(&self) -> impl Iterator<Item = (usize, Place)> {
        let machines = self.places.iter().enumerate();
        machines.flat_map(|(machine, places)| places.iter().map(move |place| (machine, *place)))
    }

    /// Tells a machine's position.
    pub(super) fn position(&self, name: &str) -> Result<usize, NetworkError> {
        let found = self
            .names
            .binary_search_by(|known| known.as_str().cmp(name));
        found.map_err(|_| NetworkError::UnknownMachine {
            name: name.to_owned(),
            known: self.names.clone(),
        })
    }

    /// Tells the segments there are.
    pub(super) fn segments(&self) -> Vec<u8> {
        self.plans.keys().copied().collect()
    }

    /// How the machines of the segments in view are linked, as in "the topology is a ...".
    pub(super) fn plan_words(&self, segment: Option<u8>) -> String {
        let in_view = self
            .plans
            .iter()
            .filter(|(number, _)| segment.is_none_or(|only| only == **number));
        let plans: Vec<String> = match self.plans.len() {
            1 => self.plans.values().cloned().collect(),
            _ => in_view
                .map(|(number, plan)| format!("{plan} on segment {number}"))
                .collect(),
        };
        plans.join(", ")
    }

    /// What is wrong with a direction for good.
    pub(super) fn impairment(&self, link: Link) -> Impairment {
        self.impairments.get(&link).copied().unwrap_or_default()
    }
}
