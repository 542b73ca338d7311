//! The host's side of the agent channel.
//!
//! [`Agent::connect`] greets the guest until it answers and starts one task that owns the channel; clones
//! of [`Agent`] and everything made from them speak through it. When the last of them is dropped, the task
//! ends. When the channel dies, every pending and later call ends with [`AgentError::Closed`].
//!
//! The guest is not trusted: whatever it sends, the client neither panics nor holds more than a window
//! ([`crate::protocol::WINDOW`]) per stream.

mod channel;
mod command;
mod driver;
mod error;
mod files;
mod handshake;
mod machine;
mod service;
mod share;
mod tcp;
mod terminal;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};

use self::channel::{Shared, Stream};
pub use self::command::{
    Command, DetachedCommand, Event, OUTPUT_BYTES_MAX, Output, Running, Stdin,
};
pub use self::error::{AgentError, ChannelEnd};
pub use self::service::{FollowedService, ServiceCommand, ServiceEvent};
pub use self::share::Share;
pub use self::tcp::{DialedStream, Forward};
pub use self::terminal::{Terminal, TerminalInput, TerminalOptions};
pub use crate::protocol::{ExitStatus, Identity, Interface, ServiceInfo, ServiceState, WindowSize};
use crate::protocol::{GuestInfo, Reply, Request};

/// How long a guest may take for what it does without waiting for anybody.
const PROMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to the agent of one guest. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Agent {
    core: Arc<Core>,
}

#[derive(Debug)]
struct Core {
    shared: Arc<Shared>,
    guest: GuestInfo,
}

impl Drop for Core {
    fn drop(&mut self) {
        self.shared.finish();
    }
}

impl Agent {
    /// Opens a conversation on `io` and waits up to `timeout` for the guest to answer, which may not have
    /// booted yet.
    ///
    /// A conversation that somebody else had on the same channel ends by this: its commands are killed
    /// unless they were started detached, and its services stay.
    ///
    /// # Errors
    ///
    /// [`AgentError::NoAnswer`], [`AgentError::VersionMismatch`] or [`AgentError::Closed`].
    pub async fn connect<S>(io: S, timeout: Duration) -> Result<Self, AgentError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (conversation, guest) = handshake::open(io, timeout).await?;
        let shared = driver::start(conversation);
        tracing::debug!(kernel = %guest.kernel_release, boot_id = %guest.boot_id, "agent answered");
        Ok(Self {
            core: Arc::new(Core { shared, guest }),
        })
    }

    /// What the guest told about itself when it answered.
    pub fn guest(&self) -> &GuestInfo {
        &self.core.guest
    }

    /// Asks the guest for a sign of life and returns how long it took.
    ///
    /// # Errors
    ///
    /// [`AgentError::Unresponsive`] or [`AgentError::Closed`].
    pub async fn ping(&self, timeout: Duration) -> Result<Duration, AgentError> {
        let begin = Instant::now();
        self.ask(Request::Ping, "a ping", timeout).await?;
        Ok(begin.elapsed())
    }

    /// Prepares a command: a path, or a name the guest looks up in its `PATH`.
    pub fn command(&self, program: impl Into<String>) -> Command {
        Command::new(self.clone(), program.into())
    }

    /// Prepares a script for the guest's `sh`.
    pub fn shell(&self, script: impl Into<String>) -> Command {
        self.command("sh").arg("-c").arg(script)
    }

    /// Ends the conversation in order, so that the channel can be handed on: to a new [`Agent::connect`] on
    /// another handle of it, to a snapshot, to another process. When this returns, the guest is silent until
    /// it is greeted again, nobody reads or writes the channel any more, and the handle that was given to
    /// [`Agent::connect`] is dropped. Services and detached commands live on; every later call on a clone
    /// ends with [`ChannelEnd::Parted`]. A [`FollowedService`] still yields what had come before that.
    ///
    /// The guest refuses while a command, a terminal, a transfer, a connection or a wait for a port is open; nothing is
    /// disturbed then. To part again is no error. Whether the conversation ended is unknown when the future
    /// is dropped.
    ///
    /// # Errors
    ///
    /// [`AgentError::Guest`] naming what is open; [`AgentError::Unresponsive`]; [`AgentError::Closed`] where
    /// the channel ended for another reason.
    pub async fn part(&self) -> Result<(), AgentError> {
        match self
            .ask(Request::Part, "the request to part", PROMPT_TIMEOUT)
            .await
        {
            Err(AgentError::Closed(ChannelEnd::Parted)) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(unexpected_reply()),
        }
    }

    /// Sends a request that has no data and waits for its reply.
    async fn ask(
        &self,
        request: Request,
        operation: &'static str,
        timeout: Duration,
    ) -> Result<Reply, AgentError> {
        let mut stream = self.open(request)?;
        match tokio::time::timeout(timeout, stream.reply()).await {
            Ok(reply) => reply,
            Err(_) => Err(AgentError::Unresponsive {
                operation,
                waited: timeout,
            }),
        }
    }

    fn open(&self, request: Request) -> Result<Stream, AgentError> {
        Stream::open(self, request)
    }
}

/// The error for a reply of the wrong kind, which only a broken guest sends.
fn unexpected_reply() -> AgentError {
    AgentError::Closed(ChannelEnd::Violation("a reply to another request"))
}
