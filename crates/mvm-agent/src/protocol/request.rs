//! What a host can ask of a guest, what the guest can answer, and the data of both.
//!
//! How requests travel in frames is the parent module's business.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// What the host asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Answer at once.
    Ping,
    /// Run a program.
    Run(Run),
    /// Write the bytes that follow to a file.
    Upload {
        /// The absolute path.
        path: String,
        /// The permission bits.
        mode: u32,
    },
    /// Send the content of a regular file, then [`Reply::File`].
    Download {
        /// The absolute path.
        path: String,
    },
    /// Wait until a TCP connection is accepted.
    WaitForPort {
        /// An address, or a name in the guest's `/etc/hosts`.
        host: String,
        /// The TCP port.
        port: u16,
        /// How long to try.
        timeout: Duration,
    },
    /// Open a TCP connection and relay its bytes.
    Dial(SocketAddr),
    /// Become somebody.
    Configure {
        /// Who to be.
        identity: Identity,
        /// Fresh randomness for the kernel's pool.
        entropy: Vec<u8>,
    },
    /// Stop everything, sync, and end the machine.
    End(MachineEnd),
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// A path, or a name to look up in `PATH`.
    pub program: String,
    /// Its arguments, without the program's own name.
    pub arguments: Vec<String>,
    /// Variables added to the agent's own environment.
    pub environment: Vec<(String, String)>,
    /// The working directory; `/` when absent.
    pub directory: Option<String>,
    /// Where its standard input comes from.
    pub stdin: StdinSource,
    /// Whether it outlives the conversation.
    pub lifetime: Lifetime,
}

/// Where a command's standard input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StdinSource {
    /// `/dev/null`.
    Null,
    /// The stream.
    Stream,
}

/// What a command's life is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lifetime {
    /// The stream: it is killed with it, and its output comes over it.
    Stream,
    /// Nothing: the stream is done once the program started.
    Detached {
        /// The file that standard output and error are appended to; `/dev/null` when absent.
        output: Option<String>,
    },
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// The host's time limit passed and the host had it killed. Never said by a guest.
    TimedOut,
}

impl ExitStatus {
    /// Whether the command exited with code 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "exit code {code}"),
            Self::Signal(signal) => write!(formatter, "killed by signal {signal}"),
            Self::TimedOut => formatter.write_str("timed out"),
        }
    }
}

/// How a machine is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MachineEnd {
    /// Power off, by a reset where the machine has no ACPI.
    PowerOff,
    /// Restart.
    Reboot,
}

/// The result of a request that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// There is nothing to tell.
    Nothing,
    /// A detached command was started.
    Detached {
        /// Its process id.
        pid: i32,
    },
    /// A file was sent whole.
    File {
        /// Its permission bits.
        mode: u32,
    },
    /// Nobody accepted a connection in time.
    PortClosed {
        /// How often it was tried.
        attempts: u32,
        /// What the last attempt met.
        last: Cause,
    },
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{operation}: {cause}")]
pub struct Failure {
    /// What was tried, as an infinitive: ``run `nginx` ``.
    pub operation: String,
    /// What stood against it.
    pub cause: Cause,
}

/// The cause of a [`Failure`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// The guest's kernel said this `errno`.
    Os(i32),
    /// Something else, in words.
    Other(String),
}

impl std::fmt::Display for Cause {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Os(errno) => std::io::Error::from_raw_os_error(*errno).fmt(formatter),
            Self::Other(text) => formatter.write_str(text),
        }
    }
}

/// Who a machine is: told over the channel, so that a restored machine can be made another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The host name.
    pub hostname: String,
    /// The network interfaces to set up. Others are left alone; the loopback is always brought up.
    pub interfaces: Vec<Interface>,
    /// Lines of `/etc/hosts`, beside those for `localhost`.
    pub hosts: Vec<(IpAddr, String)>,
    /// What the wall clock is set to; `None` leaves it alone. Take it just before the call.
    pub wall_clock: Option<SystemTime>,
}

/// One network interface of an [`Identity`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The hardware address it is found by.
    pub mac: [u8; 6],
    /// What it is renamed to, at most 15 bytes; `None` keeps the kernel's name.
    pub name: Option<String>,
    /// Its addresses with their prefix lengths, added to those it has.
    pub addresses: Vec<(IpAddr, u8)>,
}
