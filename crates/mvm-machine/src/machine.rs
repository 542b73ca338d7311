//! One machine's life: booting, running, stopped - three types, and only the running one takes commands.
//!
//! ```text
//!   MachineSpec --launch--> Booting --ready--> Running --crash, power_off--> Stopped
//!                                                 ^                             |
//!                                                 +---- launch the spec again --+
//! ```
//!
//! Several machines, names, networks and faults in time are the lab's affair.

use std::{
    fmt, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use mvm_agent::client::{Agent, AgentError};
use tokio::{net::UnixStream, task::JoinHandle};

use crate::{
    accelerator::Accelerator,
    console::Console,
    image::Image,
    process::{Child, Exit, Keeper, ProcessError},
    qemu::{self, Descriptors},
    qmp::{Qmp, QmpError},
};

/// Monitor commands answer in milliseconds; a loaded host may need a thousand times that.
const MONITOR_ALLOWED: Duration = Duration::from_secs(10);
/// After the process ended its console socket still holds what the guest said last.
const CONSOLE_DRAIN_ALLOWED: Duration = Duration::from_secs(2);
/// Between a closed channel and the end of its QEMU.
const END_ALLOWED: Duration = Duration::from_secs(5);
/// Console lines shown with a boot that failed.
const TAIL_LINES: usize = 15;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// Everything that makes a machine; the same specification launched again is the same machine rebooted.
#[derive(Clone)]
pub struct MachineSpec {
    /// The name, for messages and process listings.
    pub name: String,
    /// The guest's memory in MiB.
    pub memory_mib: u32,
    /// Kernel, initramfs and shared disk.
    pub image: Arc<Image>,
    /// One Ethernet address per network card.
    pub nics: Vec<MacAddress>,
    /// The private disk, kept across crashes and restarts.
    pub data_disk: Option<PathBuf>,
    /// What executes the guest.
    pub accelerator: Accelerator,
    /// Kernel parameters after our own.
    pub kernel_parameters: Vec<String>,
    /// Where the serial console is recorded.
    pub console: Console,
    /// The QEMU program.
    pub qemu: PathBuf,
    /// Where QEMU's own complaints go.
    pub qemu_log: PathBuf,
}

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
            write!(
                formatter,
                "\n  console: nothing was printed; is this a kernel for this machine?"
            )?;
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
    spec: MachineSpec,
    child: Child,
    monitor: UnixStream,
    agent: UnixStream,
    console: JoinHandle<()>,
    launched: tokio::time::Instant,
}

impl Booting {
    /// Starts QEMU. `nic_sockets` are the switch's ends, one per NIC of the specification.
    pub async fn launch(
        spec: MachineSpec,
        nic_sockets: Vec<OwnedFd>,
    ) -> Result<Booting, LaunchError> {
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
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&spec.qemu_log)
            .map_err(prepare("the log"))?;
        let console = spec
            .console
            .record(console)
            .await
            .map_err(prepare("the console file"))?;

        let descriptors = Descriptors {
            console: guest_console.as_raw_fd(),
            monitor: guest_monitor.as_raw_fd(),
            agent: guest_agent.as_raw_fd(),
            nics: nic_sockets.iter().map(AsRawFd::as_raw_fd).collect(),
        };
        let mut command = Command::new(&spec.qemu);
        command
            .args(qemu::arguments(&spec, &descriptors))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let mut inherited = vec![guest_console, guest_monitor, guest_agent];
        inherited.extend(nic_sockets);
        let child = Keeper::get()?.spawn(command, inherited)?;
        let launched = tokio::time::Instant::now();
        Ok(Booting {
            spec,
            child,
            monitor,
            agent,
            console,
            launched,
        })
    }

    /// Waits until the agent answers, at most `allowed`.
    pub async fn ready(self, allowed: Duration) -> Result<Running, BootError> {
        let machine = self.spec.name.clone();
        let Booting {
            spec,
            child,
            monitor,
            agent,
            console,
            launched,
        } = self;
        let answered = tokio::select! {
            exit = child.wait() => Err(exit),
            agent = Agent::connect(agent, allowed) => match agent {
                // The channel of a QEMU that ends is closed a moment before its end is known.
                Err(AgentError::Closed(end)) => {
                    match tokio::time::timeout(END_ALLOWED, child.wait()).await {
                        Ok(exit) => Err(exit),
                        Err(_) => Ok(Err(AgentError::Closed(end))),
                    }
                }
                other => Ok(other),
            },
        };
        let agent = match answered {
            Ok(Ok(agent)) => agent,
            Ok(Err(error)) => {
                return Err(BootError::NoAgent {
                    machine,
                    elapsed: launched.elapsed(),
                    agent: error,
                    evidence: evidence(&spec),
                });
            }
            Err(exit) => {
                drain(console).await;
                return Err(BootError::Ended {
                    machine,
                    exit,
                    elapsed: launched.elapsed(),
                    evidence: evidence(&spec),
                });
            }
        };
        let booted_in = launched.elapsed();
        let qmp = Qmp::connect(monitor, MONITOR_ALLOWED)
            .await
            .map_err(|source| BootError::Monitor { machine, source })?;
        Ok(Running {
            spec,
            child,
            agent,
            qmp,
            console,
            booted_in,
        })
    }

    /// Waits until QEMU ends by itself; for guests that run no agent.
    pub async fn wait(self) -> Exit {
        let exit = self.child.wait().await;
        drain(self.console).await;
        exit
    }
}

/// A machine whose agent answers. Dropping it kills it.
pub struct Running {
    spec: MachineSpec,
    child: Child,
    agent: Agent,
    qmp: Qmp,
    console: JoinHandle<()>,
    booted_in: Duration,
}

impl Running {
    /// Returns the agent in the guest.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Returns the time from QEMU's start to the agent's first answer.
    pub fn booted_in(&self) -> Duration {
        self.booted_in
    }

    /// Returns QEMU's process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Stops the guest's processors. Its clocks stand still too.
    pub async fn pause(&self) -> Result<(), QmpError> {
        self.qmp.stop().await
    }

    /// Lets a paused guest run on.
    pub async fn resume(&self) -> Result<(), QmpError> {
        self.qmp.resume().await
    }

    /// Returns the bytes of host memory that are this machine's alone.
    pub fn private_memory_bytes(&self) -> io::Result<u64> {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.pid()))?;
        Ok(private_bytes(&rollup))
    }

    /// Kills the machine at once, as a power cut does to its memory. The data disk keeps what the guest
    /// had handed to it: this is a crash of the machine, not a loss of the disk's cache.
    pub async fn crash(self) -> Stopped {
        self.child.kill();
        self.stopped().await
    }

    /// Asks the guest to end its processes, unmount and power off; kills it after `allowed`.
    pub async fn power_off(self, allowed: Duration) -> Stopped {
        // The agent may be gone before its answer is out; the process's end is what counts.
        if let Err(error) = self.agent.power_off().await {
            tracing::debug!(machine = self.spec.name, %error, "the power-off request was not answered");
        }
        if tokio::time::timeout(allowed, self.child.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                machine = self.spec.name,
                ?allowed,
                "did not power off in time and is killed"
            );
            self.child.kill();
        }
        self.stopped().await
    }

    /// Waits until the machine ends by itself.
    pub async fn wait(self) -> Stopped {
        self.stopped().await
    }

    async fn stopped(self) -> Stopped {
        let exit = self.child.wait().await;
        drain(self.console).await;
        Stopped {
            spec: self.spec,
            exit,
        }
    }
}

/// A machine that has ended and can be launched again.
pub struct Stopped {
    /// What it was made of.
    pub spec: MachineSpec,
    /// How QEMU ended.
    pub exit: Exit,
}

/// Returns our end for Tokio and the other for QEMU.
fn channel() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}

async fn drain(console: JoinHandle<()>) {
    // Whether the recording ended in time only decides how complete the tail is.
    let _ = tokio::time::timeout(CONSOLE_DRAIN_ALLOWED, console).await;
}

fn evidence(spec: &MachineSpec) -> Evidence {
    let log = std::fs::read(&spec.qemu_log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    Evidence {
        qemu: lines
            .iter()
            .rev()
            .take(5)
            .rev()
            .map(|line| (*line).to_owned())
            .collect(),
        console: spec.console.tail(TAIL_LINES),
        console_path: spec.console.path().to_owned(),
    }
}

/// Sums the `Private_*` lines of a `smaps_rollup`, which count in kB.
fn private_bytes(rollup: &str) -> u64 {
    rollup
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_is_summed() {
        let rollup = "Rss: 10 kB\nPrivate_Clean:        4 kB\nPrivate_Dirty:      96 kB\nPrivate_Hugetlb: 0 kB\nbad";
        assert_eq!(private_bytes(rollup), 100 * 1024);
    }

    #[test]
    fn addresses_print_as_usual() {
        assert_eq!(
            MacAddress([0x52, 0x54, 0, 0x12, 1, 0xff]).to_string(),
            "52:54:00:12:01:ff"
        );
    }
}
