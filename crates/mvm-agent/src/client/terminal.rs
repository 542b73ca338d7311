//! A terminal in the guest.

use bytes::Bytes;

use super::channel::{Inbound, SendError, Sender, Stream};
use super::error::AgentError;
use super::{Agent, PROMPT_TIMEOUT, unexpected_reply};
use crate::protocol::{
    ExitStatus, Program, Request, TerminalProgram, TerminalRun, ToGuest, WindowSize,
};

/// What to run on a terminal, and what terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TerminalOptions {
    /// A line for the guest's `sh`; without one the shell of the agent's user runs, as at a login.
    pub command: Option<String>,
    /// How large the terminal is at first.
    pub size: WindowSize,
    /// What `TERM` is in the guest, such as `xterm-256color`.
    pub term: String,
}

impl Agent {
    /// Starts a program as the leader of a session of its own, on a terminal, and returns once it runs.
    ///
    /// # Errors
    ///
    /// [`AgentError::Guest`] when it could not be started; [`AgentError::Unresponsive`]; [`AgentError::Closed`].
    pub async fn terminal(&self, options: TerminalOptions) -> Result<Terminal, AgentError> {
        let program = match options.command {
            None => TerminalProgram::LoginShell,
            Some(line) => TerminalProgram::Program(Program {
                arguments: vec!["-c".to_owned(), line],
                ..Program::new("sh")
            }),
        };
        let mut stream = self.open(Request::Terminal(TerminalRun {
            program,
            term: options.term,
            size: options.size,
        }))?;
        let first = tokio::time::timeout(PROMPT_TIMEOUT, stream.next()).await;
        match first.map_err(|_| AgentError::Unresponsive {
            operation: "the wish for a terminal",
            waited: PROMPT_TIMEOUT,
        })?? {
            Inbound::Started => Ok(Terminal {
                stream,
                status: None,
                over: false,
            }),
            Inbound::Following(_)
            | Inbound::Data(..)
            | Inbound::End
            | Inbound::Exited(_)
            | Inbound::Done(_) => Err(unexpected_reply()),
        }
    }
}

/// A program on a terminal in the guest. Dropping it hangs up: the program gets `SIGHUP`, and so does what
/// runs in the terminal's foreground.
///
/// What it shows is held back in the guest while nobody asks for it: at most [`crate::protocol::WINDOW`] bytes wait
/// on the host.
#[derive(Debug)]
pub struct Terminal {
    stream: Stream,
    status: Option<ExitStatus>,
    over: bool,
}

impl Terminal {
    /// Returns the side that is typed on. It may be cloned, but lines are mixed if two write at once.
    pub fn input(&self) -> TerminalInput {
        TerminalInput {
            sender: self.stream.sender().clone(),
        }
    }

    /// Waits for what is shown next, escape sequences and all; `None` after the program's end. Nothing is lost
    /// when the future is dropped.
    ///
    /// # Errors
    ///
    /// [`AgentError::Closed`], such as when the machine is gone.
    pub async fn output(&mut self) -> Result<Option<Bytes>, AgentError> {
        while !self.over {
            match self.stream.next().await? {
                Inbound::Data(_, bytes) => return Ok(Some(bytes.into())),
                Inbound::Exited(status) => self.status = Some(status),
                Inbound::Done(_) => self.over = true,
                Inbound::Started | Inbound::Following(_) | Inbound::End => {}
            }
        }
        Ok(None)
    }

    /// Waits for the program's end and returns how it ended. What is still shown until then is thrown away.
    ///
    /// # Errors
    ///
    /// [`AgentError::Closed`], such as when the machine is gone.
    pub async fn wait(&mut self) -> Result<ExitStatus, AgentError> {
        while self.output().await?.is_some() {}
        self.status.ok_or_else(unexpected_reply)
    }
}

/// The side of a [`Terminal`] that is typed on. Does nothing any more once that is dropped.
#[derive(Debug, Clone)]
pub struct TerminalInput {
    sender: Sender,
}

impl TerminalInput {
    /// Types all of `bytes`, as fast as the guest takes them. Returns whether it still took them; `false` once the
    /// program has ended.
    ///
    /// # Errors
    ///
    /// [`AgentError::Closed`].
    pub async fn write_all(&self, bytes: &[u8]) -> Result<bool, AgentError> {
        accepted(self.sender.send_all(bytes).await)
    }

    /// Changes the terminal's size, of which the guest's programs hear by `SIGWINCH`. Returns `false` once the
    /// program has ended.
    ///
    /// # Errors
    ///
    /// [`AgentError::Closed`].
    pub fn resize(&self, size: WindowSize) -> Result<bool, AgentError> {
        accepted(self.sender.send(ToGuest::Resize(size)))
    }
}

fn accepted(sent: Result<(), SendError>) -> Result<bool, AgentError> {
    match sent {
        Ok(()) => Ok(true),
        Err(SendError::Refused) => Ok(false),
        Err(SendError::Closed(error)) => Err(error),
    }
}
