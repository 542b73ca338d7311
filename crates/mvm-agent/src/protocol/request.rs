//! What a host can ask of a guest, what the guest can answer, and the data of both.
//!
//! How requests travel in frames is the parent module's business.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Nonce;
use crate::boot::Mount;

/// What the host asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Answer at once.
    Ping,
    /// Run a program.
    Run(Run),
    /// Run a program in a session of its own, on a terminal.
    Terminal(TerminalRun),
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
    /// Mount a file system at [`SHARED_FOLDER`](super::SHARED_FOLDER), unless it is there. Nobody answers there yet: this
    /// is for a machine that is about to be frozen.
    MountShared,
    /// The same, and the host answers what is asked there over a port of its own, until the conversation ends.
    Share {
        /// What packets on that port belong to.
        session: Nonce,
    },
    /// Set the wall clock.
    SetClock {
        /// The time since the Unix epoch.
        since_epoch: Duration,
    },
    /// Have systemd execute itself again, and forget what it read; for a machine with a root of its own.
    Renew,
    /// Have systemd start what it held back; for a machine with a root of its own, once.
    Release,
    /// Go another way than every sibling restored from the same snapshot, with the same identity.
    Reseed {
        /// Fresh randomness for the kernel's pool.
        entropy: Vec<u8>,
    },
    /// Start a service, which no conversation ends.
    StartService {
        /// What it is called, see [`is_service_name`]. One that ended may be replaced by its successor.
        name: String,
        /// What it runs.
        program: Program,
    },
    /// Send a service's output, then how it ended.
    FollowService {
        /// What it is called.
        name: String,
        /// Where in its output to begin, in bytes; from the oldest byte still there or from its present end
        /// if that lies outside.
        offset: u64,
    },
    /// Send a signal to the process group of a service.
    SignalService {
        /// What it is called.
        name: String,
        /// The signal's number.
        signal: i32,
    },
    /// List the services.
    Services,
    /// End the conversation in order. Refused while streams other than this one and followers of services
    /// are open.
    Part,
    /// Stop everything, sync, and end the machine.
    End(MachineEnd),
}

/// A program and what it is started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// A path, or a name to look up in `PATH`.
    pub name: String,
    /// Its arguments, without the program's own name.
    pub arguments: Vec<String>,
    /// Variables added to the agent's own environment.
    pub environment: Vec<(String, String)>,
    /// The working directory; `/` when absent.
    pub directory: Option<String>,
}

impl Program {
    /// The program without arguments and with nothing added.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
        }
    }
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The program.
    pub program: Program,
    /// Where its standard input comes from.
    pub stdin: StdinSource,
    /// Whether it outlives the conversation.
    pub lifetime: Lifetime,
}

/// A program to run on a terminal: one lane of bytes each way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalRun {
    /// What runs on it.
    pub program: TerminalProgram,
    /// What `TERM` is: the kind of terminal on the host.
    pub term: String,
    /// How large it is at first.
    pub size: WindowSize,
}

/// What runs on a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TerminalProgram {
    /// The shell of the agent's user, as at a login: in the user's home, with the files it reads then.
    LoginShell,
    /// This one.
    Program(Program),
}

/// How large a terminal is, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Characters in a row.
    pub columns: u16,
    /// How many rows.
    pub rows: u16,
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

/// The longest name of a service, in bytes.
pub const SERVICE_NAME_BYTES_MAX: usize = 64;

/// How many services there may be at once; one that ended counts until another takes its name.
pub const SERVICES_MAX: usize = 64;

/// How much of a service's output the guest keeps, in bytes: what it wrote last.
pub const BACKLOG_BYTES_MAX: usize = 1024 * 1024;

/// Whether a service may be called this: 1 to [`SERVICE_NAME_BYTES_MAX`] of `a-z A-Z 0-9 . _ @ -`.
pub fn is_service_name(name: &str) -> bool {
    (1..=SERVICE_NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte))
}

/// What a guest tells about a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// What it is called.
    pub name: String,
    /// The id of its first process, and of its process group.
    pub pid: i32,
    /// Whether it runs.
    pub state: ServiceState,
    /// How much it has written so far, in bytes: where its next output begins.
    pub output_offset: u64,
}

/// Whether a service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceState {
    /// Its first process runs.
    Running,
    /// Its first process ended; others of its group may live on.
    Ended(ExitStatus),
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
    /// A service was started.
    Service {
        /// Its process id.
        pid: i32,
    },
    /// The services, in the order of their start.
    Services(Vec<ServiceInfo>),
    /// The conversation is over: nothing follows, on any stream, until the next greeting.
    Parted,
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
    /// Whom to ask for other names: the lines of `/etc/resolv.conf`. With none, that file is left alone.
    pub name_servers: Vec<IpAddr>,
    /// What is written to `/etc/machine-id`, 32 lower-case hexadecimal digits; `None` leaves it alone.
    pub machine_id: Option<String>,
    /// What is mounted at last. A target on which this file system is mounted already is left alone.
    pub mounts: Vec<Mount>,
    /// The folders whose changes are the machine's own, for a machine with a root of its own.
    pub layers: Option<Box<Layers>>,
}

/// Folders of a machine's root whose changes go to its private disk from now on, and come from there when it starts
/// again. It gets a boot id of its own with them, as its init may have been started before it was anybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layers {
    /// The private disk.
    pub disk: Mount,
    /// Absolute paths of the folders; one that the root does not have is left out.
    pub folders: Vec<String>,
}

/// One network interface of an [`Identity`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The hardware address it is found by.
    pub mac: [u8; 6],
    /// The hardware address it gets; `None` leaves it alone. A card that has this address already is found
    /// by it too.
    pub address: Option<[u8; 6]>,
    /// What it is renamed to, at most 15 bytes; `None` keeps the kernel's name.
    pub name: Option<String>,
    /// Its addresses with their prefix lengths, added to those it has.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Where packets go that are for no network of the machine's: the routers of its default routes, at most one of
    /// IPv4 and one of IPv6. They must be within reach of the addresses.
    pub gateways: Vec<IpAddr>,
    /// Whether its neighbours are told (RFC 5227, RFC 4861), who may remember another card with these addresses. All of
    /// them hear it, which costs a lab of a hundred machines more than starting them.
    pub announce: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_names_are_plain_and_short() {
        let longest = "x".repeat(SERVICE_NAME_BYTES_MAX);
        for name in ["a", "Web-1", "node@eth0.service", "_", longest.as_str()] {
            assert!(is_service_name(name), "{name}");
        }
        let too_long = "x".repeat(SERVICE_NAME_BYTES_MAX + 1);
        for name in ["", "a b", "a/b", "\u{e4}", "a\n", "a\0", too_long.as_str()] {
            assert!(!is_service_name(name), "{name}");
        }
    }
}
