//! A machine on its way up: QEMU runs, the agent has not answered yet, or systemd is not ready ([`super::systemd`]).

use std::{
    fmt, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use mvm_agent::client::{Agent, AgentError, ChannelEnd};
use tokio::net::UnixStream;

use super::{
    MachineSpec, Running,
    loaded::Owner,
    log::Log,
    running::Parts,
    systemd::{self, SystemState},
};
use crate::{
    console::OpenConsole,
    process::{Child, Exit, Keeper, ProcessError, in_small_pages},
    qemu::{self, Descriptors, Start},
    qmp::{Qmp, QmpError},
    recording::Recording,
};

/// Monitor commands answer in milliseconds; a loaded host may need a thousand times that.
const MONITOR_ALLOWED: Duration = Duration::from_secs(10);
/// How QEMU's memory is handed out where its C library is glibc: from one place, asked for in few pieces.
const ALLOCATOR: &str = "glibc.malloc.arena_max=1:glibc.malloc.top_pad=16777216";
/// After the process ended its console socket still holds what the guest said last.
pub(super) const DRAIN_ALLOWED: Duration = Duration::from_secs(2);
/// Between a closed channel and the end of its QEMU.
const END_ALLOWED: Duration = Duration::from_secs(5);
/// Console lines shown with a boot that failed.
const TAIL_LINES: usize = 15;
/// Among more of them is why a kernel gave up.
const PANIC_LINES: usize = 80;
/// Lines of QEMU's own shown with it.
const QEMU_LINES: usize = 5;

/// Why QEMU could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A socket pair, log file or console file could not be made.
    #[error("could not prepare {what} of machine {machine}: {source}")]
    Prepare {
        /// The machine's name.
        machine: String,
        /// What was being prepared.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The process could not be started.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// Why a launched machine did not get as far as an answering agent.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// QEMU ended by itself.
    #[error(
        "could not boot machine {machine}: QEMU ended with {exit} after {elapsed:.1?}{evidence}"
    )]
    Ended {
        /// The machine's name.
        machine: String,
        /// How QEMU ended.
        exit: Exit,
        /// Time since launch.
        elapsed: Duration,
        /// What QEMU and the console said last.
        evidence: Evidence,
    },
    /// No agent answered in time.
    #[error(
        "could not boot machine {machine}: no agent answered in {elapsed:.1?} ({agent}){evidence}"
    )]
    NoAgent {
        /// The machine's name.
        machine: String,
        /// Time since launch.
        elapsed: Duration,
        /// The last thing the channel said.
        agent: AgentError,
        /// What QEMU and the console said last.
        evidence: Evidence,
    },
    /// The agent answers, and the machine's systemd does not get far enough.
    #[error("could not boot machine {machine} in {elapsed:.1?}: {system}{evidence}")]
    System {
        /// The machine's name.
        machine: String,
        /// What its systemd came to.
        system: SystemState,
        /// Time since launch.
        elapsed: Duration,
        /// What QEMU and the console said last.
        evidence: Evidence,
    },
    /// The monitor did not answer.
    #[error("could not boot machine {machine}: {source}")]
    Monitor {
        /// The machine's name.
        machine: String,
        /// What went wrong.
        source: QmpError,
    },
}

/// The last lines of a failed boot, printed below its error.
#[derive(Debug)]
pub struct Evidence {
    qemu: Vec<String>,
    console: Vec<String>,
    console_path: PathBuf,
    kernel_runs: bool,
}

impl fmt::Display for Evidence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.qemu {
            write!(formatter, "\n  qemu: {line}")?;
        }
        for line in &self.console {
            write!(formatter, "\n  console: {line}")?;
        }
        if self.console.is_empty() {
            let hint = match self.kernel_runs {
                true => "",
                false => "; is this a kernel for this machine?",
            };
            write!(formatter, "\n  console: nothing was printed{hint}")?;
        }
        write!(
            formatter,
            "\n  the whole console is in {}",
            self.console_path.display()
        )
    }
}

/// A machine whose QEMU runs and whose agent has not answered yet. Dropping it kills it.
pub struct Booting {
    pub(super) process: Process,
    /// Open already where the machine was loaded.
    pub(super) monitor: Option<Qmp>,
}

/// A QEMU with its ends of everything it talks through.
pub(super) struct Process {
    pub(super) spec: MachineSpec,
    pub(super) child: Child,
    pub(super) monitor: Option<UnixStream>,
    pub(super) agent: StdUnixStream,
    pub(super) shared: StdUnixStream,
    pub(super) console: Recording<OpenConsole>,
    pub(super) log: Log,
    pub(super) launched: tokio::time::Instant,
}

impl Booting {
    /// Starts QEMU. `nic_sockets` are the switch's ends, one per NIC of the specification.
    pub async fn launch(
        spec: MachineSpec,
        nic_sockets: Vec<OwnedFd>,
    ) -> Result<Booting, LaunchError> {
        Ok(Booting {
            process: Process::start(spec, Start::Cold, Owner::Known, nic_sockets, Vec::new())
                .await?,
            monitor: None,
        })
    }

    /// Waits until the agent answers, at most `allowed`.
    pub async fn ready(self, allowed: Duration) -> Result<Running, BootError> {
        let Booting {
            mut process,
            monitor,
        } = self;
        let machine = process.spec.name.clone();
        let agent = process.agent(allowed).await?;
        // One that was loaded had got there before it was saved.
        if process.spec.image.has_systemd() && monitor.is_none() {
            process.system(&agent, allowed).await?;
        }
        let booted_in = process.launched.elapsed();
        let qmp = match monitor {
            Some(qmp) => qmp,
            None => process
                .monitor()
                .await
                .map_err(|source| BootError::Monitor { machine, source })?,
        };
        Ok(Running {
            parts: Parts {
                spec: process.spec,
                child: process.child,
                channel: process.agent,
                shared: process.shared,
                qmp,
                console: process.console,
                log: process.log,
            },
            agent,
            booted_in,
        })
    }

    /// Waits until QEMU ends by itself; for guests that run no agent.
    pub async fn wait(mut self) -> Exit {
        let exit = self.process.child.wait().await;
        self.process.console.ended(DRAIN_ALLOWED).await;
        exit
    }
}

impl Process {
    /// Starts QEMU; `inherited` are more descriptors that it keeps, under their own numbers.
    pub(super) async fn start(
        spec: MachineSpec,
        start: Start,
        owner: Owner,
        nic_sockets: Vec<OwnedFd>,
        inherited: Vec<OwnedFd>,
    ) -> Result<Process, LaunchError> {
        assert_eq!(spec.nics.len(), nic_sockets.len(), "one socket per NIC");
        let prepare = |what| {
            let machine = spec.name.clone();
            move |source| LaunchError::Prepare {
                machine,
                what,
                source,
            }
        };
        let (console, guest_console) = channel().map_err(prepare("the console"))?;
        let (monitor, guest_monitor) = channel().map_err(prepare("the monitor"))?;
        let (agent, guest_agent) = channel().map_err(prepare("the agent channel"))?;
        let (shared, guest_shared) =
            channel().map_err(prepare("the port of the folder in common"))?;
        let (log, complaints) = Log::open(&spec.qemu_log, owner)
            .await
            .map_err(prepare("the log"))?;
        let console = UnixStream::from_std(console).map_err(prepare("the console"))?;
        let console = spec
            .console
            .record(console)
            .await
            .map_err(prepare("the console file"))?;

        let descriptors = Descriptors {
            console: guest_console.as_raw_fd(),
            monitor: guest_monitor.as_raw_fd(),
            agent: guest_agent.as_raw_fd(),
            shared: guest_shared.as_raw_fd(),
            nics: nic_sockets.iter().map(AsRawFd::as_raw_fd).collect(),
        };
        let mut command = Command::new(&spec.qemu);
        command
            .args(qemu::arguments(&spec, start, &descriptors))
            .env("GLIBC_TUNABLES", ALLOCATOR)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(complaints);
        // In large ones twenty resumed machines take a fifth longer and 5 MiB more each; guests compute as fast.
        in_small_pages(&mut command);
        let mut kept = vec![guest_console, guest_monitor, guest_agent, guest_shared];
        kept.extend(nic_sockets);
        kept.extend(inherited);
        let monitor = UnixStream::from_std(monitor).map_err(prepare("the monitor"))?;
        let child = Keeper::get()?.spawn(command, kept)?;
        Ok(Process {
            spec,
            child,
            monitor: Some(monitor),
            agent,
            shared,
            console,
            log,
            launched: tokio::time::Instant::now(),
        })
    }

    /// Opens the monitor; it can be opened once.
    pub(super) async fn monitor(&mut self) -> Result<Qmp, QmpError> {
        let monitor = self.monitor.take().ok_or_else(|| QmpError::Closed {
            command: "greeting".to_owned(),
        })?;
        Qmp::connect(monitor, MONITOR_ALLOWED).await
    }

    /// Waits until the agent answers.
    async fn agent(&mut self, allowed: Duration) -> Result<Agent, BootError> {
        let machine = self.spec.name.clone();
        let answered = tokio::select! {
            exit = self.child.wait() => Err(exit),
            agent = connect(&self.agent, allowed) => match agent {
                // The channel of a QEMU that ends is closed a moment before its end is known.
                Err(AgentError::Closed(end)) => {
                    match tokio::time::timeout(END_ALLOWED, self.child.wait()).await {
                        Ok(exit) => Err(exit),
                        Err(_) => Ok(Err(AgentError::Closed(end))),
                    }
                }
                other => Ok(other),
            },
        };
        match answered {
            Ok(Ok(agent)) => Ok(agent),
            Ok(Err(error)) => Err(BootError::NoAgent {
                machine,
                elapsed: self.launched.elapsed(),
                agent: error,
                evidence: evidence(&self.spec),
            }),
            Err(exit) => {
                // Its last words are worth a moment.
                self.last_words().await;
                Err(BootError::Ended {
                    machine,
                    exit,
                    elapsed: self.launched.elapsed(),
                    evidence: evidence(&self.spec),
                })
            }
        }
    }
}

impl Process {
    /// Waits until systemd has done what it does before anybody's services.
    async fn system(&self, agent: &Agent, allowed: Duration) -> Result<(), BootError> {
        let left = allowed.saturating_sub(self.launched.elapsed());
        let up = systemd::wait_until_held(agent, left).await;
        up.map_err(|system| BootError::System {
            machine: self.spec.name.clone(),
            system,
            elapsed: self.launched.elapsed(),
            evidence: Evidence {
                kernel_runs: true,
                ..evidence(&self.spec)
            },
        })
    }

    /// Waits until all is recorded that a QEMU which has ended said.
    pub(super) async fn last_words(&mut self) {
        self.console.ended(DRAIN_ALLOWED).await;
        self.log.ended(DRAIN_ALLOWED).await;
    }
}

/// Socket pairs for network cards that are connected to nothing: the ends to hold, and those for QEMU.
pub fn unconnected(nics: usize) -> io::Result<(Vec<OwnedFd>, Vec<OwnedFd>)> {
    let pairs = (0..nics).map(|_| {
        let (ours, theirs) = StdUnixStream::pair()?;
        Ok((ours.into(), theirs.into()))
    });
    let pairs = pairs.collect::<io::Result<Vec<(OwnedFd, OwnedFd)>>>()?;
    Ok(pairs.into_iter().unzip())
}

/// Talks to the agent over a channel that stays open for others after this.
pub(super) async fn connect(
    channel: &StdUnixStream,
    allowed: Duration,
) -> Result<Agent, AgentError> {
    let stream = channel
        .try_clone()
        .and_then(UnixStream::from_std)
        .map_err(|error| AgentError::Closed(ChannelEnd::Io(error.into())))?;
    Agent::connect(stream, allowed).await
}

/// Returns our end and the other for QEMU.
fn channel() -> io::Result<(StdUnixStream, OwnedFd)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((ours, theirs.into()))
}

/// The last lines; before them why the kernel gave up, which a long trace leaves out of sight.
fn last_lines(mut lines: Vec<String>) -> Vec<String> {
    let last = lines.split_off(lines.len().saturating_sub(TAIL_LINES));
    lines.retain(|line| line.contains("Kernel panic"));
    lines.extend(last);
    lines
}

/// What QEMU and the console said last.
pub(super) fn evidence(spec: &MachineSpec) -> Evidence {
    let log = std::fs::read(&spec.qemu_log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    Evidence {
        qemu: lines
            .iter()
            .rev()
            .take(QEMU_LINES)
            .rev()
            .map(|line| (*line).to_owned())
            .collect(),
        console: last_lines(spec.console.tail(PANIC_LINES)),
        console_path: spec.console.path().to_owned(),
        kernel_runs: false,
    }
}
