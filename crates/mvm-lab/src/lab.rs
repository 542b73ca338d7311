//! A running lab: its machines, their network and what they share.
//!
//! What the host offers is found out in `environment`; what happens in the lab is a `scenario`; how all machines
//! are frozen together and come back is `checkpoint`'s.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::available_parallelism,
};

use mvm_machine::{
    cache::Lease,
    console::Console,
    data_disk::{DataDisk, DataDiskError},
    machine::{Gateway, MachineSpec, Memory, Nic},
};
use tokio::{
    sync::{Mutex, Semaphore},
    task::JoinSet,
};

use crate::{
    checkpoint::Checkpoint,
    environment::Environment,
    event::Recorder,
    host_memory::{self, Asked, HostMemory, Measured, MemoryError},
    network::{Capture, ConnectError, Network, NetworkError},
    node::{Common, Node, NodeError, lock},
    run_folder::RunFolder,
    scratch,
    seed::Seed,
    topology::{ImageKind, MachineConfig, Member, MemoryPlan, Topology, TopologyError},
};

/// Sparse, so it costs what the guest writes.
const DATA_DISK_BYTES: u64 = 1 << 30;
const ROOT_DISK_BYTES: u64 = 4 << 30;

/// How machines come up that were not running before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartBy {
    /// By resuming a snapshot of a machine like them; cold where that cannot be.
    Snapshot,
    /// From their kernel's first instruction.
    ColdBoot,
}

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
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The network has no such machine.
    #[error(transparent)]
    Network(#[from] NetworkError),
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
    pub(crate) topology: Topology,
    pub(crate) nodes: BTreeMap<String, Arc<Node>>,
    pub(crate) common: Arc<Common>,
    measured: StdMutex<Measured>,
    /// Taken in this lab or one it was forked from, by name.
    pub(crate) checkpoints: StdMutex<BTreeMap<String, Arc<Checkpoint>>>,
    /// Empty file systems that machines' disks are based on.
    _leases: Vec<Lease>,
    /// Checkpoints that machines' disks are based on.
    pub(crate) based_on: StdMutex<Vec<Arc<Checkpoint>>>,
    /// Of the whole network, while the lab lasts.
    capture: StdMutex<Option<Capture>>,
    /// Tells files of one machine apart.
    numbers: AtomicU64,
}

impl Lab {
    /// Sets the lab up; no machine is started yet.
    pub async fn build(
        topology: &Topology,
        environment: &Arc<Environment>,
        start: StartBy,
        seed: Seed,
        folder: &RunFolder,
        recorder: &Recorder,
    ) -> Result<Lab, LabError> {
        let members = topology.members()?;
        let measured = Measured::load(environment.cache.root().join("memory-by-kind.json"));
        let host = HostMemory::read().map_err(|source| LabError::Host {
            what: "read the host's memory",
            source,
        })?;
        let asked: Vec<_> = members
            .values()
            .map(|member| Asked {
                machine: member.config.name.clone(),
                nominal_mib: member.config.memory_mib,
                kind: kind(&member.config, topology.memory),
            })
            .collect();
        host_memory::check(host, &asked, &measured)?;

        let scratch = scratch::folder_in(&environment.cache).map_err(|source| LabError::Host {
            what: "make a temporary folder",
            source,
        })?;
        std::fs::create_dir_all(folder.shared()).map_err(|source| LabError::Host {
            what: "make the folder that machines and host have in common",
            source,
        })?;
        let common = Arc::new(Common {
            environment: Arc::clone(environment),
            network: Network::connect(members.values(), &topology.segments, seed, recorder)?,
            members: members.clone(),
            folder: folder.clone(),
            recorder: recorder.clone(),
            boot_timeout: topology.boot_timeout,
            start,
            memory: topology.memory,
            scratch,
            resuming: Semaphore::new(resumed_at_once()),
        });
        let mut nodes = BTreeMap::new();
        let mut leases = Vec::new();
        for (name, member) in members {
            let disk_bytes = match member.image.kind {
                // It takes what the machine changes of its root, too.
                ImageKind::Debian => Some(ROOT_DISK_BYTES),
                ImageKind::Minimal => member.config.data_disk.then_some(DATA_DISK_BYTES),
            };
            let data_disk = disk_bytes
                .map(|bytes| data_disk(&common, &name, bytes, &mut leases))
                .transpose()?;
            let node = node(&common, member, data_disk)?;
            nodes.insert(name, Arc::new(node));
        }
        Ok(Lab {
            topology: topology.clone(),
            nodes,
            common,
            measured: StdMutex::new(measured),
            checkpoints: StdMutex::default(),
            _leases: leases,
            based_on: StdMutex::default(),
            capture: StdMutex::default(),
            numbers: AtomicU64::new(1),
        })
    }

    /// Returns a number that was not used in this lab yet.
    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Keeps a checkpoint in the cache while the machines' disks are based on it.
    pub(crate) fn keep_base(&self, checkpoint: &Arc<Checkpoint>) {
        let mut bases = lock(&self.based_on);
        if !bases.iter().any(|base| Arc::ptr_eq(base, checkpoint)) {
            bases.push(Arc::clone(checkpoint));
        }
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
        &self.common.network
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

    /// Records all that passes the network, until the lab ends.
    pub(crate) fn capture_all(&self) -> Result<(), NetworkError> {
        let file = self.common.folder.network_capture();
        *lock(&self.capture) = Some(self.network().capture(&file)?);
        Ok(())
    }

    /// Kills every machine and keeps what was learnt about their memory.
    pub async fn end(&self) {
        for node in self.nodes.values() {
            node.end().await;
            let most = *lock(&node.private_bytes_max);
            if most > 0 {
                let kind = kind(&node.member.config, self.common.memory);
                lock(&self.measured).observe(&kind, most);
            }
        }
        drop(lock(&self.capture).take());
        if let Err(error) = lock(&self.measured).save() {
            tracing::warn!(%error, "could not remember the machines' measured memory");
        }
    }
}

/// One more than there are processors, since each waits for us in between. Many at once would share caches that hold the
/// work of few.
fn resumed_at_once() -> usize {
    available_parallelism().map_or(2, usize::from) + 1
}

/// Names the machines that use memory like this one: as large, and running the same.
fn kind(machine: &MachineConfig, memory: MemoryPlan) -> String {
    let services = machine.services.iter();
    let services: Vec<_> = services.map(|service| service.command.join(" ")).collect();
    format!("{} MiB, {memory:?}: {services:?}", machine.memory_mib)
}

fn data_disk(
    common: &Common,
    machine: &str,
    bytes: u64,
    leases: &mut Vec<Lease>,
) -> Result<DataDisk, LabError> {
    let path = common.scratch.path().join(format!("{machine}.data.qcow2"));
    let (disk, lease) =
        DataDisk::create(&common.environment.cache, &path, bytes).map_err(|source| {
            LabError::DataDisk {
                machine: machine.to_owned(),
                source,
            }
        })?;
    leases.push(lease);
    Ok(disk)
}

fn console(common: &Common, machine: &str) -> Console {
    let console = Console::new(common.folder.console(machine), common.recorder.origin());
    let (recorder, machine) = (common.recorder.clone(), machine.to_owned());
    console.with_lines_told(Arc::new(move |text| recorder.console_line(&machine, text)))
}

fn node(
    common: &Arc<Common>,
    member: Member,
    data_disk: Option<DataDisk>,
) -> Result<Node, LabError> {
    let name = member.config.name.clone();
    let environment = &common.environment;
    let spec = MachineSpec {
        name: name.clone(),
        memory_mib: member.config.memory_mib,
        cpus: member.config.cpus,
        memory: Memory::Anonymous,
        image: Arc::clone(environment.image(&member.image)),
        nics: member
            .cards
            .iter()
            .map(|card| Nic { mtu: card.mtu })
            .collect(),
        gateway: member.config.gateway.then_some(Gateway),
        data_disk,
        accelerator: environment.accelerator.accelerator,
        kernel_parameters: Vec::new(),
        qemu_options: environment.qemu_options.clone(),
        console: console(common, &name),
        qemu: environment.qemu.clone(),
        qemu_log: common.folder.qemu_log(&name),
    };
    Ok(Node {
        member,
        common: Arc::clone(common),
        spec: StdMutex::new(spec),
        machine: Mutex::new(None),
        paused: AtomicBool::new(false),
        known: AtomicBool::new(false),
        agent: Arc::default(),
        services: Mutex::new(BTreeMap::new()),
        sharing: StdMutex::default(),
        private_bytes_max: StdMutex::new(0),
    })
}
