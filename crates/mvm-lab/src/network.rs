//! The lab's network by machine name: who can hear whom, changed in the field's words.
//!
//! How frames are switched and cut is `mvm-fabric`'s; here are names, checks and the record of changes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use mvm_fabric::{AttachError, ChangeError, Port, Switch};

use crate::event::{Event, Recorder};

/// Why the network could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No machine has this name.
    #[error("could not change the network: there is no machine {name:?}, there are {known:?}")]
    UnknownMachine {
        /// The name given.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// A machine stands in two groups of a partition.
    #[error("could not partition the network: machine {name:?} stands in two groups")]
    InTwoGroups {
        /// The machine.
        name: String,
    },
    /// The switch refused.
    #[error("could not change the network: {0}")]
    Switch(#[from] ChangeError),
}

/// Why a lab's network could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The switch did not start.
    #[error("could not start the switch: {0}")]
    Start(#[source] std::io::Error),
    /// The switch refused a machine.
    #[error("could not connect machine {machine} to the switch: {source}")]
    Attach {
        /// The machine.
        machine: String,
        /// What the switch said.
        source: AttachError,
    },
}

/// The network of a lab. Every change is atomic between two frames and cuts IPv4 and IPv6 alike.
pub struct Network {
    /// A restored lab gets a restored switch, with the same ports.
    switch: Mutex<Arc<Switch>>,
    ports: BTreeMap<String, Port>,
    recorder: Recorder,
}

impl Network {
    /// Starts a switch with one port per name, nothing plugged in.
    pub(crate) fn connect<'a>(
        names: impl Iterator<Item = &'a String>,
        recorder: &Recorder,
    ) -> Result<Network, ConnectError> {
        let switch = Switch::start().map_err(ConnectError::Start)?;
        let mut ports = BTreeMap::new();
        for name in names {
            // Each start of the machine takes a socket of its own; this first one is not used.
            let (port, _unused) = switch.attach(name).map_err(|source| ConnectError::Attach {
                machine: name.clone(),
                source,
            })?;
            ports.insert(name.clone(), port);
        }
        Ok(Network {
            switch: Mutex::new(Arc::new(switch)),
            ports,
            recorder: recorder.clone(),
        })
    }

    /// Returns the switch of now.
    pub(crate) fn switch(&self) -> Arc<Switch> {
        Arc::clone(&self.switch.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another switch, which has the same ports, in the place of this one.
    pub(crate) fn replace_switch(&self, switch: Switch) {
        *self.switch.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(switch);
    }

    /// Cuts the link between two machines, both ways.
    pub fn cut(&self, one: &str, other: &str) -> Result<(), NetworkError> {
        self.switch().cut(self.port(one)?, self.port(other)?)?;
        self.changed(format!("cut {one} - {other}"));
        Ok(())
    }

    /// Restores the link between two machines, both ways.
    pub fn heal(&self, one: &str, other: &str) -> Result<(), NetworkError> {
        self.switch().heal(self.port(one)?, self.port(other)?)?;
        self.changed(format!("heal {one} - {other}"));
        Ok(())
    }

    /// Cuts one machine off from all others.
    pub fn isolate(&self, name: &str) -> Result<(), NetworkError> {
        self.switch().isolate(self.port(name)?)?;
        self.changed(format!("isolate {name}"));
        Ok(())
    }

    /// Splits the network: machines in different groups cannot reach one another. Machines in no group
    /// form one more group.
    pub fn partition(&self, groups: &[&[&str]]) -> Result<(), NetworkError> {
        let mut named: Vec<&str> = groups.iter().copied().flatten().copied().collect();
        named.sort_unstable();
        if let Some(pair) = named.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(NetworkError::InTwoGroups {
                name: pair[0].to_owned(),
            });
        }
        let mut split = Vec::with_capacity(groups.len() + 1);
        for group in groups {
            split.push(
                group
                    .iter()
                    .map(|name| self.port(name))
                    .collect::<Result<Vec<Port>, _>>()?,
            );
        }
        let rest = self
            .ports
            .iter()
            .filter(|(name, _)| !named.contains(&name.as_str()));
        let rest: Vec<Port> = rest.map(|(_, port)| *port).collect();
        if !rest.is_empty() {
            split.push(rest);
        }
        self.switch().partition(&split)?;
        let words: Vec<String> = groups.iter().map(|group| group.join(", ")).collect();
        self.changed(format!("partition {}", words.join(" | ")));
        Ok(())
    }

    /// Restores every link.
    pub fn heal_all(&self) -> Result<(), NetworkError> {
        self.switch().heal_all()?;
        self.changed("heal all".to_owned());
        Ok(())
    }

    pub(crate) fn port(&self, name: &str) -> Result<Port, NetworkError> {
        self.ports
            .get(name)
            .copied()
            .ok_or_else(|| NetworkError::UnknownMachine {
                name: name.to_owned(),
                known: self.ports.keys().cloned().collect(),
            })
    }

    fn changed(&self, change: String) {
        self.recorder.record(Event::Network { change });
    }
}
