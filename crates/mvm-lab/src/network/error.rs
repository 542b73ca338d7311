//! Why the network could not be changed or set up.

use std::{io, path::PathBuf, time::Duration};

use mvm_fabric::{
    AttachError, ChangeError, LatencyError, PacketCaptureError, ProbabilityError, RateError,
    Stopped,
};

use super::PlanError;

/// Why the network could not be changed; nothing was.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No machine has this name.
    #[error("could not change the network: there is no machine {name:?}, there are {known:?}")]
    UnknownMachine {
        /// The name given.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// Both ends of a link are the same machine.
    #[error("could not change the network: machine {name:?} has no link to itself")]
    SameMachine {
        /// The machine.
        name: String,
    },
    /// The topology has no link there.
    #[error(
        "could not change the network: there is no link between {one:?} and {other:?}, the topology is a {plan}"
    )]
    NoLink {
        /// The one machine.
        one: String,
        /// The other machine.
        other: String,
        /// How the machines are linked.
        plan: String,
    },
    /// There is no such segment.
    #[error("could not change the network: there is no segment {segment}, there are {known:?}")]
    UnknownSegment {
        /// The number given.
        segment: u8,
        /// Those there are.
        known: Vec<u8>,
    },
    /// A machine is not on the segment that is to be changed.
    #[error("could not change the network: machine {name:?} is not on segment {segment}")]
    NotOnSegment {
        /// The machine.
        name: String,
        /// The segment.
        segment: u8,
    },
    /// A machine has no card at all.
    #[error("could not change the network: machine {name:?} is on no segment")]
    NoCard {
        /// The machine.
        name: String,
    },
    /// A machine stands in two groups of a partition.
    #[error("could not partition the network: machine {name:?} stands in two groups")]
    InTwoGroups {
        /// The machine.
        name: String,
    },
    /// A partition that leaves the network in one part.
    #[error("could not partition the network: {groups} would part no machine from another")]
    PartsNothing {
        /// The groups given.
        groups: String,
    },
    /// Something is to happen by chance with a probability that is none.
    #[error("could not set the {aspect}: {source}")]
    Probability {
        /// What of the link.
        aspect: &'static str,
        /// What is wrong.
        source: ProbabilityError,
    },
    /// A delay is too long.
    #[error("could not set the {aspect}: {source}")]
    Delay {
        /// What of the link.
        aspect: &'static str,
        /// What is wrong.
        source: LatencyError,
    },
    /// A rate passes nothing.
    #[error("could not set the rate: {0}")]
    Rate(#[from] RateError),
    /// An MTU that no network has.
    #[error("could not set the MTU: {given} bytes were given, {min} to {max} can be")]
    Mtu {
        /// What was given.
        given: u32,
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// A link is to flap faster than can be.
    #[error(
        "could not let a link flap: it is to be up for {up:?} and down for {down:?}, {min:?} is the least"
    )]
    Flap {
        /// How long it is to be up.
        up: Duration,
        /// How long it is to be down.
        down: Duration,
        /// The least of either.
        min: Duration,
    },
    /// The file of a capture could not be made.
    #[error("could not make the packet capture {path:?}: {source}")]
    CaptureFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A capture could not be written to its end.
    #[error("could not write the packet capture {:?}: {}", .0.path, .0.source)]
    Capture(#[from] PacketCaptureError),
    /// The switch refused.
    #[error("could not change the network: {0}")]
    Switch(#[from] ChangeError),
}

impl From<Stopped> for NetworkError {
    fn from(stopped: Stopped) -> NetworkError {
        NetworkError::Switch(stopped.into())
    }
}

/// Why a lab's network could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The switch did not start.
    #[error("could not start the switch: {0}")]
    Start(#[source] std::io::Error),
    /// The switch refused a machine.
    #[error("could not connect machine {machine} to the switch: {source}")]
    Attach {
        /// The machine.
        machine: String,
        /// What the switch said.
        source: AttachError,
    },
    /// Machines cannot be linked as the topology says.
    #[error("could not link the machines of segment {segment}: {source}")]
    Plan {
        /// The segment.
        segment: u8,
        /// Why.
        source: PlanError,
    },
    /// The switch refused the links of the topology.
    #[error("could not link the machines as the topology says: {0}")]
    Links(#[from] NetworkError),
}
