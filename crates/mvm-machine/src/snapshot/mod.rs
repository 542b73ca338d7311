//! Machines frozen once and resumed many times: kept in the cache under everything that could make a difference.
//!
//! A machine is frozen at one defined point: its agent has answered, and it has no identity yet. What is resumed
//! from it therefore becomes whoever its agent is told to be. Its memory is a file that all resumed machines read
//! and none writes, so untouched pages exist once on the host.
//!
//! ```text
//!   spec ──key──▶ in the cache? ──yes──▶ sealed as it was? ──yes──▶ Snapshot ──resume──▶ Loaded ──go──▶ Booting
//!                     │ no                     │ no: removed, said
//!                     ▼                        ▼
//!               boot ▸ part ▸ stop ▸ save ▸ seal ▸ move into place
//! ```
//!
//! How QEMU saves and loads is [`crate::machine`]'s; checkpoints of whole clusters are the lab's, which seals them
//! with [`sealed`] too.

pub mod sealed;

mod method;
mod ticks;

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mvm_agent::client::{Agent, AgentError};
use serde::{Deserialize, Serialize};

pub use self::sealed::StaleError;
use crate::{
    boot_tokens,
    cache::{Cache, ContentKey, Lease, Shelf, Workspace},
    console::Console,
    data_disk::{DataDisk, DataDiskError},
    files::{self, FileError, Naming},
    machine::{
        BootError, Booting, LaunchError, LoadError, Loaded, MachineSpec, Memory, Owner, SavedState,
        unconnected,
    },
    qemu::{self, Descriptors, Start},
    qmp::{QmpError, StateMemory},
};

/// Frozen machines: large, and made again in seconds.
pub const SNAPSHOTS: Shelf = Shelf {
    name: "snapshots",
    unused_max: Some(Duration::from_secs(14 * 24 * 3600)),
};
const RAM: &str = "ram";
const STATE: &str = "state";
/// What is in a workspace only while its machine runs. Who dies meanwhile leaves no more than an unfinished entry.
const SCRATCH: &str = "scratch";
/// QEMU ends within milliseconds.
const END_ALLOWED: Duration = Duration::from_secs(10);
/// Where a guest tells by what it counts time, and what it says until it has measured its processor.
const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
const CLOCK_EARLY: &[u8] = b"tsc-early";
const CLOCK_BYTES_MAX: u64 = 4096;
/// It has done so a second after its agent answers; a loaded host may need a few.
const SETTLE_ALLOWED: Duration = Duration::from_secs(5);
const SETTLE_INTERVAL: Duration = Duration::from_millis(100);
/// A snapshot loads in a tenth of a second; a loaded host may need a hundred times that.
const LOAD_ALLOWED: Duration = Duration::from_secs(20);

/// A machine could not be frozen. It can still be booted cold.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// This QEMU's saved states do not load again.
    #[error("could not freeze a machine: states that this QEMU saves do not load again ({reason})")]
    Unsupported {
        /// What the trials said.
        reason: String,
    },
    /// The machine to be frozen was not started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The machine to be frozen did not come up.
    #[error(transparent)]
    Boot(#[from] Box<BootError>),
    /// Its agent did not end the conversation.
    #[error("could not freeze a machine: {0}")]
    Agent(#[from] AgentError),
    /// QEMU did not stop or save it.
    #[error("could not freeze a machine: {0}")]
    Monitor(#[from] QmpError),
    /// Its disk could not be made.
    #[error(transparent)]
    DataDisk(#[from] DataDiskError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// What was just frozen is not what was sealed.
    #[error("could not use a snapshot just made: {0}")]
    Stale(#[from] StaleError),
    /// A thread of ours was lost.
    #[error("could not freeze a machine: {0}")]
    Thread(#[source] std::io::Error),
}

/// What is sealed with a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Content {
    memory: StateMemory,
}

/// A frozen machine in the cache. It stays there while this lives.
#[derive(Debug)]
pub struct Snapshot {
    key: ContentKey,
    lease: Lease,
    memory: StateMemory,
}

/// How a snapshot was come by.
#[derive(Clone, Debug, PartialEq)]
pub enum Obtained {
    /// It was in the cache.
    Found,
    /// It was made now.
    Made {
        /// How long its machine took to boot.
        booted_in: Duration,
        /// How long it stood still while it was saved.
        saved_in: Duration,
    },
}

impl Snapshot {
    /// Finds the snapshot for machines like `spec`, or boots one and freezes it.
    ///
    /// Of `spec` count only what a guest can tell; not its name, its logs, its disk's file or its memory's place.
    /// A snapshot that is stale is removed with a warning and made again.
    pub async fn obtain(
        cache: &Cache,
        spec: &MachineSpec,
        boot_allowed: Duration,
    ) -> Result<(Snapshot, Obtained), SnapshotError> {
        let key = blocking({
            let (cache, spec) = (cache.clone(), spec.clone());
            move || Ok(Snapshot::key(&cache, &spec)?)
        })
        .await?;
        let workspace = blocking({
            let (cache, key) = (cache.clone(), key.clone());
            move || match find(&cache, &key) {
                Some(found) => Ok(Err(found)),
                None => {
                    let workspace = cache.workspace(SNAPSHOTS, &key)?;
                    // Another process may have made it while we waited for the workspace.
                    Ok(find(&cache, &key).map_or(Ok(workspace), Err))
                }
            }
        })
        .await?;
        let workspace = match workspace {
            Ok(workspace) => workspace,
            Err(found) => return Ok((found, Obtained::Found)),
        };
        let made = method::make(cache, spec, &workspace, boot_allowed).await?;
        let (cache, key) = (cache.clone(), key);
        let snapshot = blocking(move || publish(&cache, &key, workspace)).await?;
        Ok((snapshot, made))
    }

    /// Starts a machine from this snapshot; it stands still until it is told to go.
    ///
    /// `spec` must be like the one the snapshot was obtained for. `nic_sockets` as for [`Booting::launch`].
    pub async fn resume(
        &self,
        spec: MachineSpec,
        nic_sockets: Vec<OwnedFd>,
    ) -> Result<Loaded, LoadError> {
        self.resume_for(Owner::Known, spec, nic_sockets).await
    }

    /// [`Snapshot::resume`] for a machine whose owner may be yet to come.
    pub(crate) async fn resume_for(
        &self,
        owner: Owner,
        spec: MachineSpec,
        nic_sockets: Vec<OwnedFd>,
    ) -> Result<Loaded, LoadError> {
        resume(self.lease.path(), self.memory, owner, spec, nic_sockets).await
    }

    /// The key of everything that a guest could tell: under it the cache has the snapshot. Blocks.
    pub fn key(cache: &Cache, spec: &MachineSpec) -> Result<ContentKey, FileError> {
        Snapshot::key_on(cache, spec, &processor())
    }

    fn key_on(cache: &Cache, spec: &MachineSpec, processor: &str) -> Result<ContentKey, FileError> {
        let alike = MachineSpec {
            name: String::new(),
            memory: Memory::Anonymous,
            data_disk: spec.data_disk.as_ref().map(|disk| DataDisk {
                path: PathBuf::new(),
                bytes: disk.bytes,
            }),
            ..spec.clone()
        };
        let descriptors = Descriptors {
            console: 0,
            monitor: 0,
            agent: 0,
            shared: 0,
            nics: vec![0; spec.nics.len()],
        };
        let arguments = qemu::arguments(&alike, Start::Cold, &descriptors);
        let disk_bytes = alike.data_disk.map_or(0, |disk| disk.bytes);
        let key = arguments
            .iter()
            .fold(ContentKey::of("machine snapshot 1"), |key, argument| {
                key.bytes(argument.as_encoded_bytes())
            });
        Ok(key
            .key(&spec.image.key)
            .key(&cache.file_key(&spec.qemu)?)
            .number(disk_bytes)
            .text(processor)
            .finish())
    }

    /// Removes a snapshot that did not load, so that the next is made anew; it stays while somebody else uses it.
    /// Blocks.
    pub fn discard(self, cache: &Cache) {
        let Snapshot { lease, key, .. } = self;
        drop(lease);
        cache.remove(SNAPSHOTS, &key);
    }

    /// The file of the frozen memory, where it is not in the state.
    pub fn memory_file(&self) -> Option<PathBuf> {
        match self.memory {
            StateMemory::InSharedFile => Some(self.lease.path().join(RAM)),
            StateMemory::InState => None,
        }
    }
}

async fn resume(
    folder: &Path,
    memory: StateMemory,
    owner: Owner,
    spec: MachineSpec,
    nic_sockets: Vec<OwnedFd>,
) -> Result<Loaded, LoadError> {
    let spec = MachineSpec {
        memory: match (memory, spec.memory) {
            // Its own memory begins as a copy of the frozen one, made by the caller.
            (StateMemory::InSharedFile, Memory::Own(file)) => Memory::Own(file),
            (StateMemory::InSharedFile, _) => Memory::Frozen(folder.join(RAM)),
            (StateMemory::InState, memory) => memory,
        },
        ..spec
    };
    let state = SavedState {
        path: folder.join(STATE),
        memory,
    };
    Loaded::load_for(owner, spec, &state, nic_sockets, LOAD_ALLOWED).await
}

/// A usable snapshot in the cache; one that is stale is removed.
fn find(cache: &Cache, key: &ContentKey) -> Option<Snapshot> {
    let lease = cache.lease(SNAPSHOTS, key)?;
    match sealed::open::<Content>(lease.path()) {
        Ok(Content { memory }) => Some(Snapshot {
            key: key.clone(),
            lease,
            memory,
        }),
        Err(error) => {
            tracing::warn!(snapshot = key.short(), %error, "a snapshot is of no use and is made again");
            drop(lease);
            cache.remove(SNAPSHOTS, key);
            None
        }
    }
}

fn publish(
    cache: &Cache,
    key: &ContentKey,
    workspace: Workspace,
) -> Result<Snapshot, SnapshotError> {
    let lease = cache.publish(SNAPSHOTS, key, workspace)?;
    let Content { memory } = sealed::open(lease.path())?;
    Ok(Snapshot {
        key: key.clone(),
        lease,
        memory,
    })
}

/// Boots a machine like `spec` in `folder`, freezes it there, and ends it.
async fn freeze(
    cache: &Cache,
    spec: &MachineSpec,
    memory: StateMemory,
    folder: &Path,
    boot_allowed: Duration,
) -> Result<Obtained, SnapshotError> {
    let scratch = folder.join(SCRATCH);
    files::create_dir_all(&scratch)?;
    let path = scratch.join("data.qcow2");
    let (data_disk, _lease) = empty_disk(cache, spec, path).await?;
    let spec = MachineSpec {
        name: "snapshot".to_owned(),
        memory: match memory {
            StateMemory::InSharedFile => Memory::Own(folder.join(RAM)),
            StateMemory::InState => Memory::Anonymous,
        },
        data_disk,
        console: Console::new(scratch.join("console.log"), Instant::now()),
        qemu_log: scratch.join("qemu.log"),
        ..spec.clone()
    };
    let _token = boot_tokens::acquire(&cache.root().join("locks")).await;
    // Nothing is behind its network cards, and nothing is said on them.
    let (_ends, nic_sockets) = unconnected(spec.nics.len()).map_err(SnapshotError::Thread)?;
    let booting = Booting::launch(spec, nic_sockets).await?;
    let running = booting.ready(boot_allowed).await.map_err(Box::new)?;
    let booted_in = running.booted_in();
    if let Err(error) = running.agent().mount_shared().await {
        tracing::debug!(%error, "a guest is frozen without the folder in common");
    }
    settle(running.agent()).await;
    let parted = running.part().await.map_err(|(_, error)| error)?;
    let state = files::create(&folder.join(STATE))?;
    let stopped = Instant::now();
    parted.stop().await?;
    parted.save(&state).await?;
    let saved_in = stopped.elapsed();
    parted.end(END_ALLOWED).await;
    std::fs::remove_dir_all(&scratch).naming("remove", &scratch)?;
    Ok(Obtained::Made {
        booted_in,
        saved_in,
    })
}

/// Waits until the guest's kernel has done what it leaves for later while it boots. Each resumed machine would do it
/// anew: measuring its clock once more takes 20 ms under an emulator, just when it becomes somebody.
async fn settle(agent: &Agent) {
    let settled = async {
        loop {
            let told = agent.download(CLOCK_SOURCE, CLOCK_BYTES_MAX).await;
            // A guest without that file has another clock, and nothing to wait for.
            if !told.is_ok_and(|(clock, _)| clock.starts_with(CLOCK_EARLY)) {
                return;
            }
            tokio::time::sleep(SETTLE_INTERVAL).await;
        }
    };
    if tokio::time::timeout(SETTLE_ALLOWED, settled).await.is_err() {
        tracing::debug!("a guest is frozen with an unmeasured clock");
    }
}

/// A new disk like that of `spec`, if it has one.
pub(crate) async fn empty_disk(
    cache: &Cache,
    spec: &MachineSpec,
    path: PathBuf,
) -> Result<(Option<DataDisk>, Option<Lease>), SnapshotError> {
    let Some(bytes) = spec.data_disk.as_ref().map(|disk| disk.bytes) else {
        return Ok((None, None));
    };
    let cache = cache.clone();
    let (disk, lease) = blocking(move || Ok(DataDisk::create(&cache, &path, bytes)?)).await?;
    Ok((Some(disk), Some(lease)))
}

/// The host processor's name and abilities, which KVM shows to guests and TCG's translations may rest on.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = text.split("\n\n").next().unwrap_or_default();
    let telling = |line: &&str| line.starts_with("model name") || line.starts_with("flags");
    first.lines().filter(telling).collect::<Vec<_>>().join("\n")
}

/// Runs work that blocks on a thread for that.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> Result<T, SnapshotError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| SnapshotError::Thread(std::io::Error::other(error)))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        accelerator::Accelerator,
        image::Image,
        machine::{Gateway, Mtu, Nic},
    };

    #[test]
    fn another_qemu_processor_or_card_has_other_snapshots() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let cache = Cache::at(folder.path().join("cache")).unwrap();
        let spec = MachineSpec {
            name: "node1".to_owned(),
            memory_mib: 128,
            cpus: 1,
            memory: Memory::Anonymous,
            image: Image::for_test("/kernel", "/initramfs", None),
            nics: vec![Nic::default()],
            gateway: None,
            data_disk: None,
            accelerator: Accelerator::Tcg,
            kernel_parameters: Vec::new(),
            qemu_options: Vec::new(),
            console: Console::new(folder.path().join("console"), Instant::now()),
            qemu: file("qemu", "one build"),
            qemu_log: folder.path().join("log"),
        };
        let key = |spec: &MachineSpec, processor: &str| {
            Snapshot::key_on(&cache, spec, processor).unwrap()
        };
        let usual = key(&spec, "a processor");
        let elsewhere = MachineSpec {
            name: "node2".to_owned(),
            qemu: file("copy", "one build"),
            qemu_log: folder.path().join("another log"),
            ..spec.clone()
        };
        assert_eq!(key(&elsewhere, "a processor"), usual);
        let updated = MachineSpec {
            qemu: file("new", "next build"),
            ..spec.clone()
        };
        assert_ne!(key(&updated, "a processor"), usual);
        assert_ne!(key(&spec, "another processor"), usual);
        for nics in [
            vec![],
            vec![Nic::default(); 2],
            vec![Nic {
                mtu: Mtu::new(9000).unwrap(),
            }],
        ] {
            let nics = MachineSpec {
                nics,
                ..spec.clone()
            };
            assert_ne!(key(&nics, "a processor"), usual, "{:?}", nics.nics);
        }
        let open = MachineSpec {
            gateway: Some(Gateway),
            ..spec.clone()
        };
        assert_ne!(key(&open, "a processor"), usual);
    }
}
