//! What is sealed with a checkpoint, in a versioned form; its large files lie beside it.

use std::collections::BTreeMap;

use mvm_fabric::SwitchState;
use mvm_machine::{cache::ContentKey, qmp::StateMemory};
use serde::{Deserialize, Serialize};

use super::CheckpointError;
use crate::environment::Environment;

/// A checkpoint, but for the machines' memories, states and disks.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Content {
    /// The images that the machines booted.
    pub(super) image: ContentKey,
    /// The QEMU that saved them.
    pub(super) qemu: ContentKey,
    pub(super) accelerator: String,
    pub(super) machines: BTreeMap<String, MachineContent>,
    pub(super) switch: SwitchState,
    /// Checkpoints whose disks this one's are based on.
    pub(super) based_on: Vec<ContentKey>,
    /// The run's clock, in milliseconds.
    pub(super) clock_ms: f64,
    pub(super) taken_unix_ms: u64,
}

/// One machine of a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MachineContent {
    /// Absent for a machine that was off.
    pub(super) running: Option<RunningContent>,
    /// The size of its disk, which is kept whether it ran or not.
    pub(super) disk_bytes: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RunningContent {
    pub(super) memory: StateMemory,
    /// How much of each service's output was logged; all, for one that has ended.
    pub(super) services: BTreeMap<String, u64>,
}

impl Content {
    /// Refuses a checkpoint that was taken of something else than there is here.
    pub(super) fn fits(
        &self,
        name: &str,
        environment: &Environment,
    ) -> Result<(), CheckpointError> {
        let foreign = |what| CheckpointError::Foreign {
            name: name.to_owned(),
            what,
        };
        if self.image != environment.images_key() {
            return Err(foreign("images"));
        }
        if self.qemu != environment.qemu_key {
            return Err(foreign("a QEMU"));
        }
        if self.accelerator != environment.accelerator.accelerator.to_string() {
            return Err(foreign("an accelerator"));
        }
        Ok(())
    }
}

/// The files of a machine in a checkpoint's folder.
pub(super) fn memory_file(machine: &str) -> String {
    format!("{machine}.ram")
}

pub(super) fn state_file(machine: &str) -> String {
    format!("{machine}.state")
}

pub(super) fn disk_file(machine: &str) -> String {
    format!("{machine}.data.qcow2")
}
