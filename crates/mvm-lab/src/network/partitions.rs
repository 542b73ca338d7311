//! Who hears whom: cuts, partitions and healing by machine name.
//!
//! Which directions a partition cuts is `mvm-fabric`'s; that nothing heals what the topology does not link is seen
//! to where changes are made.

use std::sync::Arc;

use mvm_fabric::{Link, LinkError, Links, Port};

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
        let cut = self.directions_of(one, other)?;
        self.change(format!("cut {one} - {other}"), move |links| {
            cut.iter()
                .try_for_each(|link| links.cut(link.from, link.to))
        })
    }

    /// Cuts the direction between two machines in which `to` hears `from`; `from` still hears `to`.
    ///
    /// Protocols that need both directions, such as the search for an address, fail altogether.
    pub fn one_way(&self, from: &str, to: &str) -> Result<(), NetworkError> {
        let cut = self.directions_of(from, to)?;
        self.change(format!("cut {from} -> {to}"), move |links| {
            cut_all(links, &cut)
        })
    }

    /// Cuts one machine off from all others, both ways.
    pub fn isolate(&self, name: &str) -> Result<(), NetworkError> {
        let machine = self.machine(name)?;
        let cut = self.planned(|way| way.from == machine || way.to == machine);
        self.change(format!("isolate {name}"), move |links| cut_all(links, &cut))
    }

    /// Splits the network: machines in different groups cannot reach one another, those in one group can. Machines
    /// in no group form one more group.
    pub fn partition(&self, groups: &[&[&str]]) -> Result<(), NetworkError> {
        let said = said(groups);
        let split = self.groups(groups)?;
        let rest = self.names().len() - split.iter().map(Vec::len).sum::<usize>();
        let parts = split.iter().filter(|group| !group.is_empty()).count() + usize::from(rest > 0);
        if parts < 2 {
            return Err(NetworkError::PartsNothing { groups: said });
        }
        self.part(
            move |links, _| links.partition(&split),
            |()| format!("partition {said}"),
        )
    }

    /// Splits the network in two halves, in the order of the machines; the first is the smaller one.
    pub fn halves(&self) -> Result<(), NetworkError> {
        let names = self.names();
        let (first, second) = names.split_at(names.len() / 2);
        self.partition(&[first, second])
    }

    /// Splits all machines but one in two halves, in their order, that both hear and are heard by that one.
    pub fn bridge(&self, name: &str) -> Result<(), NetworkError> {
        self.machine(name)?;
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
        self.part(
            move |links, _| {
                for one in &split[0] {
                    for other in &split[1] {
                        links.cut(*one, *other)?;
                    }
                }
                Ok(())
            },
            |()| words,
        )
    }

    /// Lets every machine hear just a majority of all, itself included, and no two the same one.
    ///
    /// Machines stand in a ring in their order, and each hears those next to it. Where a majority is an even
    /// number, as of three or of seven machines, some hear each other in one direction only.
    pub fn majorities_ring(&self) -> Result<(), NetworkError> {
        let words = format!("majorities ring {}", self.names().join(", "));
        self.part(
            |links, machines| links.majorities_ring(machines),
            |()| words,
        )
    }

    /// Cuts the largest minority there is off from the others, drawn from the run's seed, and returns its names.
    ///
    /// Each call draws anew. Runs with the same seed that make the same calls draw the same.
    pub fn random_minority(&self) -> Result<Vec<String>, NetworkError> {
        let seed = self.shared.next_choice();
        let names: Vec<String> = self.names().into_iter().map(str::to_owned).collect();
        self.part(
            move |links, machines| {
                let minority = links.random_minority(machines, seed)?;
                let chosen = machines.iter().zip(&names);
                let chosen = chosen.filter(|(machine, _)| minority.contains(machine));
                Ok(chosen.map(|(_, name)| name.clone()).collect())
            },
            |names: &Vec<String>| format!("random minority {}", names.join(", ")),
        )
    }

    /// Restores the link between two machines, both ways, however it was cut.
    pub fn heal(&self, one: &str, other: &str) -> Result<(), NetworkError> {
        let healed = self.directions_of(one, other)?;
        self.change(format!("heal {one} - {other}"), move |links| {
            healed
                .iter()
                .try_for_each(|link| links.heal(link.from, link.to))
        })
    }

    /// Restores every link of one machine that the topology has.
    pub fn heal_one(&self, name: &str) -> Result<(), NetworkError> {
        let machine = self.machine(name)?;
        let healed = self.planned(|way| way.from == machine || way.to == machine);
        self.change(format!("heal {name}"), move |links| {
            heal_all(links, &healed)
        })
    }

    /// Restores every link that the topology has. Impairments stay: `all().clear()` removes those.
    pub fn heal_all(&self) -> Result<(), NetworkError> {
        let healed = self.planned(|_| true);
        self.change("heal all".to_owned(), move |links| heal_all(links, &healed))
    }

    /// Replaces the cuts in view by those that `part` makes between machines, each of which stands for all its cards.
    ///
    /// `part` is given links that are whole, and the machines in view as one port each; what it cuts between two of
    /// them is cut on every segment in view that both are on.
    fn part<T, P>(&self, part: P, words: impl FnOnce(&T) -> String) -> Result<T, NetworkError>
    where
        T: Send + 'static,
        P: FnOnce(&mut Links, &[Port]) -> Result<T, LinkError> + Send + 'static,
    {
        let wiring = Arc::clone(&self.shared.wiring);
        let machines: Vec<usize> = self.machines().collect();
        let in_view = self.segment;
        self.change_telling(
            move |links| {
                let mut model = links.clone();
                model.heal_all();
                let stands_for = |machine: usize| wiring.places[machine][0].port;
                let machines: Vec<Port> = machines.iter().copied().map(stands_for).collect();
                let told = part(&mut model, &machines)?;
                for way in &wiring.ways {
                    if in_view.is_some_and(|segment| segment != way.segment) {
                        continue;
                    }
                    let between = Link {
                        from: stands_for(way.from),
                        to: stands_for(way.to),
                    };
                    match model.is_cut(between)? {
                        true => links.cut_link(way.link)?,
                        false => links.heal_link(way.link)?,
                    }
                }
                Ok(told)
            },
            words,
        )
    }

    /// Returns groups of machines, each as the port that stands for it, in which no machine stands twice.
    fn groups(&self, groups: &[&[&str]]) -> Result<Vec<Vec<Port>>, NetworkError> {
        let mut named: Vec<&str> = groups.concat();
        named.sort_unstable();
        if let Some(pair) = named.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(NetworkError::InTwoGroups {
                name: pair[0].to_owned(),
            });
        }
        let stands_for = |name: &&str| {
            let machine = self.machine(name)?;
            Ok(self.shared.wiring.places[machine][0].port)
        };
        groups
            .iter()
            .map(|group| group.iter().map(stands_for).collect())
            .collect()
    }
}

fn cut_all(links: &mut Links, cut: &[Link]) -> Result<(), LinkError> {
    cut.iter().try_for_each(|link| links.cut_link(*link))
}

fn heal_all(links: &mut Links, healed: &[Link]) -> Result<(), LinkError> {
    healed.iter().try_for_each(|link| links.heal_link(*link))
}

fn said(groups: &[&[&str]]) -> String {
    let groups: Vec<String> = groups.iter().map(|group| group.join(", ")).collect();
    groups.join(" | ")
}
