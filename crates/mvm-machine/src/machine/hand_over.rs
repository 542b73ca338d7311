//! Making a machine that was started for nobody the one that somebody specifies.
//!
//! Which machine that is, and when there is one, is [`crate::pool`]'s.

use std::{io, time::Duration};

use mvm_agent::client::AgentError;

use super::{MachineSpec, Memory, Parted, Running, log::OpenLog};
use crate::{console::OpenConsole, qemu::DATA_DRIVE, qmp::QmpError};

/// Why a machine could not become another's. It is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandOverError {
    /// What it says is no longer recorded.
    #[error("its QEMU has closed its {0}")]
    Recording(&'static str),
    /// QEMU did not take the disk.
    #[error("could not give it the disk: {0}")]
    Disk(#[source] QmpError),
    /// QEMU did not let it go on.
    #[error(transparent)]
    Monitor(#[from] QmpError),
    /// Its agent does not answer.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

impl HandOverError {
    /// Tells whether another machine would become the taker's no more than this one.
    pub(crate) fn blames_taker(&self) -> bool {
        match self {
            // Such as for a disk that another machine has.
            HandOverError::Disk(QmpError::Refused { .. }) => true,
            HandOverError::Disk(_)
            | HandOverError::Recording(_)
            | HandOverError::Monitor(_)
            | HandOverError::Agent(_) => false,
        }
    }
}

/// Where what a machine says is to go, opened.
pub(crate) struct Places {
    console: OpenConsole,
    log: OpenLog,
}

impl Places {
    /// Opens the files that `spec` names.
    pub(crate) async fn open(spec: &MachineSpec) -> io::Result<Places> {
        Ok(Places {
            console: spec.console.open().await?,
            log: OpenLog::at(&spec.qemu_log).await?,
        })
    }
}

impl Parted {
    /// Tells whether QEMU has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.parts.child.try_exit().is_some()
    }

    /// Moves the file of the machine's own memory to where `spec` wants it; QEMU does not notice. Nothing is changed after
    /// an error, such as for a place on another file system.
    pub(crate) fn move_memory(&mut self, spec: &MachineSpec) -> io::Result<()> {
        if let (Memory::Own(from), Memory::Own(to)) = (&self.parts.spec.memory, &spec.memory) {
            std::fs::rename(from, to)?;
            self.parts.spec.memory = Memory::Own(to.clone());
        }
        Ok(())
    }

    /// Has this machine, which was loaded for [`Owner::ToCome`](super::Owner::ToCome) and stands still, go on as the one
    /// that `spec` describes: what it says goes to `places`, its disk is the one of `spec`, its agent answers.
    ///
    /// `spec` must be like what it was loaded from. Of what it has, only the place of its memory stays, and the name of
    /// its process.
    pub(crate) async fn hand_over(
        mut self,
        spec: &MachineSpec,
        places: Places,
        allowed: Duration,
    ) -> Result<Running, HandOverError> {
        if !self.parts.console.move_to(places.console).await {
            return Err(HandOverError::Recording("console"));
        }
        if !self.parts.log.move_to(places.log).await {
            return Err(HandOverError::Recording("standard error"));
        }
        if let Some(disk) = &spec.data_disk {
            let replaced = self.parts.qmp.replace_disk(DATA_DRIVE, &disk.path).await;
            replaced.map_err(HandOverError::Disk)?;
        }
        self.parts.spec = MachineSpec {
            memory: self.parts.spec.memory,
            ..spec.clone()
        };
        self.resume().await?;
        Ok(self.reconnect(allowed).await?)
    }
}
