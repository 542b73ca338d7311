//! Checkpoints: all machines of a lab frozen together, and brought back together, here or in another run, once or
//! several times side by side.
//!
//! ```text
//!   take                                          bring back
//!   agents:   conversations end in order          switch:   made anew, held, with the frames it held
//!   switch:   holds back what is for machines     machines: load, stand still
//!   machines: read what they were given, stop     machines: go on, all at once
//!   switch:   reads what they had sent            switch:   delivers
//!   machines: disk frozen, state and memory kept  agents:   new conversations, fresh randomness, the time
//! ```
//!
//! Connections between machines live on, since neither side saw a moment pass. Guests' monotonic clocks go on where
//! they stood; their wall clocks too, or are set to the host's ([`WallClock`]).
//!
//! A checkpoint is a sealed folder in the cache. A name leads to the last one taken under it for the same
//! topology, image and host.

mod bring_back;
mod content;
mod take;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mvm_agent::client::AgentError;
use mvm_fabric::{CaptureError, RestoreError, Stopped};
use mvm_machine::{
    cache::{Cache, ContentKey, Lease, Shelf},
    files::FileError,
    machine::{BootError, LoadError},
    qmp::QmpError,
    snapshot::{StaleError, sealed},
};

use self::content::Content;
use crate::{
    environment::Environment,
    lab::{Lab, LabError},
    node::{NodeError, lock},
    topology::{MemoryPlan, Topology},
};

/// Checkpoints: large, and made again by whoever made them.
pub const CHECKPOINTS: Shelf = Shelf {
    name: "checkpoints",
    unused_max: Some(Duration::from_secs(14 * 24 * 3600)),
};

/// What a guest's wall clock shows after it came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WallClock {
    /// The host's time.
    Now,
    /// It goes on where it stood.
    Continues,
}

/// Why a checkpoint could not be taken or brought back.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Nobody took a checkpoint of this name.
    #[error("could not find the checkpoint {name:?}; this run has {known:?}")]
    Unknown {
        /// The name given.
        name: String,
        /// Those of this run.
        known: Vec<String>,
    },
    /// A machine is paused, and its agent cannot end its conversation.
    #[error("could not take a checkpoint: machine {machine} is paused; resume it first")]
    Paused {
        /// The machine.
        machine: String,
    },
    /// Something is under way that a checkpoint would tear.
    #[error("could not take a checkpoint: the agent on {machine} refuses: {source}")]
    Busy {
        /// The machine.
        machine: String,
        /// What it said.
        source: AgentError,
    },
    /// A machine did not stop, or could not be saved.
    #[error("could not take a checkpoint of machine {machine}: {source}")]
    Monitor {
        /// The machine.
        machine: String,
        /// What its monitor said.
        source: QmpError,
    },
    /// The switch could not be captured.
    #[error("could not take a checkpoint of the network: {0}")]
    Capture(#[from] CaptureError),
    /// The switch could not be made again.
    #[error("could not bring the network back: {0}")]
    Restore(#[from] RestoreError),
    /// The switch has stopped.
    #[error(transparent)]
    Switch(#[from] Stopped),
    /// A machine's saved state did not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A machine that was loaded did not answer.
    #[error(transparent)]
    Boot(#[from] Box<BootError>),
    /// A machine did not run on.
    #[error("could not let machine {machine} run on after a checkpoint: {source}")]
    Resume {
        /// The machine.
        machine: String,
        /// What its monitor said.
        source: QmpError,
    },
    /// A machine that goes on did not answer.
    #[error("could not talk to machine {machine} after a checkpoint: {source}")]
    Reconnect {
        /// The machine.
        machine: String,
        /// What the channel said.
        source: AgentError,
    },
    /// The checkpoint is not, or no longer, what was taken.
    #[error("could not use the checkpoint {name:?}: {source}")]
    Stale {
        /// Its name.
        name: String,
        /// What is wrong with it.
        source: StaleError,
    },
    /// The checkpoint was taken of something else.
    #[error("could not use the checkpoint {name:?}: it was taken of {what} other than here")]
    Foreign {
        /// Its name.
        name: String,
        /// What differs.
        what: &'static str,
    },
    /// A disk could not be made over the checkpoint's.
    #[error("could not make the disk of machine {machine}: {reason}")]
    Disk {
        /// The machine.
        machine: String,
        /// Why.
        reason: String,
    },
    /// A machine could not be used.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A lab for a fork could not be set up.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file could not be handled.
    #[error("could not {what} {path:?}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A checkpoint in the cache. It stays there while this lives.
#[derive(Debug)]
pub struct Checkpoint {
    name: String,
    key: ContentKey,
    lease: Lease,
    content: Content,
    /// Checkpoints whose disks this one's are based on.
    _based_on: Vec<Lease>,
}

impl Checkpoint {
    /// Returns the name it was taken under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens a checkpoint, if it is what was taken and fits `environment`. Blocks.
    fn open(
        cache: &Cache,
        lease: Lease,
        key: &ContentKey,
        name: &str,
        environment: &Environment,
    ) -> Result<Checkpoint, CheckpointError> {
        let content: Content =
            sealed::open(lease.path()).map_err(|source| CheckpointError::Stale {
                name: name.to_owned(),
                source,
            })?;
        content.fits(name, environment)?;
        let based_on = content.based_on.iter().map(|key| {
            cache
                .lease(CHECKPOINTS, key)
                .ok_or_else(|| CheckpointError::Foreign {
                    name: name.to_owned(),
                    what: "disks that are gone",
                })
        });
        let based_on = based_on.collect::<Result<_, _>>()?;
        Ok(Checkpoint {
            name: name.to_owned(),
            key: key.clone(),
            lease,
            content,
            _based_on: based_on,
        })
    }
}

/// Finds the last checkpoint taken under `name` of `topology` on this host; one that is of no use is forgotten.
/// Blocks.
pub(crate) fn find(
    environment: &Environment,
    topology: &Topology,
    name: &str,
) -> Result<Option<Checkpoint>, CheckpointError> {
    let pointer = pointer(environment, topology, name);
    let cache = &environment.cache;
    let Some(mut key) = pointed(&pointer) else {
        return Ok(None);
    };
    let lease = loop {
        if let Some(lease) = cache.lease(CHECKPOINTS, &key) {
            break lease;
        }
        // Another run may have put a newer one in its place meanwhile.
        match pointed(&pointer) {
            Some(newer) if newer != key => key = newer,
            Some(_) | None => return Ok(None),
        }
    };
    let opened = Checkpoint::open(cache, lease, &key, name, environment);
    if opened.is_err() {
        cache.remove(CHECKPOINTS, &key);
    }
    opened.map(Some)
}

/// The checkpoint that a pointer leads to.
fn pointed(pointer: &Path) -> Option<ContentKey> {
    serde_json::from_slice(&std::fs::read(pointer).ok()?).ok()
}

/// The file that names the last checkpoint taken under a name.
fn pointer(environment: &Environment, topology: &Topology, name: &str) -> PathBuf {
    let key = ContentKey::of("checkpoint name 1")
        .text(name)
        .key(&topology_key(topology))
        .key(&environment.images_key())
        .key(&environment.qemu_key)
        .finish();
    let file = format!("{}.json", key.short());
    environment.cache.root().join("checkpoint-names").join(file)
}

/// Changes with anything in a topology.
pub(crate) fn topology_key(topology: &Topology) -> ContentKey {
    let alike = Topology {
        memory: MemoryPlan::Shared,
        ..topology.clone()
    };
    // Only ever compared with keys of this same program, so the debugging form will do.
    ContentKey::of("topology")
        .text(&format!("{alike:?}"))
        .finish()
}

impl Lab {
    /// Freezes all running machines together under a name, and lets them run on.
    ///
    /// They stand still for a fraction of a second if their memory is their own
    /// ([`MemoryPlan::Own`]), else for some seconds. Commands and transfers under way are
    /// not torn: the checkpoint is refused then, and nothing is disturbed. Services go on.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Busy`], [`CheckpointError::Paused`], or what went wrong; the machines run on, unless one
    /// of them was lost.
    pub async fn checkpoint(&self, name: &str) -> Result<(), CheckpointError> {
        let checkpoint = take::take(self, name, take::After::GoOn).await?;
        lock(&self.checkpoints).insert(name.to_owned(), Arc::new(checkpoint));
        Ok(())
    }

    /// Freezes all running machines together under a name, and ends them: quicker, since nothing is copied.
    pub(crate) async fn checkpoint_and_end(&self, name: &str) -> Result<(), CheckpointError> {
        let checkpoint = take::take(self, name, take::After::End).await?;
        lock(&self.checkpoints).insert(name.to_owned(), Arc::new(checkpoint));
        Ok(())
    }

    /// Puts all machines back to where they were at a checkpoint: of this run or, if it has none of this name, of
    /// the last run that took one of the same topology.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Unknown`] or what went wrong; the machines are off then.
    pub async fn restore(&self, name: &str, wall: WallClock) -> Result<(), CheckpointError> {
        let checkpoint = self.find_checkpoint(name).await?;
        bring_back::bring_back(self, &checkpoint, wall).await
    }

    /// Makes `count` more labs that go on from a checkpoint, each with a network of its own. Their files lie in
    /// folders of their own, `NAME-1` and up, in this lab's run folder.
    pub async fn fork(
        &self,
        name: &str,
        count: usize,
        wall: WallClock,
    ) -> Result<Vec<Lab>, CheckpointError> {
        let checkpoint = self.find_checkpoint(name).await?;
        let mut forks = Vec::new();
        for number in 1..=count {
            let folder = self
                .common
                .folder
                .below(&format!("{name}-{number}"))
                .map_err(|error| CheckpointError::Io {
                    what: "make the folder",
                    path: error.path,
                    source: error.source,
                })?;
            let fork = Lab::build(
                &self.topology,
                &self.common.environment,
                self.common.start,
                self.network().seed(),
                &folder,
                &self.common.recorder,
            )
            .await?;
            lock(&fork.checkpoints).clone_from(&lock(&self.checkpoints));
            bring_back::bring_back(&fork, &checkpoint, wall).await?;
            forks.push(fork);
        }
        Ok(forks)
    }

    async fn find_checkpoint(&self, name: &str) -> Result<Arc<Checkpoint>, CheckpointError> {
        if let Some(checkpoint) = lock(&self.checkpoints).get(name) {
            return Ok(Arc::clone(checkpoint));
        }
        let environment = Arc::clone(&self.common.environment);
        let (topology, wanted) = (self.topology.clone(), name.to_owned());
        let found = blocking(move || find(&environment, &topology, &wanted)).await?;
        let checkpoint = Arc::new(found.ok_or_else(|| CheckpointError::Unknown {
            name: name.to_owned(),
            known: lock(&self.checkpoints).keys().cloned().collect(),
        })?);
        lock(&self.checkpoints).insert(name.to_owned(), Arc::clone(&checkpoint));
        Ok(checkpoint)
    }
}

/// Runs work that blocks on a thread for that.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
