//! Why something could not be done with a machine.

use std::{io, path::PathBuf};

use mvm_agent::client::AgentError;
use mvm_fabric::AttachError;
use mvm_machine::{
    machine::{BootError, LaunchError},
    qmp::QmpError,
};

use crate::{service::ServiceError, wait::WaitError};

/// Why something could not be done with a machine.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The machine is off.
    #[error("could not use machine {machine}: it is off")]
    Off {
        /// The machine.
        machine: String,
    },
    /// The machine's processors are stopped.
    #[error("could not use machine {machine}: it is paused")]
    Paused {
        /// The machine.
        machine: String,
    },
    /// It is on already.
    #[error("could not start machine {machine}: it is on")]
    On {
        /// The machine.
        machine: String,
    },
    /// The switch gave no socket.
    #[error("could not connect machine {machine} to the switch: {source}")]
    Switch {
        /// The machine.
        machine: String,
        /// What the switch said.
        source: AttachError,
    },
    /// A file for the machine's memory could not be handled.
    #[error("could not use the memory file {file:?}: {source}")]
    Memory {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the host that is to be put into the machine could not be read.
    #[error("could not read {path:?}, a file for machine {machine}: {source}")]
    File {
        /// The machine.
        machine: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something that the machine is to have could not be made.
    #[error("could not make what machine {machine} is to have: {command:?} {how}{output}")]
    Provision {
        /// The machine.
        machine: String,
        /// The command.
        command: String,
        /// What it did.
        how: String,
        /// Its output, shortened.
        output: String,
    },
    /// QEMU did not start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The guest did not come up.
    #[error(transparent)]
    Boot(Box<BootError>),
    /// The agent channel failed.
    #[error("could not talk to the agent on {machine}: {source}")]
    Agent {
        /// The machine.
        machine: String,
        /// What the channel said.
        source: AgentError,
    },
    /// A port of the host could not be listened on.
    #[error("could not forward a port of machine {machine}: {source}")]
    Forward {
        /// The machine.
        machine: String,
        /// What was wrong with the port.
        source: AgentError,
    },
    /// The monitor failed.
    #[error("could not control machine {machine}: {source}")]
    Monitor {
        /// The machine.
        machine: String,
        /// What the monitor said.
        source: QmpError,
    },
    /// A service could not be handled.
    #[error("on machine {machine}: {source}")]
    Service {
        /// The machine.
        machine: String,
        /// Why.
        source: ServiceError,
    },
    /// A command ended otherwise than it should have.
    #[error("command {command:?} on {machine} {how}{output}")]
    Command {
        /// The machine.
        machine: String,
        /// The command.
        command: String,
        /// What it did instead.
        how: String,
        /// Its output, shortened.
        output: String,
    },
    /// A condition did not come to hold.
    #[error("on machine {machine}: {source}")]
    Wait {
        /// The machine.
        machine: String,
        /// What was waited for and seen.
        source: WaitError,
    },
}

impl NodeError {
    /// Tells whether the system under test is to blame, rather than the lab.
    pub fn is_assertion(&self) -> bool {
        match self {
            NodeError::Command { .. } | NodeError::Wait { .. } => true,
            NodeError::Agent { source, .. } => matches!(source, AgentError::PortClosed { .. }),
            _ => false,
        }
    }
}
