//! Bringing a machine up: by a snapshot or cold, with its own identity.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Instant,
};

use mvm_agent::client::{Identity, Interface};
use mvm_machine::{
    boot_tokens,
    data_disk::DataDisk,
    files,
    machine::{BootError, Booting, Gateway, LoadError, MacAddress, MachineSpec, Memory, Running},
    pool::Warm,
    snapshot::{Obtained, Snapshot, SnapshotError},
};

use super::{Node, NodeError, lock};
use crate::{
    event::{Event, MachineState, Way, precise_ms},
    lab::StartBy,
    service::ServiceStart,
    topology::{self, ImageKind, MemoryPlan},
};

/// Why a machine could not be resumed. It can be booted.
#[derive(Debug, thiserror::Error)]
enum WakeError {
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Boot(#[from] Box<BootError>),
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl Node {
    /// Brings the machine up, gives it its identity and what is its own, and starts its services.
    ///
    /// It is taken from the warm pool, resumed from a snapshot of a machine like it, or booted where that cannot be. A machine started again
    /// has its data disk as it was left.
    pub async fn start(&self) -> Result<(), NodeError> {
        let mut machine = self.machine.lock().await;
        if machine.is_some() {
            return Err(NodeError::On {
                machine: self.name().to_owned(),
            });
        }
        let began = Instant::now();
        let turn = match self.common.start {
            StartBy::Snapshot => self.common.resuming.acquire().await.ok(),
            StartBy::ColdBoot => None,
        };
        let (running, way) = self.bring_up().await?;
        let agent = running.agent().clone();
        agent
            .configure(self.identity())
            .await
            .map_err(|source| self.agent_error(source))?;
        agent
            .set_clock()
            .await
            .map_err(|source| self.agent_error(source))?;
        drop(turn);
        self.came_up(&mut machine, running, way, began);
        drop(machine);
        self.provision().await?;
        let services = self.member.config.services.iter();
        for service in services.filter(|service| service.start == ServiceStart::WithMachine) {
            self.start_service(&service.name).await?;
        }
        Ok(())
    }

    async fn bring_up(&self) -> Result<(Running, Way), NodeError> {
        if self.common.start == StartBy::Snapshot {
            if let Some(running) = self.take_warm().await? {
                return Ok((running, Way::Warm));
            }
            match self.wake().await {
                Ok(running) => return Ok((running, Way::Resumed)),
                Err(error) => self.common.recorder.record(Event::Warning {
                    text: format!("machine {} is booted cold: {error}", self.name()),
                }),
            }
        }
        Ok((self.boot().await?, Way::Cold))
    }

    /// Takes a machine that is ready, if there is a pool and it has one.
    async fn take_warm(&self) -> Result<Option<Running>, NodeError> {
        let Some(pool) = &self.common.environment.warm else {
            return Ok(None);
        };
        let mut spec = self.next_spec();
        if let Some(file) = self.own_memory().await? {
            spec.memory = Memory::Own(file);
        }
        let Some(Warm {
            running,
            switch_ends,
        }) = pool.take(&spec).await
        else {
            return Ok(None);
        };
        let adopted = self.common.network.adopt(self.name(), switch_ends);
        adopted.map_err(|source| NodeError::Switch {
            machine: self.name().to_owned(),
            source,
        })?;
        Ok(Some(running))
    }

    /// Boots the machine; waits for one of the host's boot tokens first.
    async fn boot(&self) -> Result<Running, NodeError> {
        self.entered(MachineState::Waiting);
        let _token = boot_tokens::acquire(&self.common.environment.tokens()).await;
        let sockets = self.plug_in()?;
        self.entered(MachineState::Booting);
        let mut spec = self.next_spec();
        if let Some(file) = self.own_memory().await? {
            spec.memory = Memory::Own(file);
        }
        let booting = Booting::launch(spec, sockets).await?;
        booting
            .ready(self.common.boot_timeout)
            .await
            .map_err(|error| NodeError::Boot(Box::new(error)))
    }

    /// Resumes the machine from a snapshot of one like it.
    async fn wake(&self) -> Result<Running, WakeError> {
        self.entered(MachineState::Booting);
        let mut spec = self.next_spec();
        let cache = &self.common.environment.cache;
        let (snapshot, obtained) = Snapshot::obtain(cache, &spec, self.common.boot_timeout).await?;
        if let Obtained::Made {
            booted_in,
            saved_in,
        } = obtained
        {
            self.common.recorder.record(Event::Note {
                text: format!(
                    "a machine of this kind was booted in {:.2} s and frozen in {:.0} ms",
                    booted_in.as_secs_f64(),
                    precise_ms(saved_in)
                ),
            });
        }
        if let (Some(file), Some(frozen)) = (self.own_memory().await?, snapshot.memory_file()) {
            copy_memory(frozen, file.clone()).await?;
            spec.memory = Memory::Own(file);
        }
        let loaded = match snapshot.resume(spec, self.plug_in()?).await {
            Ok(loaded) => loaded,
            Err(error) => {
                if error.blames_state() {
                    snapshot.discard(cache);
                }
                return Err(error.into());
            }
        };
        let booting = loaded.go().await?;
        let ready = booting.ready(self.common.boot_timeout).await;
        Ok(ready.map_err(Box::new)?)
    }

    /// Connects the machine's cards anew and returns its ends, `eth1` first.
    pub(crate) fn plug_in(&self) -> Result<Vec<OwnedFd>, NodeError> {
        let plugged = self.common.network.plug_in(self.name());
        plugged.map_err(|source| NodeError::Switch {
            machine: self.name().to_owned(),
            source,
        })
    }

    /// A file for the memory of a machine whose state is to be saved, not there yet.
    async fn own_memory(&self) -> Result<Option<PathBuf>, NodeError> {
        match self.common.memory {
            MemoryPlan::Shared => Ok(None),
            MemoryPlan::Own => {
                let file = self.scratch_file("ram");
                match tokio::fs::remove_file(&file).await {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => {
                        Err(NodeError::Memory { file, source })
                    }
                    _ => Ok(Some(file)),
                }
            }
        }
    }

    /// A file of this machine's among those that the run removes.
    pub(crate) fn scratch_file(&self, kind: &str) -> PathBuf {
        let name = format!("{}.{kind}", self.name());
        self.common.scratch.path().join(name)
    }

    /// Removes all files of this machine, which is off, from among those that the run removes; `kept` stays.
    pub(crate) fn clear_scratch(&self, kept: Option<&Path>) -> io::Result<()> {
        let ours = format!("{}.", self.name());
        for entry in std::fs::read_dir(self.common.scratch.path())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(&ours) && Some(path.as_path()) != kept {
                std::fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    pub(crate) fn next_spec(&self) -> MachineSpec {
        lock(&self.spec).clone()
    }

    /// Notes that the machine is up and answers.
    pub(crate) fn came_up(
        &self,
        machine: &mut Option<Running>,
        running: Running,
        way: Way,
        began: Instant,
    ) {
        self.talk_to(&running);
        *machine = Some(running);
        self.paused.store(false, Ordering::Relaxed);
        self.known.store(true, Ordering::Relaxed);
        self.entered(MachineState::AgentUp);
        self.common.recorder.record(Event::CameUp {
            machine: self.name().to_owned(),
            way,
            duration_ms: precise_ms(began.elapsed()),
        });
    }

    fn identity(&self) -> Identity {
        let known = self.known.load(Ordering::Relaxed);
        let cards = self.member.cards.iter().zip(0..);
        let cards = cards.map(|(card, place)| Interface {
            mac: MacAddress::of_card(place).0,
            address: Some(card.mac.0),
            name: Some(card.name.clone()),
            addresses: card.addresses(),
            gateways: Vec::new(),
            announce: known,
        });
        let gateway = self.member.config.gateway.then_some(Gateway);
        let (mounts, layers) = match self.member.image.kind {
            ImageKind::Minimal => (self.member.config.data_disk.then(DataDisk::mount), None),
            ImageKind::Debian => (None, Some(Box::new(DataDisk::layers()))),
        };
        Identity {
            hostname: self.name().to_owned(),
            machine_id: Some(self.member.machine_id()),
            interfaces: cards.chain(gateway.map(Gateway::interface)).collect(),
            hosts: topology::hosts(&self.member, &self.common.members),
            name_servers: gateway.map(Gateway::name_servers).unwrap_or_default(),
            mounts: mounts.into_iter().collect(),
            layers,
        }
    }
}

/// Begins a machine's own memory as a copy of a frozen one.
pub(crate) async fn copy_memory(frozen: PathBuf, file: PathBuf) -> Result<(), NodeError> {
    let (source, target) = (frozen, file.clone());
    let copied = tokio::task::spawn_blocking(move || files::copy_sparse(&source, &target)).await;
    let copied = copied.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    copied.map_err(|error| NodeError::Memory {
        file,
        source: io::Error::other(error),
    })
}
