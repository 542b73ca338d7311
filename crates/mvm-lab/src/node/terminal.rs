//! Terminals in a machine, commands with pipes, and its serial console: what people at a keyboard use.

use std::sync::atomic::Ordering;

use mvm_agent::client::{Agent, Running};
pub use mvm_agent::client::{Terminal, TerminalInput, TerminalOptions, WindowSize};
use mvm_machine::console::Console;

use super::{Node, NodeError, lock};
use crate::control::wire::Power;

impl Node {
    /// Opens a terminal, as root: a shell as at a login, or a command. Dropping it hangs up.
    ///
    /// It goes through the agent, so it works whatever the network does. A checkpoint is refused while it is open.
    pub async fn terminal(&self, options: TerminalOptions) -> Result<Terminal, NodeError> {
        let terminal = self.awake_agent()?.terminal(options).await;
        terminal.map_err(|source| self.agent_error(source))
    }

    /// Returns the serial console, to listen to and to type on, which goes on across restarts of the machine.
    pub fn console(&self) -> Console {
        lock(&self.spec).console.clone()
    }

    /// Starts a shell line with its standard input open, or a shell that reads lines from there.
    pub(crate) async fn piped(&self, line: Option<String>) -> Result<Running, NodeError> {
        let agent = self.awake_agent()?;
        let command = match line {
            Some(line) => agent.shell(line),
            None => agent.command("sh"),
        };
        let started = command.stdin_piped().spawn().await;
        started.map_err(|source| self.agent_error(source))
    }

    /// Returns whether the machine is on, without waiting.
    pub(crate) fn power(&self) -> Power {
        let paused = self.paused.load(Ordering::Relaxed);
        match (self.machine.try_lock(), lock(&self.agent).is_some()) {
            (_, true) if paused => Power::Paused,
            (_, true) => Power::On,
            (Err(_), false) => Power::Changing,
            (Ok(_), false) => Power::Off,
        }
    }

    /// The agent of a machine that can answer.
    fn awake_agent(&self) -> Result<Agent, NodeError> {
        let agent = self.agent()?;
        match self.paused.load(Ordering::Relaxed) {
            true => Err(NodeError::Paused {
                machine: self.name().to_owned(),
            }),
            false => Ok(agent),
        }
    }
}
