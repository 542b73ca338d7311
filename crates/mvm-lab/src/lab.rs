//! A running lab: its machines, their network and what they share.
//!
//! What the host offers is found out in `environment`; what happens in the lab is a `scenario`.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex as StdMutex},
};

use mvm_fabric::{AttachError, Switch};
use mvm_machine::{
    console::Console,
    data_disk::{self, DataDiskError},
    machine::MachineSpec,
    process::PathGuard,
};
use tokio::{sync::Mutex, task::JoinSet};

use crate::{
    environment::Environment,
    event::Recorder,
    host_memory::{self, HostMemory, Measured, MemoryError},
    network::Network,
    node::{Node, NodeError},
    run_folder::RunFolder,
    scratch,
    topology::{Member, Topology, TopologyError},
};

/// Sparse, so it costs what the guest writes.
const DATA_DISK_BYTES: u64 = 1 << 30;

/// Why a lab could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The topology is wrong.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The host has too little memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The switch did not start or connect.
    #[error("could not start the switch: {0}")]
    SwitchStart(#[source] io::Error),
    /// The switch refused a machine.
    #[error("could not connect machine {machine} to the switch: {source}")]
    Attach {
        /// The machine.
        machine: String,
        /// What the switch said.
        source: AttachError,
    },
    /// A temporary folder or the host's facts could not be had.
    #[error("could not {what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A data disk could not be made.
    #[error("could not make the data disk of machine {machine}: {source}")]
    DataDisk {
        /// The machine.
        machine: String,
        /// Why.
        source: DataDiskError,
    },
}

/// The machines of a run and the network between them. Dropping it kills and removes everything but
/// the run folder.
pub struct Lab {
    nodes: BTreeMap<String, Arc<Node>>,
    network: Arc<Network>,
    measured: StdMutex<Measured>,
    // Dropped last: the machines' disks are in it.
    _scratch: PathGuard,
}

impl Lab {
    /// Sets the lab up; no machine is started yet.
    pub async fn build(
        topology: &Topology,
        environment: &Environment,
        folder: &RunFolder,
        recorder: &Recorder,
    ) -> Result<Lab, LabError> {
        let members = topology.members()?;
        let measured = Measured::load(environment.cache.root().join("measured-memory.json"));
        let host = HostMemory::read().map_err(|source| LabError::Host {
            what: "read the host's memory",
            source,
        })?;
        let asked: Vec<_> = members
            .values()
            .map(|m| (m.config.name.clone(), m.config.memory_mib))
            .collect();
        host_memory::check(host, &asked, &measured)?;

        let scratch = scratch::folder().map_err(|source| LabError::Host {
            what: "make a temporary folder",
            source,
        })?;
        let network = Arc::new(connect(&members, recorder)?);
        let hosts = Arc::new(hosts_entries(&members));
        let mut nodes = BTreeMap::new();
        for (name, member) in members {
            let data_disk = match member.config.data_disk {
                true => {
                    let path = scratch.path().join(format!("{name}-data.img"));
                    data_disk::create(&environment.cache, &path, DATA_DISK_BYTES).map_err(
                        |source| LabError::DataDisk {
                            machine: name.clone(),
                            source,
                        },
                    )?;
                    Some(path)
                }
                false => None,
            };
            let spec = MachineSpec {
                name: name.clone(),
                memory_mib: member.config.memory_mib,
                image: Arc::clone(&environment.image),
                nics: vec![member.mac()],
                data_disk,
                accelerator: environment.accelerator.accelerator,
                kernel_parameters: Vec::new(),
                console: Console::new(folder.console(&name), recorder.origin()),
                qemu: environment.qemu.clone(),
                qemu_log: folder.qemu_log(&name),
            };
            let node = Node {
                port: network.ports[&name],
                member,
                spec,
                network: Arc::clone(&network),
                hosts: Arc::clone(&hosts),
                folder: folder.clone(),
                tokens: environment.cache.root().join("locks"),
                boot_timeout: topology.boot_timeout,
                recorder: recorder.clone(),
                machine: Mutex::new(None),
                agent: StdMutex::new(None),
                services: Mutex::new(BTreeMap::new()),
                private_bytes_max: StdMutex::new(0),
            };
            nodes.insert(name, Arc::new(node));
        }
        Ok(Lab {
            nodes,
            network,
            measured: StdMutex::new(measured),
            _scratch: scratch,
        })
    }

    /// Returns a machine by name.
    ///
    /// # Panics
    ///
    /// If the topology has no such machine: scenarios name the machines they asked for.
    pub fn node(&self, name: &str) -> &Arc<Node> {
        self.nodes
            .get(name)
            .unwrap_or_else(|| panic!("the topology has no machine {name:?}"))
    }

    /// Returns all machines, sorted by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// Returns the network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Starts every machine, in parallel, and waits until all are up.
    pub async fn start_all(&self) -> Result<(), NodeError> {
        let mut starting = JoinSet::new();
        for node in self.nodes.values() {
            let node = Arc::clone(node);
            starting.spawn(async move { node.start().await });
        }
        while let Some(started) = starting.join_next().await {
            // A panic in a start is ours; let it go on to the caller.
            started.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        }
        Ok(())
    }

    /// Kills every machine and keeps what was learnt about their memory.
    pub async fn end(self) {
        for node in self.nodes.values() {
            node.end().await;
            let most = *node
                .private_bytes_max
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            if most > 0 {
                let mut measured = self
                    .measured
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
                measured.observe(node.member.config.memory_mib, most);
            }
        }
        let measured = self
            .measured
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Err(error) = measured.save() {
            tracing::warn!(%error, "could not remember the machines' measured memory");
        }
    }
}

/// Starts the switch with one port per machine.
fn connect(members: &BTreeMap<String, Member>, recorder: &Recorder) -> Result<Network, LabError> {
    let switch = Switch::start().map_err(LabError::SwitchStart)?;
    let mut ports = BTreeMap::new();
    for name in members.keys() {
        // Each start of the machine takes a socket of its own; this first one is not used.
        let (port, _unused) = switch.attach(name).map_err(|source| LabError::Attach {
            machine: name.clone(),
            source,
        })?;
        ports.insert(name.clone(), port);
    }
    Ok(Network {
        switch,
        ports,
        recorder: recorder.clone(),
    })
}

fn hosts_entries(members: &BTreeMap<String, Member>) -> Vec<(std::net::IpAddr, String)> {
    let mut entries = Vec::new();
    for (name, member) in members {
        entries.push((member.ipv4().into(), name.clone()));
        entries.push((member.ipv6().into(), name.clone()));
    }
    entries
}
