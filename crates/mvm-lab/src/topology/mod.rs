//! What a lab is made of: machines with names, numbers and cards, and the segments between them. Pure data, checked
//! once.
//!
//! Machines are numbered from 1 in the order of their names, as in the NixOS test driver; what follows from that for
//! their cards is `card`'s. Starting them is `lab`'s work.

mod card;
mod file;
mod image;
mod provision;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use mvm_machine::{cache::ContentKey, machine::Mtu};

pub use self::{
    card::Card,
    file::{FileError, FilePlace, file_schema},
    image::{ImageContents, ImageKind},
    provision::{GuestContent, GuestFile, Provision},
};
use crate::{
    network::{LinkPlan, PlanError},
    service::ServiceSpec,
};

/// Enough for a small service; the guest's own kernel and agent need about 60 MiB.
const MEMORY_MIB_DEFAULT: u32 = 256;
/// Below this the kernel cannot unpack its initramfs.
const MEMORY_MIB_MIN: u32 = 96;
/// More would only take turns on the host's.
const CPUS_MAX: u8 = 16;
/// Host numbers of an IPv4 /24: 254 would be the last, as in the NixOS test driver.
const MACHINES_MAX: usize = 250;
/// A host name label's limit (RFC 1123, section 2.1).
const NAME_BYTES_MAX: usize = 63;
/// Where machines are that are not told otherwise.
const SEGMENT_DEFAULT: u8 = 1;
/// What stands for it in addresses is a byte that is neither all zeros nor all ones.
const SEGMENT_MAX: u8 = 254;
/// As long as the NixOS test driver's.
const SCRIPT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(3600);
/// As many as a machine has room for beside its other devices.
const CARDS_MAX: usize = 8;

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
    /// A segment's number is none.
    #[error(
        "could not build the topology: there is no segment {segment}, 1 to {SEGMENT_MAX} can be"
    )]
    BadSegment {
        /// The number.
        segment: u8,
    },
    /// A machine is on a segment twice.
    #[error("could not build the topology: machine {name} is on segment {segment} twice")]
    SegmentTwice {
        /// The machine.
        name: String,
        /// The segment.
        segment: u8,
    },
    /// A machine is on too many segments.
    #[error(
        "could not build the topology: machine {name} is on {count} segments, {CARDS_MAX} can be"
    )]
    TooManyCards {
        /// The machine.
        name: String,
        /// How many.
        count: usize,
    },
    /// A machine without systemd has units.
    #[error(
        "could not build the topology: machine {name} has units of systemd and no systemd; an image of kind \"debian\" has it"
    )]
    NoSystemd {
        /// The machine.
        name: String,
    },
    /// Something that a machine is to have has a name that nothing can have.
    #[error("could not build the topology: machine {name} cannot have {what} {word:?}: {rule}")]
    BadWord {
        /// The machine.
        name: String,
        /// What is named so.
        what: &'static str,
        /// The name.
        word: String,
        /// What names are like.
        rule: &'static str,
    },
    /// A machine has no processor, or too many.
    #[error(
        "could not build the topology: machine {name} has {cpus} processors, 1 to {CPUS_MAX} can be"
    )]
    BadCpus {
        /// The machine.
        name: String,
        /// How many were asked.
        cpus: u8,
    },
    /// A segment is described and no machine is on it.
    #[error(
        "could not build the topology: segment {segment} is described, and no machine is on it"
    )]
    EmptySegment {
        /// The segment.
        segment: u8,
    },
    /// The machines of a segment cannot be linked as asked.
    #[error("could not build the links of segment {segment}: {source}")]
    Links {
        /// The segment.
        segment: u8,
        /// Why.
        source: PlanError,
    },
}

/// One machine as the scenario asks for it.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// Its host name.
    pub name: String,
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// How many processors it has.
    pub cpus: u8,
    /// The segments it is on, by number: its cards are `eth1` upward in this order.
    pub segments: Vec<u8>,
    /// Whether it has a way out to the host's network: a card `eth0`, through QEMU's user network, behind which the
    /// host's loopback is 10.0.2.2. Nobody can reach the machine through it.
    pub gateway: bool,
    /// Whether it has a private disk at `/data`, kept across crashes.
    pub data_disk: bool,
    /// What runs in it.
    pub services: Vec<ServiceSpec>,
    /// The kind of its image, where it is not the topology's.
    pub image: Option<ImageKind>,
    /// Packages beside those of the topology's image, of the same sort.
    pub packages: Vec<String>,
    /// Other names of its units, each with the unit's own.
    pub aliases: BTreeMap<String, String>,
    /// What it has beside its image, put there whenever it starts.
    pub provision: Provision,
}

impl MachineConfig {
    /// A machine on segment 1, with the usual memory, no way out, no disk and no services.
    pub fn new(name: impl Into<String>) -> MachineConfig {
        MachineConfig {
            name: name.into(),
            memory_mib: MEMORY_MIB_DEFAULT,
            cpus: 1,
            segments: vec![SEGMENT_DEFAULT],
            gateway: false,
            data_disk: false,
            services: Vec::new(),
            image: None,
            packages: Vec::new(),
            aliases: BTreeMap::new(),
            provision: Provision::default(),
        }
    }
}

/// The machines of one lab and what they boot.
#[derive(Clone, Debug)]
pub struct Topology {
    /// The machines, in any order.
    pub machines: Vec<MachineConfig>,
    /// The image that machines boot which say nothing else.
    pub image: ImageContents,
    /// Where the machines' memory lies, which decides how quick a checkpoint of them is.
    pub memory: MemoryPlan,
    /// What is special about segments, by number. Others are as [`SegmentConfig::default`] says.
    pub segments: BTreeMap<u8, SegmentConfig>,
    /// How long a machine may take from launch to an answering agent.
    pub boot_timeout: Duration,
    /// The test script that belongs to it, where one is run.
    pub script: ScriptPlan,
}

/// What a topology says of its test script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptPlan {
    /// Where it is, seen from the topology's file; `None` where its name follows from that of the topology.
    pub path: Option<PathBuf>,
    /// How long all of it may take.
    pub timeout: Duration,
}

impl Default for ScriptPlan {
    fn default() -> ScriptPlan {
        ScriptPlan {
            path: None,
            timeout: SCRIPT_TIMEOUT_DEFAULT,
        }
    }
}

/// Where machines' memory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryPlan {
    /// What they have in common is shared; a checkpoint takes a detour that takes seconds.
    Shared,
    /// Each has a file of its own, copied from the snapshot: a checkpoint takes a fraction of a second.
    Own,
}

/// A segment of the network: machines on it exchange Ethernet frames, as far as they are linked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentConfig {
    /// Which machines are linked, and how far apart they are.
    pub links: LinkPlan,
    /// The largest packet that its cards send.
    pub mtu: Mtu,
}

/// A machine with its place in the network.
#[derive(Clone, Debug)]
pub struct Member {
    /// What was asked for.
    pub config: MachineConfig,
    /// Its number, from 1, by sorted name.
    pub number: u8,
    /// Its cards, `eth1` first.
    pub cards: Vec<Card>,
    /// What it boots.
    pub image: ImageContents,
}

impl Member {
    fn new(
        config: &MachineConfig,
        number: u8,
        mtu: impl Fn(u8) -> Mtu,
        image: &ImageContents,
    ) -> Member {
        let segments = config.segments.iter().copied().zip(1..);
        Member {
            config: config.clone(),
            number,
            cards: segments
                .map(|(segment, place)| Card::new(segment, mtu(segment), number, place))
                .collect(),
            image: image.of_machine(config.image, &config.packages),
        }
    }

    /// Returns its card on a segment.
    pub fn card_on(&self, segment: u8) -> Option<&Card> {
        self.cards.iter().find(|card| card.segment == segment)
    }

    /// Returns the card by which another machine knows it: on the first of the other's segments that it is on too,
    /// else its first one, to which there may be a route.
    pub fn card_for(&self, other: &Member) -> Option<&Card> {
        let shared = other
            .cards
            .iter()
            .find_map(|card| self.card_on(card.segment));
        shared.or_else(|| self.cards.first())
    }

    /// Returns its machine id (machine-id(5)): the same in every run, and no other machine's of the lab.
    pub fn machine_id(&self) -> String {
        let key = ContentKey::of("machine id")
            .text(&self.config.name)
            .number(self.number.into());
        key.finish().as_str()[..32].to_owned()
    }
}

impl Topology {
    /// A topology of `machines`, with nothing special in their image or about their segments.
    pub fn new(machines: Vec<MachineConfig>) -> Topology {
        Topology {
            machines,
            image: ImageContents::default(),
            memory: MemoryPlan::Shared,
            segments: BTreeMap::new(),
            boot_timeout: Duration::from_secs(60),
            script: ScriptPlan::default(),
        }
    }

    /// Gives a program of the image's that is not the host's own: where `name` is among its programs, `host` is brought
    /// as `guest`.
    pub fn bring(&mut self, name: &str, host: &Path, guest: &str) {
        let asked = self.image.programs.len();
        self.image.programs.retain(|program| program != name);
        if self.image.programs.len() < asked {
            let renamed = (host.to_owned(), guest.to_owned());
            self.image.renamed_programs.push(renamed);
        }
    }

    /// The topology with the machines of segment 1 linked as a plan says.
    pub fn linked(mut self, links: LinkPlan) -> Topology {
        self.segments.entry(SEGMENT_DEFAULT).or_default().links = links;
        self
    }

    /// Looks for the host's files of its machines in `folder`, as far as their paths are relative.
    fn find_host_files(&mut self, folder: &Path) {
        for machine in &mut self.machines {
            machine.provision.find_host_files(folder);
        }
    }

    /// Checks the topology, and numbers its machines.
    pub fn members(&self) -> Result<BTreeMap<String, Member>, TopologyError> {
        let count = self.machines.len();
        if count == 0 || count > MACHINES_MAX {
            return Err(TopologyError::BadCount { count });
        }
        let mut by_name = BTreeMap::new();
        for config in &self.machines {
            check_machine(config)?;
            let name = config.name.clone();
            if by_name.insert(name.clone(), config).is_some() {
                return Err(TopologyError::NameTwice { name });
            }
        }
        let mtu = |segment: u8| self.segments.get(&segment).cloned().unwrap_or_default().mtu;
        let numbered = by_name.into_iter().zip(1u8..);
        let members: BTreeMap<_, _> = numbered
            .map(|((name, config), number)| (name, Member::new(config, number, mtu, &self.image)))
            .collect();
        for member in members.values() {
            check_provision(member)?;
        }
        self.check_segments(&members)?;
        Ok(members)
    }

    fn check_segments(&self, members: &BTreeMap<String, Member>) -> Result<(), TopologyError> {
        for (segment, config) in &self.segments {
            let on_it = members
                .values()
                .filter(|member| member.card_on(*segment).is_some());
            let names: Vec<&str> = on_it.map(|member| member.config.name.as_str()).collect();
            if names.is_empty() {
                return Err(TopologyError::EmptySegment { segment: *segment });
            }
            config
                .links
                .resolve(&names)
                .map_err(|source| TopologyError::Links {
                    segment: *segment,
                    source,
                })?;
        }
        Ok(())
    }
}

/// What a machine's hosts file says of all machines, itself included.
pub(crate) fn hosts(of: &Member, members: &BTreeMap<String, Member>) -> Vec<(IpAddr, String)> {
    let cards = members
        .iter()
        .filter_map(|(name, member)| Some((name, member.card_for(of)?)));
    cards
        .flat_map(|(name, card)| {
            [IpAddr::from(card.ipv4), card.ipv6.into()].map(|address| (address, name.clone()))
        })
        .collect()
}

fn check_machine(config: &MachineConfig) -> Result<(), TopologyError> {
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
    let count = config.segments.len();
    if count > CARDS_MAX {
        return Err(TopologyError::TooManyCards { name, count });
    }
    let mut seen = BTreeSet::new();
    for segment in config.segments.iter().copied() {
        if !(1..=SEGMENT_MAX).contains(&segment) {
            return Err(TopologyError::BadSegment { segment });
        }
        if !seen.insert(segment) {
            return Err(TopologyError::SegmentTwice { name, segment });
        }
    }
    Ok(())
}

/// Checks what a machine is to have beside its image.
fn check_provision(member: &Member) -> Result<(), TopologyError> {
    let MachineConfig {
        name,
        cpus,
        provision,
        ..
    } = &member.config;
    let name = name.clone();
    if !(1..=CPUS_MAX).contains(cpus) {
        return Err(TopologyError::BadCpus { name, cpus: *cpus });
    }
    if member.image.kind != ImageKind::Debian && !provision.units.is_empty() {
        return Err(TopologyError::NoSystemd { name });
    }
    match provision.bad_word(&member.image) {
        Some((what, word, rule)) => Err(TopologyError::BadWord {
            name,
            what,
            word,
            rule,
        }),
        None => Ok(()),
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
    }

    #[test]
    fn names_lead_to_a_segment_that_both_are_on() {
        let mut topology = topology(&["client", "router", "server"]);
        topology.machines[1].segments = vec![2, 1];
        topology.machines[2].segments = vec![2];
        let members = topology.members().unwrap();
        let check = |machine: &str, expected: &[&str]| {
            let hosts = hosts(&members[machine], &members);
            let told: Vec<String> = hosts
                .iter()
                .filter(|(address, _)| address.is_ipv4())
                .map(|(address, name)| format!("{name} {address}"))
                .collect();
            assert_eq!(told, expected);
            assert_eq!(hosts.len(), 2 * told.len(), "both families");
        };
        let (client, server) = ("client 192.168.1.1", "server 192.168.2.3");
        check("client", &[client, "router 192.168.1.2", server]);
        check("router", &[client, "router 192.168.2.2", server]);
        check("server", &[client, "router 192.168.2.2", server]);
    }

    #[test]
    fn machines_linked_otherwise_have_other_checkpoints() {
        let mesh = topology(&["node1", "node2", "node3"]);
        let line = mesh.clone().linked(LinkPlan::Line);
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
        let star = LinkPlan::Star {
            centre: "hub".to_owned(),
        };
        assert_eq!(
            topology(&["node1"])
                .linked(star)
                .members()
                .unwrap_err()
                .to_string(),
            "could not build the links of segment 1: there is no machine \"hub\", there are [\"node1\"]"
        );
    }

    #[track_caller]
    fn check_segments_refused(segments: &[u8], expected: &str) {
        let mut topology = topology(&["node1"]);
        topology.machines[0].segments = segments.to_vec();
        topology.segments.insert(1, SegmentConfig::default());
        assert_eq!(
            topology.members().unwrap_err().to_string(),
            format!("could not build the topology: {expected}")
        );
    }

    #[test]
    fn bad_segments_are_refused() {
        check_segments_refused(&[0], "there is no segment 0, 1 to 254 can be");
        check_segments_refused(&[255], "there is no segment 255, 1 to 254 can be");
        check_segments_refused(&[1, 2, 1], "machine node1 is on segment 1 twice");
        check_segments_refused(
            &[1, 2, 3, 4, 5, 6, 7, 8, 9],
            "machine node1 is on 9 segments, 8 can be",
        );
        check_segments_refused(&[2], "segment 1 is described, and no machine is on it");
    }
}
