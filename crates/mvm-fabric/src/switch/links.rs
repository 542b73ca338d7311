//! Changing the links of a running switch, in the words of [`Links`].
//!
//! Each method sends one change to the thread; what it means is in `links` and `segment`.

use std::time::Instant;

use super::{ChangeError, Stopped, Switch};
use crate::impairment::Impairment;
use crate::link::{Link, LinkError, Port, Scope};
use crate::links::Links;

impl Switch {
    /// Makes several changes that take effect together, between two frames.
    ///
    /// `change` runs on the thread of the switch, and no frame passes until it returns.
    ///
    /// # Errors
    ///
    /// Whatever `change` returns; nothing is changed then.
    pub fn change<C>(&self, change: C) -> Result<Instant, ChangeError>
    where
        C: FnOnce(&mut Links) -> Result<(), LinkError> + Send + 'static,
    {
        let ((), effect) = self.change_telling(change)?;
        Ok(effect)
    }

    /// How the links are now.
    ///
    /// # Errors
    ///
    /// If the switch has stopped.
    pub fn links(&self) -> Result<Links, Stopped> {
        self.call(|worker| worker.segment.links().clone())
    }

    /// The seed of all random choices, see [`Links::seed`].
    ///
    /// # Errors
    ///
    /// If the switch has stopped.
    pub fn seed(&self) -> Result<u64, Stopped> {
        self.call(|worker| worker.segment.links().seed())
    }

    /// Sets the seed, see [`Links::set_seed`].
    ///
    /// # Errors
    ///
    /// If the switch has stopped.
    pub fn set_seed(&self, seed: u64) -> Result<Instant, ChangeError> {
        self.change(move |links| {
            links.set_seed(seed);
            Ok(())
        })
    }

    /// Cuts both directions between two ports, see [`Links::cut`].
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn cut(&self, a: Port, b: Port) -> Result<Instant, ChangeError> {
        self.change(move |links| links.cut(a, b))
    }

    /// Cuts one direction, see [`Links::cut_link`].
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn cut_link(&self, link: Link) -> Result<Instant, ChangeError> {
        self.change(move |links| links.cut_link(link))
    }

    /// Makes both directions between two ports whole, see [`Links::heal`].
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn heal(&self, a: Port, b: Port) -> Result<Instant, ChangeError> {
        self.change(move |links| links.heal(a, b))
    }

    /// Makes one direction whole, see [`Links::heal_link`].
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn heal_link(&self, link: Link) -> Result<Instant, ChangeError> {
        self.change(move |links| links.heal_link(link))
    }

    /// Makes all directions from and to one port whole, see [`Links::heal_one`].
    ///
    /// # Errors
    ///
    /// If the port is unknown.
    pub fn heal_one(&self, one: Port) -> Result<Instant, ChangeError> {
        self.change(move |links| links.heal_one(one))
    }

    /// Makes all directions whole, see [`Links::heal_all`]. Impairments stay.
    ///
    /// # Errors
    ///
    /// If the switch has stopped.
    pub fn heal_all(&self) -> Result<Instant, ChangeError> {
        self.change(|links| {
            links.heal_all();
            Ok(())
        })
    }

    /// Cuts one port off from all others, see [`Links::isolate`].
    ///
    /// # Errors
    ///
    /// If the port is unknown.
    pub fn isolate(&self, one: Port) -> Result<Instant, ChangeError> {
        self.change(move |links| links.isolate(one))
    }

    /// Cuts from one group to another and not back, see [`Links::one_way`].
    ///
    /// # Errors
    ///
    /// If a port is unknown or named twice.
    pub fn one_way(&self, from: &[Port], to: &[Port]) -> Result<Instant, ChangeError> {
        let (from, to) = (from.to_vec(), to.to_vec());
        self.change(move |links| links.one_way(&from, &to))
    }

    /// Splits the machines into groups, see [`Links::partition`].
    ///
    /// # Errors
    ///
    /// If a port is unknown or named twice.
    pub fn partition<G: AsRef<[Port]>>(&self, groups: &[G]) -> Result<Instant, ChangeError> {
        let groups: Vec<Vec<Port>> = groups.iter().map(|group| group.as_ref().to_vec()).collect();
        self.change(move |links| links.partition(&groups))
    }

    /// Splits machines into two halves that share one of them, see [`Links::bridge`].
    ///
    /// # Errors
    ///
    /// If a port is unknown or named twice, the bridge is no node, or there are fewer than three.
    pub fn bridge(&self, nodes: &[Port], bridge: Port) -> Result<Instant, ChangeError> {
        let nodes = nodes.to_vec();
        self.change(move |links| links.bridge(&nodes, bridge))
    }

    /// Lets every machine hear another majority, see [`Links::majorities_ring`].
    ///
    /// # Errors
    ///
    /// If a port is unknown or named twice, or there are fewer than three.
    pub fn majorities_ring(&self, nodes: &[Port]) -> Result<Instant, ChangeError> {
        let nodes = nodes.to_vec();
        self.change(move |links| links.majorities_ring(&nodes))
    }

    /// Cuts off a minority chosen by `seed` and tells which, see [`Links::random_minority`].
    ///
    /// # Errors
    ///
    /// If a port is unknown or named twice, or there are fewer than three.
    pub fn random_minority(
        &self,
        nodes: &[Port],
        seed: u64,
    ) -> Result<(Vec<Port>, Instant), ChangeError> {
        let nodes = nodes.to_vec();
        self.change_telling(move |links| links.random_minority(&nodes, seed))
    }

    /// Tells whether one direction is cut.
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn is_cut(&self, link: Link) -> Result<bool, ChangeError> {
        Ok(self.call(move |worker| worker.segment.links().is_cut(link))??)
    }

    /// Sets what is wrong with the directions of a scope, see [`Links::impair`].
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn impair(&self, scope: Scope, impairment: Impairment) -> Result<Instant, ChangeError> {
        self.change(move |links| links.impair(scope, impairment))
    }

    /// Removes what is set for a scope, see [`Links::clear`]. Cuts stay.
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn clear(&self, scope: Scope) -> Result<Instant, ChangeError> {
        self.change(move |links| links.clear(scope))
    }

    /// Removes what is set for any scope, see [`Links::clear_impairments`]. Cuts stay.
    ///
    /// # Errors
    ///
    /// If the switch has stopped.
    pub fn clear_impairments(&self) -> Result<Instant, ChangeError> {
        self.change(|links| {
            links.clear_impairments();
            Ok(())
        })
    }

    fn change_telling<T, C>(&self, change: C) -> Result<(T, Instant), ChangeError>
    where
        T: Send + 'static,
        C: FnOnce(&mut Links) -> Result<T, LinkError> + Send + 'static,
    {
        self.call(|worker| {
            let answer = worker.segment.change(change)?;
            Ok((answer, Instant::now()))
        })?
    }
}
