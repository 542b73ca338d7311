//! A machine whose saved state was loaded and whose processors stand still.

use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use super::{
    Booting, Evidence, LaunchError, MachineSpec,
    booting::{Process, evidence},
    parted::end,
};
use crate::{
    process::Exit,
    qemu::Start,
    qmp::{Qmp, QmpError, StateMemory},
};

/// Why a saved state could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// QEMU was not started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The state's file could not be opened.
    #[error("could not open the saved state {path:?} of machine {machine}: {source}")]
    State {
        /// The machine's name.
        machine: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// QEMU ended instead of loading it.
    #[error(
        "could not load the saved state of machine {machine}: QEMU ended with {exit}{evidence}"
    )]
    Ended {
        /// The machine's name.
        machine: String,
        /// How QEMU ended.
        exit: Exit,
        /// What QEMU and the console said last.
        evidence: Evidence,
    },
    /// The monitor refused or did not answer.
    #[error("could not load the saved state of machine {machine}: {source}")]
    Monitor {
        /// The machine's name.
        machine: String,
        /// What it said.
        source: QmpError,
    },
    /// It was not done in time.
    #[error("could not load the saved state of machine {machine} within {allowed:.1?}")]
    Slow {
        /// The machine's name.
        machine: String,
        /// How long it was given.
        allowed: Duration,
    },
}

impl LoadError {
    /// Tells whether the state itself may be to blame, rather than the host.
    pub fn blames_state(&self) -> bool {
        match self {
            LoadError::State { .. } | LoadError::Ended { .. } | LoadError::Monitor { .. } => true,
            LoadError::Launch(_) | LoadError::Slow { .. } => false,
        }
    }
}

/// What [`Parted::save`](super::Parted::save) wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedState {
    /// The file.
    pub path: PathBuf,
    /// Where the memory is in relation to it.
    pub memory: StateMemory,
}

/// Whose machine it is that is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The specification's, as it is.
    Known,
    /// Somebody's who is told later: QEMU's complaints can be moved, and the cards say nothing of themselves, for
    /// they are not yet anybody's.
    ToCome,
}

/// A machine that stands still where it was saved. Dropping it kills it.
pub struct Loaded {
    process: Process,
    qmp: Qmp,
}

impl Loaded {
    /// Starts QEMU and loads a saved state, at most `allowed` long. `nic_sockets` as for [`Booting::launch`].
    ///
    /// The specification must describe the machine that was saved, but for its name, its logs, its private disk's
    /// file and where its memory lies.
    pub async fn load(
        spec: MachineSpec,
        state: &SavedState,
        nic_sockets: Vec<OwnedFd>,
        allowed: Duration,
    ) -> Result<Loaded, LoadError> {
        Self::load_for(Owner::Known, spec, state, nic_sockets, allowed).await
    }

    /// [`Loaded::load`] for a machine whose owner may be yet to come.
    pub(crate) async fn load_for(
        owner: Owner,
        spec: MachineSpec,
        state: &SavedState,
        nic_sockets: Vec<OwnedFd>,
        allowed: Duration,
    ) -> Result<Loaded, LoadError> {
        let machine = spec.name.clone();
        let loading = Self::load_unbounded(owner, spec, state, nic_sockets);
        tokio::time::timeout(allowed, loading)
            .await
            .unwrap_or(Err(LoadError::Slow { machine, allowed }))
    }

    async fn load_unbounded(
        owner: Owner,
        spec: MachineSpec,
        state: &SavedState,
        nic_sockets: Vec<OwnedFd>,
    ) -> Result<Loaded, LoadError> {
        let machine = spec.name.clone();
        let file = File::open(&state.path).map_err(|source| LoadError::State {
            machine: machine.clone(),
            path: state.path.clone(),
            source,
        })?;
        let descriptor = file.as_raw_fd();
        let inherited = vec![file.into()];
        let mut process =
            Process::start(spec, Start::Incoming, owner, nic_sockets, inherited).await?;
        let monitor = |source| LoadError::Monitor {
            machine: machine.clone(),
            source,
        };
        let qmp = process.monitor().await;
        let loading = async {
            let qmp = qmp?;
            qmp.load(descriptor, state.memory).await?;
            Ok::<Qmp, QmpError>(qmp)
        };
        match loading.await {
            Ok(qmp) => Ok(Loaded { process, qmp }),
            // A QEMU that cannot load ends; why is in its log.
            Err(QmpError::Closed { .. }) => {
                let exit = process.child.wait().await;
                process.last_words().await;
                Err(LoadError::Ended {
                    machine,
                    exit,
                    evidence: evidence(&process.spec),
                })
            }
            Err(source) => Err(monitor(source)),
        }
    }

    /// Writes the state again, without the memory, which must lie in a file of this machine's own.
    pub async fn save(&self, file: &File) -> Result<(), QmpError> {
        self.qmp.save(file.as_fd(), StateMemory::InSharedFile).await
    }

    /// Ends QEMU in order, with all files closed.
    pub async fn end(self, allowed: Duration) {
        end(&self.qmp, &self.process.child, allowed).await;
        self.process.child.wait().await;
    }

    /// Lets the guest run on.
    pub async fn go(self) -> Result<Booting, LoadError> {
        let Loaded { process, qmp } = self;
        match qmp.resume().await {
            Ok(()) => Ok(Booting {
                process,
                monitor: Some(qmp),
            }),
            Err(source) => Err(LoadError::Monitor {
                machine: process.spec.name.clone(),
                source,
            }),
        }
    }
}
