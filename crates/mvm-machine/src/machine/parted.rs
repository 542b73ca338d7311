//! A machine to whose agent nobody talks: it can be stopped, saved, and talked to again.

use std::{fs::File, os::fd::AsFd, path::Path, time::Duration};

use mvm_agent::client::AgentError;

use super::{MachineSpec, Memory, Running, Stopped, booting::connect, running::Parts};
use crate::{
    data_disk::DataDisk,
    process::Child,
    qemu::DATA_DRIVE,
    qmp::{Qmp, QmpError, StateMemory},
};

/// A machine whose conversation was ended in order. Dropping it kills it.
pub struct Parted {
    pub(super) parts: Parts,
}

impl Parted {
    /// Returns what the machine is made of.
    pub fn spec(&self) -> &MachineSpec {
        &self.parts.spec
    }

    /// Stops the guest's processors and its clocks; returns once they stand.
    pub async fn stop(&self) -> Result<(), QmpError> {
        self.parts.qmp.stop().await
    }

    /// Waits until QEMU has done what it had begun: one turn of its main loop.
    pub async fn settle(&self) -> Result<(), QmpError> {
        self.parts.qmp.run_status().await.map(drop)
    }

    /// Lets a stopped guest run on.
    pub async fn resume(&self) -> Result<(), QmpError> {
        self.parts.qmp.resume().await
    }

    /// Writes the state of a stopped machine to `file`; returns where its memory is in relation to that.
    ///
    /// With memory in a file of its own the state is small, and that file must be kept with it. Otherwise the
    /// state holds the memory too. All disks are flushed.
    pub async fn save(&self, file: &File) -> Result<StateMemory, QmpError> {
        let memory = match self.parts.spec.memory {
            Memory::Own(_) => StateMemory::InSharedFile,
            Memory::Anonymous | Memory::Frozen(_) => StateMemory::InState,
        };
        self.parts.qmp.save(file.as_fd(), memory).await?;
        Ok(memory)
    }

    /// Puts a new, empty disk at `path` over the private disk of a stopped machine, whose file does not change any
    /// more from then on; returns that file's disk, or `None` if the machine has none.
    pub async fn freeze_disk(&mut self, path: &Path) -> Result<Option<DataDisk>, QmpError> {
        let Some(disk) = &mut self.parts.spec.data_disk else {
            return Ok(None);
        };
        self.parts.qmp.put_overlay(DATA_DRIVE, path).await?;
        let over = DataDisk {
            path: path.to_owned(),
            bytes: disk.bytes,
        };
        Ok(Some(std::mem::replace(disk, over)))
    }

    /// Opens a new conversation with the agent of a machine that runs.
    pub async fn reconnect(self, allowed: Duration) -> Result<Running, AgentError> {
        let agent = connect(&self.parts.channel, allowed).await?;
        Ok(Running {
            parts: self.parts,
            agent,
            booted_in: Duration::ZERO,
        })
    }

    /// Ends QEMU in order, with all files closed.
    pub async fn end(self, allowed: Duration) -> Stopped {
        end(&self.parts.qmp, &self.parts.child, allowed).await;
        self.parts.stopped().await
    }
}

/// Has a QEMU end in order, which closes its files; kills one that does not.
pub(super) async fn end(qmp: &Qmp, child: &Child, allowed: Duration) {
    // It closes the monitor as it goes.
    let asked = qmp.quit().await;
    if asked.is_err() || tokio::time::timeout(allowed, child.wait()).await.is_err() {
        child.kill();
    }
}
