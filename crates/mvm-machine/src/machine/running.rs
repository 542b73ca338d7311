//! A machine whose agent answers, and one that has ended.

use std::{io, os::unix::net::UnixStream as StdUnixStream, time::Duration};

use mvm_agent::client::{Agent, AgentError, ChannelEnd, Share};
use tokio::{net::UnixStream, sync::broadcast};

use super::{MachineSpec, Parted, booting::DRAIN_ALLOWED, log::Log};
use crate::{
    console::OpenConsole,
    process::{Child, Exit},
    qmp::{Qmp, QmpError, QmpEvent},
    recording::Recording,
};

/// A machine whose agent answers. Dropping it kills it.
pub struct Running {
    pub(super) parts: Parts,
    pub(super) agent: Agent,
    pub(super) booted_in: Duration,
}

/// What a machine has whether or not somebody talks to its agent.
pub(super) struct Parts {
    pub(super) spec: MachineSpec,
    pub(super) child: Child,
    /// Stays open between two conversations, so that QEMU sees no hang-up.
    pub(super) channel: StdUnixStream,
    pub(super) shared: StdUnixStream,
    pub(super) qmp: Qmp,
    pub(super) console: Recording<OpenConsole>,
    pub(super) log: Log,
}

/// Host memory of one machine, in bytes, as the kernel counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Pages that are this machine's alone.
    pub private: u64,
    /// Its fair share of all pages it uses: those it shares with others count in part (PSS).
    pub proportional: u64,
}

impl Running {
    /// Returns the agent in the guest.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Has the machine mount the folder in common; who gets the result answers its kernel.
    ///
    /// # Errors
    ///
    /// [`AgentError::Closed`].
    pub fn share(&self) -> Result<Share<UnixStream>, AgentError> {
        let channel = self.parts.shared.try_clone().and_then(UnixStream::from_std);
        let channel = channel.map_err(|error| AgentError::Closed(ChannelEnd::Io(error.into())))?;
        self.agent.share(channel)
    }

    /// Returns what the machine is made of.
    pub fn spec(&self) -> &MachineSpec {
        &self.parts.spec
    }

    /// Returns the time from QEMU's start to the agent's first answer.
    pub fn booted_in(&self) -> Duration {
        self.booted_in
    }

    /// Returns QEMU's process id.
    pub fn pid(&self) -> u32 {
        self.parts.child.pid()
    }

    /// Stops the guest's processors. Its clocks stand still too.
    pub async fn pause(&self) -> Result<(), QmpError> {
        self.parts.qmp.stop().await
    }

    /// Lets a paused guest run on.
    pub async fn resume(&self) -> Result<(), QmpError> {
        self.parts.qmp.resume().await
    }

    /// Waits until QEMU has answered its monitor; an error if it does not within the monitor's bound.
    pub async fn settle(&self) -> Result<(), QmpError> {
        self.parts.qmp.run_status().await.map(drop)
    }

    /// Returns the host memory it uses.
    pub fn memory_use(&self) -> io::Result<MemoryUse> {
        let path = format!("/proc/{}/smaps_rollup", self.parts.child.pid());
        Ok(MemoryUse::read(&std::fs::read_to_string(path)?))
    }

    /// Ends the conversation with the agent in order, so that the machine's state can be saved.
    ///
    /// # Errors
    ///
    /// The guest refuses while commands or transfers of the conversation are under way; the machine runs on
    /// undisturbed then, and comes back with the error.
    pub async fn part(self) -> Result<Parted, (Running, AgentError)> {
        match self.agent.part().await {
            Ok(()) => Ok(Parted { parts: self.parts }),
            Err(error) => Err((self, error)),
        }
    }

    /// Kills the machine at once, as a power cut does to its memory. The data disk keeps what the guest had
    /// flushed: this is a crash of the machine, not a loss of the disk's cache.
    pub async fn crash(self) -> Stopped {
        self.parts.child.kill();
        self.parts.stopped().await
    }

    /// Asks the guest to end its processes, unmount and power off; kills it after `allowed`.
    pub async fn power_off(self, allowed: Duration) -> Stopped {
        let machine = &self.parts.spec.name;
        // The agent may be gone before its answer is out; the process's end is what counts.
        if let Err(error) = self.agent.power_off().await {
            tracing::debug!(machine, %error, "the power-off request was not answered");
        }
        if tokio::time::timeout(allowed, self.parts.child.wait())
            .await
            .is_err()
        {
            tracing::warn!(machine, ?allowed, "did not power off in time and is killed");
            self.parts.child.kill();
        }
        self.parts.stopped().await
    }

    /// Tells whether the machine has ended by itself; then [`Running::wait`] returns at once.
    pub fn has_ended(&self) -> bool {
        self.parts.child.try_exit().is_some()
    }

    /// Waits until the machine has ended, without a hold on it.
    pub fn end(&self) -> impl Future<Output = ()> + Send + use<> {
        self.parts.child.end()
    }

    /// Has QEMU's human monitor carry out a command; returns what it printed.
    ///
    /// # Errors
    ///
    /// If the monitor does not answer. What the command came to is in its words.
    pub async fn monitor_command(&self, command: &str) -> Result<String, QmpError> {
        self.parts.qmp.human_monitor(command).await
    }

    /// Returns a stream of the monitor's events from now on; it ends with the machine.
    pub fn monitor_events(&self) -> broadcast::Receiver<QmpEvent> {
        self.parts.qmp.events()
    }

    /// Waits until the machine ends by itself.
    pub async fn wait(self) -> Stopped {
        self.parts.stopped().await
    }
}

impl Parts {
    pub(super) async fn stopped(mut self) -> Stopped {
        let exit = self.child.wait().await;
        self.console.ended(DRAIN_ALLOWED).await;
        self.log.ended(DRAIN_ALLOWED).await;
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

impl MemoryUse {
    /// Reads a `smaps_rollup`, which counts in kB.
    fn read(rollup: &str) -> MemoryUse {
        let sum = |prefix: &str| {
            let lines = rollup.lines().filter(|line| line.starts_with(prefix));
            lines
                .filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
                .map(|kib| kib * 1024)
                .sum()
        };
        MemoryUse {
            private: sum("Private_"),
            proportional: sum("Pss:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_summed() {
        let rollup = "Rss: 10 kB\nPss:  7 kB\nPss_Dirty: 5 kB\nPrivate_Clean:        4 kB\n\
                      Private_Dirty:      96 kB\nPrivate_Hugetlb: 0 kB\nbad";
        let expected = MemoryUse {
            private: 100 * 1024,
            proportional: 7 * 1024,
        };
        assert_eq!(MemoryUse::read(rollup), expected);
    }
}
