//! What this host allows, found out once by trying.

use std::fmt::{self, Display, Formatter};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::MemoryControl;
use crate::supervisor::ARGUMENT;
use crate::wire::{self, HELLO, Order, Report};

/// How long a supervisor may take to answer the probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// How jobs are kept on this host: what [`Isolation::probe`] found, and the program that supervises.
///
/// Its text, one or two sentences, is for `doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Isolation {
    kind: Kind,
    memory: MemoryControl,
    supervisor: PathBuf,
}

/// What holds a job's processes together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A PID namespace. When its first process dies, in whatever way, the kernel kills all in it.
    PidNamespace {
        /// It took a user namespace, in which only the node's own user and group exist: the job can become
        /// nobody else, and `sudo` does not work.
        user_namespace: bool,
        /// The job sees a `/proc` of its own; otherwise the host's.
        own_proc: bool,
    },
    /// A process that inherits all orphans and kills them one by one. It is no match for a job that kills its
    /// own supervisor.
    Subreaper {
        /// Why there is no PID namespace.
        reason: String,
    },
}

/// Why nothing can be run at all.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The supervisor's program could not be started.
    #[error("could not start a supervisor from {}: {source}", .program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The program started, but not as a supervisor.
    #[error(
        "{} did not answer as a supervisor ({found}): its `main` must call `mvm_exec::supervise_if_asked` first",
        .program.display()
    )]
    NotASupervisor {
        /// The program.
        program: PathBuf,
        /// What came instead.
        found: String,
    },
}

impl Isolation {
    /// Finds out what this host allows, by trying, with this very executable as supervisor. Blocks for some
    /// milliseconds, ten seconds at most.
    ///
    /// # Errors
    ///
    /// [`ProbeError`] if `main` does not call [`supervise_if_asked`](crate::supervise_if_asked).
    pub fn probe() -> Result<Self, ProbeError> {
        Self::probe_with("/proc/self/exe")
    }

    /// As [`Isolation::probe`], with another program as supervisor: a test's own executable is none.
    ///
    /// # Errors
    ///
    /// [`ProbeError`] if that program does not call [`supervise_if_asked`](crate::supervise_if_asked).
    pub fn probe_with(supervisor: impl Into<PathBuf>) -> Result<Self, ProbeError> {
        let supervisor = supervisor.into();
        let probed = ask(&supervisor)?;
        let kind = if probed.namespace {
            Kind::PidNamespace {
                user_namespace: probed.user_namespace,
                own_proc: probed.own_proc,
            }
        } else {
            Kind::Subreaper {
                reason: format!("a PID namespace was refused: {}", probed.reason),
            }
        };
        Ok(Self {
            kind,
            memory: MemoryControl::probe(),
            supervisor,
        })
    }

    /// Returns what holds a job's processes together.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Returns how memory limits are kept.
    pub fn memory(&self) -> &MemoryControl {
        &self.memory
    }

    /// Does without PID namespaces, for this reason: a configuration's wish, or a test of the other way.
    #[must_use]
    pub fn without_namespace(mut self, reason: impl Into<String>) -> Self {
        self.kind = Kind::Subreaper {
            reason: reason.into(),
        };
        self
    }

    pub(crate) fn supervisor(&self) -> &Path {
        &self.supervisor
    }
}

impl Display for Isolation {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::PidNamespace {
                user_namespace,
                own_proc,
            } => {
                formatter.write_str("each job in a PID namespace, which dies as a whole")?;
                if *user_namespace {
                    formatter.write_str(", by way of a user namespace (no sudo in jobs)")?;
                }
                if !own_proc {
                    formatter.write_str(", with the host's /proc")?;
                }
            }
            Kind::Subreaper { reason } => write!(
                formatter,
                "each job under a subreaper, which a job could kill ({reason})"
            )?,
        }
        match &self.memory {
            MemoryControl::ControlGroup { parent } => write!(
                formatter,
                "; memory limited per job by control groups in {}",
                parent.display()
            ),
            MemoryControl::PerProcess { reason } => write!(
                formatter,
                "; memory limited per process only, exceeding it is not told apart ({reason})"
            ),
        }
    }
}

/// Prepares a supervisor: its standard input is its end of the socket to us, whatever else it inherits it
/// closes. Nothing of our environment goes to it, because a job may be able to look at it.
pub(crate) fn supervisor_command(program: &Path, control: UnixStream) -> Command {
    let mut command = Command::new(program);
    command
        .arg0("mvm-exec-supervisor")
        .arg(ARGUMENT)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(control)));
    // Without it a node that needs it to start could not be started again.
    if let Some(path) = std::env::var_os("LD_LIBRARY_PATH") {
        command.env("LD_LIBRARY_PATH", path);
    }
    command
}

fn ask(program: &Path) -> Result<wire::Probed, ProbeError> {
    let spawn_error = |source| ProbeError::Spawn {
        program: program.to_owned(),
        source,
    };
    let (ours, theirs) = UnixStream::pair().map_err(spawn_error)?;
    let mut command = supervisor_command(program, theirs);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(spawn_error)?;
    // It holds our copy of its end.
    drop(command);
    let answer = converse(&ours);
    drop(ours);
    if answer.is_err() {
        let _ = child.kill();
    }
    let _ = child.wait();
    answer.map_err(|error| ProbeError::NotASupervisor {
        program: program.to_owned(),
        found: error.to_string(),
    })
}

fn converse(mut stream: &UnixStream) -> io::Result<wire::Probed> {
    stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
    stream.write_all(&Order::Probe.to_frame())?;
    let mut received = Vec::new();
    let mut greeted = false;
    loop {
        while let Some((tag, body)) = wire::take_frame(&mut received).map_err(io::Error::other)? {
            match Report::parse(tag, &body).map_err(io::Error::other)? {
                Report::Hello(word) if word == HELLO => greeted = true,
                Report::Probed(probed) if greeted => return Ok(probed),
                other => return Err(io::Error::other(format!("{other:?}"))),
            }
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer)? {
            0 => return Err(io::Error::other("it ended without an answer")),
            count => received.extend(&buffer[..count]),
        }
    }
}
