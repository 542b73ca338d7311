//! What a lab is made of: machines with names, numbers and addresses. Pure data, checked once.
//!
//! Addresses follow the NixOS test driver: machines are numbered from 1 in the order of their names,
//! and machine N has `192.168.V.N` and `2001:db8:V::N` on segment V, its first card there being `eth1`.
//! Starting them is `lab`'s work.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

use mvm_machine::{cache::ContentKey, machine::MacAddress};

use crate::{
    network::{LinkPlan, PlanError, Resolved},
    service::ServiceSpec,
};

/// Enough for a small service; the guest's own kernel and agent need about 60 MiB.
const MEMORY_MIB_DEFAULT: u32 = 256;
/// Below this the kernel cannot unpack its initramfs.
const MEMORY_MIB_MIN: u32 = 96;
/// Host numbers of an IPv4 /24: 254 would be the last, as in the NixOS test driver.
const MACHINES_MAX: usize = 250;
/// A host name label's limit (RFC 1123, section 2.1).
const NAME_BYTES_MAX: usize = 63;
/// The one segment there is for now.
const SEGMENT: u8 = 1;

/// Why a topology cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// Two machines share a name.
    #[error("could not build the topology: the machine name {name:?} is used twice")]
    NameTwice {
        /// The name.
        name: String,
    },
    /// A name is no host name.
    #[error(
        "could not build the topology: {name:?} is no host name (1 to 63 of a-z, 0-9 and -, a letter first, no - last)"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// No machine, or too many.
    #[error("could not build the topology: {count} machines asked, 1 to {MACHINES_MAX} can be")]
    BadCount {
        /// How many were asked.
        count: usize,
    },
    /// Too little memory to boot.
    #[error(
        "could not build the topology: machine {name} has {memory_mib} MiB of memory, {MEMORY_MIB_MIN} MiB is the least"
    )]
    TooLittleMemory {
        /// The machine.
        name: String,
        /// What was asked.
        memory_mib: u32,
    },
    /// The machines cannot be linked as asked.
    #[error("could not build the topology's links: {0}")]
    Links(#[from] PlanError),
}

/// One machine as the scenario asks for it.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// Its host name.
    pub name: String,
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// Whether it has a private disk at `/data`, kept across crashes.
    pub data_disk: bool,
    /// What runs in it; started whenever the machine starts.
    pub services: Vec<ServiceSpec>,
}

impl MachineConfig {
    /// A machine with the usual memory, no disk and no services.
    pub fn new(name: impl Into<String>) -> MachineConfig {
        MachineConfig {
            name: name.into(),
            memory_mib: MEMORY_MIB_DEFAULT,
            data_disk: false,
            services: Vec::new(),
        }
    }
}

/// What the machines' common image holds besides the kernel, the agent and BusyBox.
#[derive(Clone, Debug, Default)]
pub struct ImageContents {
    /// Kernel modules by name, beyond those that booting needs.
    pub modules: Vec<String>,
    /// Host programs by name or path, brought with the shared libraries they need.
    pub programs: Vec<String>,
    /// Host programs under a name of the guest's own: the host's path, then the guest's.
    pub renamed_programs: Vec<(PathBuf, String)>,
    /// Host packages whose whole file list is brought, for programs with plug-ins or tables.
    pub packages: Vec<String>,
}

/// The machines of one lab and what they boot.
#[derive(Clone, Debug)]
pub struct Topology {
    /// The machines, in any order.
    pub machines: Vec<MachineConfig>,
    /// The image all of them boot.
    pub image: ImageContents,
    /// Where the machines' memory lies, which decides how quick a checkpoint of them is.
    pub memory: MemoryPlan,
    /// Which machines are linked, and how far apart they are.
    pub links: LinkPlan,
    /// How long a machine may take from launch to an answering agent.
    pub boot_timeout: Duration,
}

/// Where machines' memory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryPlan {
    /// What they have in common is shared; a checkpoint takes a detour that takes seconds.
    Shared,
    /// Each has a file of its own, copied from the snapshot: a checkpoint takes a fraction of a second.
    Own,
}

/// A machine with its place in the network.
#[derive(Clone, Debug)]
pub struct Member {
    /// What was asked for.
    pub config: MachineConfig,
    /// Its number, from 1, by sorted name.
    pub number: u8,
}

impl Member {
    /// Returns the address of its card on the segment.
    pub fn mac(&self) -> MacAddress {
        MacAddress([0x52, 0x54, 0x00, 0x12, SEGMENT, self.number])
    }

    /// Returns its machine id (machine-id(5)): the same in every run, and no other machine's of the lab.
    pub fn machine_id(&self) -> String {
        let key = ContentKey::of("machine id")
            .text(&self.config.name)
            .number(self.number.into());
        key.finish().as_str()[..32].to_owned()
    }

    /// Returns its IPv4 address.
    pub fn ipv4(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, SEGMENT, self.number)
    }

    /// Returns its IPv6 address; the number's decimal digits are read as hexadecimal, as NixOS does.
    pub fn ipv6(&self) -> Ipv6Addr {
        let digits = u16::from_str_radix(&self.number.to_string(), 16)
            .expect("decimal digits are hexadecimal ones");
        Ipv6Addr::new(0x2001, 0xdb8, u16::from(SEGMENT), 0, 0, 0, 0, digits)
    }

    /// Returns its addresses with their prefix lengths.
    pub fn addresses(&self) -> Vec<(IpAddr, u8)> {
        vec![(self.ipv4().into(), 24), (self.ipv6().into(), 64)]
    }
}

impl Topology {
    /// A topology of `machines`, each linked with each, with nothing special in their image.
    pub fn new(machines: Vec<MachineConfig>) -> Topology {
        Topology {
            machines,
            image: ImageContents::default(),
            memory: MemoryPlan::Shared,
            links: LinkPlan::FullMesh,
            boot_timeout: Duration::from_secs(60),
        }
    }

    /// Checks the topology and numbers its machines.
    pub fn members(&self) -> Result<BTreeMap<String, Member>, TopologyError> {
        let count = self.machines.len();
        if count == 0 || count > MACHINES_MAX {
            return Err(TopologyError::BadCount { count });
        }
        let mut by_name = BTreeMap::new();
        for config in &self.machines {
            let name = config.name.clone();
            if !is_host_name(&name) {
                return Err(TopologyError::BadName { name });
            }
            if config.memory_mib < MEMORY_MIB_MIN {
                return Err(TopologyError::TooLittleMemory {
                    name,
                    memory_mib: config.memory_mib,
                });
            }
            if by_name.insert(name.clone(), config).is_some() {
                return Err(TopologyError::NameTwice { name });
            }
        }
        self.resolve_links()?;
        let numbered = by_name.into_iter().zip(1u8..);
        Ok(numbered
            .map(|((name, config), number)| {
                (
                    name,
                    Member {
                        config: config.clone(),
                        number,
                    },
                )
            })
            .collect())
    }

    /// Tells which links there are between the machines, by their numbers less one.
    pub(crate) fn resolve_links(&self) -> Result<Resolved, PlanError> {
        let mut names: Vec<&str> = self
            .machines
            .iter()
            .map(|machine| machine.name.as_str())
            .collect();
        names.sort_unstable();
        self.links.resolve(&names)
    }
}

fn is_host_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.len() <= NAME_BYTES_MAX
        && name
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_lowercase())
        && name.bytes().all(plain)
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(names: &[&str]) -> Topology {
        Topology::new(names.iter().map(|name| MachineConfig::new(*name)).collect())
    }

    #[test]
    fn numbers_follow_sorted_names() {
        let members = topology(&["node3", "client", "node1"]).members().unwrap();
        let numbers: Vec<_> = members
            .iter()
            .map(|(name, member)| (name.as_str(), member.number))
            .collect();
        assert_eq!(numbers, [("client", 1), ("node1", 2), ("node3", 3)]);
        let node3 = &members["node3"];
        assert_eq!(node3.ipv4().to_string(), "192.168.1.3");
        assert_eq!(node3.ipv6().to_string(), "2001:db8:1::3");
        assert_eq!(node3.mac().to_string(), "52:54:00:12:01:03");
    }

    #[test]
    fn the_tenth_address_reads_as_ten() {
        let names: Vec<String> = (10..22).map(|number| format!("node{number}")).collect();
        let members = topology(&names.iter().map(String::as_str).collect::<Vec<_>>())
            .members()
            .unwrap();
        assert_eq!(members["node19"].number, 10);
        assert_eq!(members["node19"].ipv6().to_string(), "2001:db8:1::10");
    }

    #[test]
    fn machines_linked_otherwise_have_other_checkpoints() {
        let mesh = topology(&["node1", "node2", "node3"]);
        let line = Topology {
            links: LinkPlan::Line,
            ..mesh.clone()
        };
        let key = crate::checkpoint::topology_key;
        assert_eq!(key(&mesh), key(&mesh.clone()));
        assert_ne!(key(&mesh), key(&line));
    }

    #[track_caller]
    fn check_refused(names: &[&str], expected: &str) {
        assert_eq!(
            topology(names).members().unwrap_err().to_string(),
            format!("could not build the topology: {expected}")
        );
    }

    #[test]
    fn bad_topologies_are_refused() {
        check_refused(
            &["node1", "node1"],
            "the machine name \"node1\" is used twice",
        );
        check_refused(&[], "0 machines asked, 1 to 250 can be");
        let rule = "is no host name (1 to 63 of a-z, 0-9 and -, a letter first, no - last)";
        for name in [
            "",
            "1node",
            "no de",
            "node-",
            "../x",
            "Node",
            &"n".repeat(64),
        ] {
            check_refused(&[name], &format!("{name:?} {rule}"));
        }
        let mut small = topology(&["node1"]);
        small.machines[0].memory_mib = 8;
        assert!(matches!(
            small.members(),
            Err(TopologyError::TooLittleMemory { .. })
        ));
        let mut star = topology(&["node1"]);
        star.links = LinkPlan::Star {
            centre: "hub".to_owned(),
        };
        assert_eq!(
            star.members().unwrap_err().to_string(),
            "could not build the topology's links: there is no machine \"hub\", there are [\"node1\"]"
        );
    }
}
