//! What can go wrong between the host and a guest.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::protocol::{Cause, TooLarge};

/// Why a request to a guest failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// Nobody answered the greeting in time.
    #[error(
        "no agent answered within {} ms ({greetings} greetings sent, {bytes_received} bytes received)",
        waited.as_millis()
    )]
    NoAnswer {
        /// How long the client waited.
        waited: Duration,
        /// How many greetings were written.
        greetings: u32,
        /// How many bytes came, none of which was an answer.
        bytes_received: u64,
    },
    /// The guest's agent speaks another version of the protocol.
    #[error(
        "the guest's agent speaks protocol version {guest}, this program {host}: rebuild the image"
    )]
    VersionMismatch {
        /// Our version.
        host: u16,
        /// The guest's version.
        guest: u16,
    },
    /// The channel ended; every call that was under way, and every later one, ends with this.
    #[error("the agent channel is closed: {0}")]
    Closed(ChannelEnd),
    /// The guest tried and failed.
    #[error("the guest could not {operation}: {cause}")]
    Guest {
        /// What it tried.
        operation: String,
        /// What stood against it.
        cause: Cause,
    },
    /// The guest did not answer in time.
    #[error("no answer to {operation} within {} ms", waited.as_millis())]
    Unresponsive {
        /// What was asked.
        operation: &'static str,
        /// How long the client waited.
        waited: Duration,
    },
    /// Nobody accepted a connection in time.
    #[error(
        "nothing accepted connections on {host} port {port} within {} ms ({attempts} attempts, the last one: {last})",
        waited.as_millis()
    )]
    PortClosed {
        /// The host that was tried, as the guest names it.
        host: String,
        /// The TCP port.
        port: u16,
        /// How long the guest tried.
        waited: Duration,
        /// How often it tried.
        attempts: u32,
        /// What the last attempt met.
        last: Cause,
    },
    /// A file is larger than the caller allowed.
    #[error("`{path}` is larger than the allowed {bytes_max} bytes")]
    FileTooLarge {
        /// The file.
        path: String,
        /// The limit.
        bytes_max: u64,
    },
    /// A request does not fit a packet: too many arguments, or too long ones.
    #[error("the request is too large: {0}")]
    RequestTooLarge(#[from] TooLarge),
    /// The content to upload could not be read.
    #[error("could not read the content to upload: {0}")]
    Source(Arc<io::Error>),
    /// A forwarded port could not be opened on the host.
    #[error("could not listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The reason.
        error: Arc<io::Error>,
    },
}

impl AgentError {
    /// Whether the channel is gone, so that only a new connection can help.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }
}

/// Why a channel ended.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelEnd {
    /// The guest's end was closed: the machine is gone.
    #[error("the other end hung up")]
    HungUp,
    /// Reading or writing failed.
    #[error("{0}")]
    Io(Arc<io::Error>),
    /// The guest does not know the conversation: its agent restarted, or somebody else opened another one.
    #[error(
        "the guest no longer knows this conversation: it restarted, or another client took over"
    )]
    Forgotten,
    /// Bytes were lost on the way.
    #[error(
        "bytes were lost: frame {received} came instead of frame {expected} ({dropped} damaged packets)"
    )]
    OutOfStep {
        /// The sequence number that was due.
        expected: u32,
        /// The one that came.
        received: u32,
        /// How many pieces failed their checksum.
        dropped: u64,
    },
    /// The guest broke the rules of the protocol.
    #[error("the guest broke the protocol: {0}")]
    Violation(&'static str),
    /// The client ended the conversation in order, with [`super::Agent::part`].
    #[error("the client parted from the guest")]
    Parted,
    /// All handles were dropped.
    #[error("the client closed it")]
    Dropped,
}
