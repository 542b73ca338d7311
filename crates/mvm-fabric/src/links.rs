//! How the links are: which directions are cut, and which are impaired and how.
//!
//! Only settings live here. What an impairment does to frames is in `direction`, frames on their way are in
//! `transit`, and the directions that make a partition are told by `partition`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::impairment::Impairment;
use crate::link::{AddPortError, Link, LinkError, Port, Scope};
use crate::partition::{self, CutSet};

/// What is looked at for every frame: the rest is looked up only if it says so.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cell {
    pub(crate) cut: bool,
    pub(crate) impaired: bool,
}

impl Cell {
    /// Tells whether frames pass as if there were no link at all.
    pub(crate) fn is_in_order(self) -> bool {
        !self.cut && !self.impaired
    }
}

/// The ports by name, and the state of every direction between two of them.
///
/// Each change is made as a whole, or not at all if it returns an error. Cuts and impairments are apart:
/// healing a cut link leaves its impairment, and clearing an impairment leaves the link cut.
#[derive(Clone, Debug)]
pub struct Links {
    seed: u64,
    names: Vec<Arc<str>>,
    ports: HashMap<Arc<str>, Port>,
    /// `cells[from][to]`.
    cells: Vec<Vec<Cell>>,
    impairments: BTreeMap<Scope, Impairment>,
}

impl Links {
    pub(crate) fn new(seed: u64) -> Links {
        Links {
            seed,
            names: Vec::new(),
            ports: HashMap::new(),
            cells: Vec::new(),
            impairments: BTreeMap::new(),
        }
    }

    /// Adds a port with no direction cut, and impaired where a scope says so.
    pub(crate) fn add_port(&mut self, name: &str, ports_max: usize) -> Result<Port, AddPortError> {
        if self.ports.contains_key(name) {
            return Err(AddPortError::NameTaken {
                name: name.to_owned(),
            });
        }
        let number = u32::try_from(self.names.len()).ok();
        let Some(number) = number.filter(|_| self.names.len() < ports_max) else {
            return Err(AddPortError::TooManyPorts { ports_max });
        };
        let port = Port(number);
        let name: Arc<str> = name.into();
        self.ports.insert(Arc::clone(&name), port);
        self.names.push(name);
        for row in &mut self.cells {
            row.push(Cell::default());
        }
        self.cells.push(vec![Cell::default(); self.names.len()]);
        self.mark_impaired(Scope::From(port));
        self.mark_impaired(Scope::To(port));
        Ok(port)
    }

    /// Finds a port by its name.
    pub fn port(&self, name: &str) -> Option<Port> {
        self.ports.get(name).copied()
    }

    /// The name of a port.
    ///
    /// # Panics
    ///
    /// If the port belongs to another switch.
    pub fn name(&self, port: Port) -> &Arc<str> {
        &self.names[port.index()]
    }

    /// All ports, in the order they were added.
    pub fn ports(&self) -> impl Iterator<Item = Port> + use<> {
        (0..self.names.len() as u32).map(Port)
    }

    /// What all random choices of impairments are made from.
    ///
    /// Each direction has a stream of choices of its own, made from the seed and the names of both ports. The
    /// same frames in one direction meet the same fates under the same seed, whatever happens elsewhere.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Sets the seed; if it is another one, the choices of every direction begin anew.
    pub fn set_seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// Cuts one direction: `to` no longer hears `from`.
    ///
    /// Here and in all cuts below, frames on their way over a cut direction are dropped, those that wait for
    /// their egress port included, except one that is partly sent.
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn cut_link(&mut self, link: Link) -> Result<(), LinkError> {
        self.check_link(link)?;
        self.cell_mut(link).cut = true;
        Ok(())
    }

    /// Cuts both directions of a pair.
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn cut(&mut self, a: Port, b: Port) -> Result<(), LinkError> {
        self.cut_link(Link { from: a, to: b })?;
        self.cut_link(Link { from: b, to: a })
    }

    /// Makes one direction whole, however it was cut. An impairment stays, here and below.
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn heal_link(&mut self, link: Link) -> Result<(), LinkError> {
        self.check_link(link)?;
        self.cell_mut(link).cut = false;
        Ok(())
    }

    /// Makes both directions of a pair whole.
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn heal(&mut self, a: Port, b: Port) -> Result<(), LinkError> {
        self.heal_link(Link { from: a, to: b })?;
        self.heal_link(Link { from: b, to: a })
    }

    /// Makes all directions from and to one port whole.
    ///
    /// # Errors
    ///
    /// If the port is unknown.
    pub fn heal_one(&mut self, one: Port) -> Result<(), LinkError> {
        self.check_port(one)?;
        for other in self.ports() {
            self.cells[one.index()][other.index()].cut = false;
            self.cells[other.index()][one.index()].cut = false;
        }
        Ok(())
    }

    /// Makes all directions whole.
    pub fn heal_all(&mut self) {
        for cell in self.cells.iter_mut().flatten() {
            cell.cut = false;
        }
    }

    /// Cuts both directions between `one` and every other port there is now, and leaves the others alone.
    ///
    /// # Errors
    ///
    /// If the port is unknown.
    pub fn isolate(&mut self, one: Port) -> Result<(), LinkError> {
        self.check_port(one)?;
        self.add_cuts(&partition::isolate(&self.all_ports(), one));
        Ok(())
    }

    /// Cuts from each port of one group to each of another, and leaves all else alone: `to` no longer hears
    /// `from`, which still hears `to`.
    ///
    /// # Errors
    ///
    /// If a port is unknown or named twice.
    pub fn one_way(&mut self, from: &[Port], to: &[Port]) -> Result<(), LinkError> {
        self.check_distinct(from.iter().chain(to).copied())?;
        self.add_cuts(&partition::one_way(from, to));
        Ok(())
    }

    /// Splits the ports: those of different groups exchange no frames, those of one group all do.
    ///
    /// Ports that are not named form one more group together. Here and in the partitions below, earlier cuts
    /// are replaced, so one partition can follow another with no healed moment between.
    ///
    /// # Errors
    ///
    /// If a port is unknown or named twice.
    pub fn partition<G: AsRef<[Port]>>(&mut self, groups: &[G]) -> Result<(), LinkError> {
        self.check_distinct(groups.iter().flat_map(AsRef::as_ref).copied())?;
        self.replace_cuts(&partition::groups(&self.all_ports(), groups));
        Ok(())
    }

    /// Splits `nodes` into two halves that do not hear each other, while both exchange frames with `bridge`,
    /// which is one of them.
    ///
    /// The halves are taken in the order given, the smaller one first. Here and in the partitions below,
    /// ports that are not among `nodes` exchange frames with everybody.
    ///
    /// # Errors
    ///
    /// If a port is unknown or named twice, the bridge is no node, or there are fewer than three.
    pub fn bridge(&mut self, nodes: &[Port], bridge: Port) -> Result<(), LinkError> {
        self.check_port(bridge)?;
        self.check_nodes(nodes)?;
        if !nodes.contains(&bridge) {
            return Err(LinkError::BridgeElsewhere {
                name: Arc::clone(self.name(bridge)),
            });
        }
        self.replace_cuts(&partition::bridge(nodes, bridge));
        Ok(())
    }

    /// Lets every node hear just a majority of `nodes`, itself included, and no two the same one.
    ///
    /// As in Jepsen, nodes stand in a ring, in the order given, and each hears those next to it. If a
    /// majority is an even number, as of three nodes or of seven, some hear each other in one direction only.
    ///
    /// # Errors
    ///
    /// If a port is unknown or named twice, or there are fewer than three.
    pub fn majorities_ring(&mut self, nodes: &[Port]) -> Result<(), LinkError> {
        self.check_nodes(nodes)?;
        self.replace_cuts(&partition::majorities_ring(nodes));
        Ok(())
    }

    /// Cuts a minority of `nodes`, the largest there is and chosen by `seed`, off from the others, and
    /// tells which.
    ///
    /// # Errors
    ///
    /// If a port is unknown or named twice, or there are fewer than three.
    pub fn random_minority(&mut self, nodes: &[Port], seed: u64) -> Result<Vec<Port>, LinkError> {
        self.check_nodes(nodes)?;
        let minority = partition::random_minority(nodes, seed);
        self.replace_cuts(&partition::split(nodes, &minority));
        Ok(minority)
    }

    /// Tells whether one direction is cut.
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn is_cut(&self, link: Link) -> Result<bool, LinkError> {
        self.check_link(link)?;
        Ok(self.cell(link).cut)
    }

    /// The directions that are cut.
    pub fn cuts(&self) -> impl Iterator<Item = Link> {
        let cut = |(from, to): (Port, Port)| {
            let link = Link { from, to };
            self.cell(link).cut.then_some(link)
        };
        self.ports()
            .flat_map(|from| self.ports().map(move |to| (from, to)))
            .filter_map(cut)
    }

    /// Sets what is wrong with the directions of a scope, in the place of what was set for that scope.
    ///
    /// [`Impairment::NONE`] makes an exception from what a wider scope says. Frames on their way keep the
    /// times they were given, except where nothing is wrong any more, see [`Links::clear`].
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn impair(&mut self, scope: Scope, impairment: Impairment) -> Result<(), LinkError> {
        self.check_scope(scope)?;
        self.impairments.insert(scope, impairment);
        self.mark_impaired(scope);
        Ok(())
    }

    /// Removes what is set for a scope; wider scopes count again. Cuts stay.
    ///
    /// Frames on their way over a direction with which nothing is wrong any more are delivered at once, in
    /// the order in which they would have arrived.
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn clear(&mut self, scope: Scope) -> Result<(), LinkError> {
        self.check_scope(scope)?;
        self.impairments.remove(&scope);
        self.mark_impaired(scope);
        Ok(())
    }

    /// Removes what is set for any scope. Cuts stay.
    pub fn clear_impairments(&mut self) {
        self.impairments.clear();
        self.mark_impaired(Scope::All);
    }

    /// What is wrong with a direction: what the most specific scope says.
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn impairment(&self, link: Link) -> Result<Impairment, LinkError> {
        self.check_link(link)?;
        Ok(*self.impairment_of(link))
    }

    /// All that is set, by scope.
    pub fn impairments(&self) -> impl Iterator<Item = (Scope, &Impairment)> {
        self.impairments
            .iter()
            .map(|(scope, impairment)| (*scope, impairment))
    }

    pub(crate) fn cell(&self, link: Link) -> Cell {
        self.cells[link.from.index()][link.to.index()]
    }

    pub(crate) fn impairment_of(&self, link: Link) -> &Impairment {
        let scopes = [
            Scope::Link(link),
            Scope::From(link.from),
            Scope::To(link.to),
            Scope::All,
        ];
        scopes
            .iter()
            .find_map(|scope| self.impairments.get(scope))
            .unwrap_or(&Impairment::NONE)
    }

    pub(crate) fn check_port(&self, port: Port) -> Result<(), LinkError> {
        let ports = self.names.len();
        if port.index() < ports {
            Ok(())
        } else {
            Err(LinkError::UnknownPort { port, ports })
        }
    }

    pub(crate) fn check_link(&self, link: Link) -> Result<(), LinkError> {
        self.check_port(link.from)?;
        self.check_port(link.to)?;
        if link.from == link.to {
            return Err(LinkError::SamePort {
                name: Arc::clone(self.name(link.from)),
            });
        }
        Ok(())
    }

    fn check_scope(&self, scope: Scope) -> Result<(), LinkError> {
        match scope {
            Scope::All => Ok(()),
            Scope::From(port) | Scope::To(port) => self.check_port(port),
            Scope::Link(link) => self.check_link(link),
        }
    }

    fn check_distinct(&self, ports: impl Iterator<Item = Port>) -> Result<(), LinkError> {
        let mut named = vec![false; self.names.len()];
        for port in ports {
            self.check_port(port)?;
            if std::mem::replace(&mut named[port.index()], true) {
                return Err(LinkError::NamedTwice {
                    name: Arc::clone(self.name(port)),
                });
            }
        }
        Ok(())
    }

    /// Checks the nodes of a partition that needs both a majority and a minority.
    fn check_nodes(&self, nodes: &[Port]) -> Result<(), LinkError> {
        const NODES_MIN: usize = 3;
        self.check_distinct(nodes.iter().copied())?;
        if nodes.len() < NODES_MIN {
            return Err(LinkError::TooFewNodes {
                nodes: nodes.len(),
                nodes_min: NODES_MIN,
            });
        }
        Ok(())
    }

    fn all_ports(&self) -> Vec<Port> {
        self.ports().collect()
    }

    fn cell_mut(&mut self, link: Link) -> &mut Cell {
        &mut self.cells[link.from.index()][link.to.index()]
    }

    fn add_cuts(&mut self, cuts: &CutSet) {
        for link in cuts {
            self.cell_mut(*link).cut = true;
        }
    }

    fn replace_cuts(&mut self, cuts: &CutSet) {
        self.heal_all();
        self.add_cuts(cuts);
    }

    /// Notes for each direction of a scope whether anything is wrong with it.
    fn mark_impaired(&mut self, scope: Scope) {
        match scope {
            Scope::All => {
                for from in self.ports() {
                    self.mark_impaired(Scope::From(from));
                }
            }
            Scope::From(from) => {
                for to in self.ports() {
                    self.mark_link(Link { from, to });
                }
            }
            Scope::To(to) => {
                for from in self.ports() {
                    self.mark_link(Link { from, to });
                }
            }
            Scope::Link(link) => self.mark_link(link),
        }
    }

    fn mark_link(&mut self, link: Link) {
        let impaired = !self.impairment_of(link).is_none();
        self.cell_mut(link).impaired = impaired;
    }
}
