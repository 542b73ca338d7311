//! Who hears whom: cuts, partitions and healing by machine name.
//!
//! Which directions a partition cuts is `mvm-fabric`'s; that nothing heals what the topology does not link is seen
//! to where changes are made.

use mvm_fabric::Port;

use super::{Network, NetworkError};

/// Cuts and healing. A cut passes nothing, and what was on its way is dropped; impairments stay, and count again
/// once it is healed.
///
/// [`cut`](Network::cut), [`one_way`](Network::one_way) and [`isolate`](Network::isolate) add to the cuts there
/// are. Partitions take their place, with no healed moment between.
impl Network {
    /// Cuts the link between two machines, both ways.
    ///
    /// # Errors
    ///
    /// Here and below: [`NetworkError`], with nothing changed.
    pub fn cut(&self, one: &str, other: &str) -> Result<(), NetworkError> {
        let link = self.direction_of(one, other)?;
        self.change(format!("cut {one} - {other}"), move |links| {
            links.cut(link.from, link.to)
        })
    }

    /// Cuts the direction between two machines in which `to` hears `from`; `from` still hears `to`.
    ///
    /// Protocols that need both directions, such as the search for an address, fail altogether.
    pub fn one_way(&self, from: &str, to: &str) -> Result<(), NetworkError> {
        let link = self.direction_of(from, to)?;
        self.change(format!("cut {from} -> {to}"), move |links| {
            links.cut_link(link)
        })
    }

    /// Cuts one machine off from all others, both ways.
    pub fn isolate(&self, name: &str) -> Result<(), NetworkError> {
        let port = self.port(name)?;
        self.change(format!("isolate {name}"), move |links| links.isolate(port))
    }

    /// Splits the network: machines in different groups cannot reach one another, those in one group can. Machines
    /// in no group form one more group.
    pub fn partition(&self, groups: &[&[&str]]) -> Result<(), NetworkError> {
        let said = said(groups);
        let mut named: Vec<&str> = groups.iter().copied().flatten().copied().collect();
        let split = self.groups(groups)?;
        named.sort_unstable();
        let rest = self.shared.ports.len() - named.len();
        let parts = groups.iter().filter(|group| !group.is_empty()).count() + usize::from(rest > 0);
        if parts < 2 {
            return Err(NetworkError::PartsNothing { groups: said });
        }
        self.change(format!("partition {said}"), move |links| {
            links.partition(&split)
        })
    }

    /// Splits the network in two halves, in the order of the machines; the first is the smaller one.
    pub fn halves(&self) -> Result<(), NetworkError> {
        let names = self.names();
        let (first, second) = names.split_at(names.len() / 2);
        self.partition(&[first, second])
    }

    /// Splits all machines but one in two halves, in their order, that both hear and are heard by that one.
    pub fn bridge(&self, name: &str) -> Result<(), NetworkError> {
        self.port(name)?;
        let mut others = self.names();
        others.retain(|other| *other != name);
        let (first, second) = others.split_at(others.len() / 2);
        self.bridge_between(first, second)
    }

    /// Splits two groups from each other; machines in neither hear and are heard by all.
    pub fn bridge_between(&self, first: &[&str], second: &[&str]) -> Result<(), NetworkError> {
        let groups = [first, second];
        let said = said(&groups);
        let split = self.groups(&groups)?;
        if first.is_empty() || second.is_empty() {
            return Err(NetworkError::PartsNothing { groups: said });
        }
        let named = groups.concat();
        let mut bridges = self.names();
        bridges.retain(|name| !named.contains(name));
        if bridges.is_empty() {
            return self.partition(&groups);
        }
        let words = format!("bridge {} between {said}", bridges.join(", "));
        self.change(words, move |links| {
            links.heal_all();
            for one in &split[0] {
                for other in &split[1] {
                    links.cut(*one, *other)?;
                }
            }
            Ok(())
        })
    }

    /// Lets every machine hear just a majority of all, itself included, and no two the same one.
    ///
    /// Machines stand in a ring in their order, and each hears those next to it. Where a majority is an even
    /// number, as of three or of seven machines, some hear each other in one direction only.
    pub fn majorities_ring(&self) -> Result<(), NetworkError> {
        let nodes = self.all_ports();
        let words = format!("majorities ring {}", self.names().join(", "));
        self.change(words, move |links| links.majorities_ring(&nodes))
    }

    /// Cuts the largest minority there is off from the others, drawn from the run's seed, and returns its names.
    ///
    /// Each call draws anew. Runs with the same seed that make the same calls draw the same.
    pub fn random_minority(&self) -> Result<Vec<String>, NetworkError> {
        let nodes = self.all_ports();
        let seed = self.shared.next_choice();
        self.change_telling(
            move |links| {
                let minority = links.random_minority(&nodes, seed)?;
                let names = minority.iter().map(|port| links.name(*port).as_ref());
                Ok(names.map(str::to_owned).collect())
            },
            |names: &Vec<String>| format!("random minority {}", names.join(", ")),
        )
    }

    /// Restores the link between two machines, both ways, however it was cut.
    pub fn heal(&self, one: &str, other: &str) -> Result<(), NetworkError> {
        let link = self.direction_of(one, other)?;
        self.change(format!("heal {one} - {other}"), move |links| {
            links.heal(link.from, link.to)
        })
    }

    /// Restores every link of one machine that the topology has.
    pub fn heal_one(&self, name: &str) -> Result<(), NetworkError> {
        let port = self.port(name)?;
        self.change(format!("heal {name}"), move |links| links.heal_one(port))
    }

    /// Restores every link that the topology has. Impairments stay: `all().clear()` removes those.
    pub fn heal_all(&self) -> Result<(), NetworkError> {
        self.change("heal all".to_owned(), |links| {
            links.heal_all();
            Ok(())
        })
    }

    fn all_ports(&self) -> Vec<Port> {
        self.shared.ports.values().copied().collect()
    }

    /// Returns the ports of groups in which no machine stands twice.
    fn groups(&self, groups: &[&[&str]]) -> Result<Vec<Vec<Port>>, NetworkError> {
        let mut named: Vec<&str> = groups.concat();
        named.sort_unstable();
        if let Some(pair) = named.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(NetworkError::InTwoGroups {
                name: pair[0].to_owned(),
            });
        }
        groups
            .iter()
            .map(|group| group.iter().map(|name| self.port(name)).collect())
            .collect()
    }
}

fn said(groups: &[&[&str]]) -> String {
    let groups: Vec<String> = groups.iter().map(|group| group.join(", ")).collect();
    groups.join(" | ")
}
