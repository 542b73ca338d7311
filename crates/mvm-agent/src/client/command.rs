//! Running programs in the guest.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Agent;
use super::channel::{Inbound, SendError, Sender, Stream};
use super::error::AgentError;
use crate::protocol::{
    ExitStatus, Lane, Lifetime, Program, Reply, Request, Run, StdinSource, ToGuest,
};

/// How much of each output [`Command::output`] keeps unless told otherwise, in bytes.
pub const OUTPUT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long the guest may take to confirm that a command was killed. A guest that is paused or gone must
/// not keep a time limit from being kept.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// A program to run in the guest. It runs as the agent's user, which is root, in `/`, with the agent's
/// environment and what is added here, as the leader of a process group of its own.
#[derive(Debug, Clone)]
#[must_use = "a command does nothing until it is run"]
pub struct Command {
    agent: Agent,
    run: Run,
    stdin: Vec<u8>,
    timeout: Option<Duration>,
    output_bytes_max: usize,
}

impl Command {
    pub(super) fn new(agent: Agent, program: String) -> Self {
        let run = Run {
            program: Program::new(program),
            stdin: StdinSource::Null,
            lifetime: Lifetime::Stream,
        };
        Self {
            agent,
            run,
            stdin: Vec::new(),
            timeout: None,
            output_bytes_max: OUTPUT_BYTES_MAX,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.run.program.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    pub fn args<I>(mut self, arguments: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.run
            .program
            .arguments
            .extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.run
            .program
            .environment
            .push((name.into(), value.into()));
        self
    }

    /// Sets the working directory.
    pub fn cwd(mut self, directory: impl Into<String>) -> Self {
        self.run.program.directory = Some(directory.into());
        self
    }

    /// Gives the command these bytes, then the end of file, as standard input. Without this and without
    /// [`Command::stdin_piped`] it is `/dev/null`.
    pub fn stdin_bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.run.stdin = StdinSource::Stream;
        self.stdin = bytes.into();
        self
    }

    /// Keeps standard input open for [`Running::take_stdin`]. Not for [`Command::output`], which closes it.
    pub fn stdin_piped(mut self) -> Self {
        self.run.stdin = StdinSource::Stream;
        self.stdin = Vec::new();
        self
    }

    /// Limits how long the command may run, counted on the host from its start. When the time is up, its
    /// process group is killed and its status is [`ExitStatus::TimedOut`]; what it wrote until then is kept.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Limits how much of each output [`Command::output`] keeps. The command goes on; what is beyond is
    /// dropped and the output marked as truncated.
    pub fn output_max_bytes(mut self, bytes: usize) -> Self {
        self.output_bytes_max = bytes;
        self
    }

    /// Makes the command one that outlives the conversation, for services under test.
    pub fn detached(self) -> DetachedCommand {
        DetachedCommand {
            command: self,
            output: None,
        }
    }

    /// Runs the command to its end and collects what it wrote.
    ///
    /// Like a shell's pipe, this waits until the outputs are closed: a background process that inherited
    /// them keeps it waiting, so redirect its output, or start it with [`Command::detached`].
    ///
    /// # Errors
    ///
    /// [`AgentError::Guest`] when it could not be started. How it ended is no error, see [`Output::status`].
    pub async fn output(self) -> Result<Output, AgentError> {
        let begin = Instant::now();
        let bytes_max = self.output_bytes_max;
        let mut running = self.begin()?;
        drop(running.take_stdin());
        let mut stdout = Collected::new(bytes_max);
        let mut stderr = Collected::new(bytes_max);
        let mut status = None;
        while let Some(event) = running.next_event().await? {
            match event {
                Event::Stdout(bytes) => stdout.push(&bytes),
                Event::Stderr(bytes) => stderr.push(&bytes),
                Event::StdoutClosed => {}
                Event::Exit(exit) => status = Some(exit),
            }
        }
        Ok(Output {
            // A command that ended while a child of it held the output until the limit also timed out.
            status: if running.timed_out {
                ExitStatus::TimedOut
            } else {
                status.unwrap_or(ExitStatus::TimedOut)
            },
            stdout: stdout.bytes,
            stderr: stderr.bytes,
            stdout_truncated: stdout.truncated,
            stderr_truncated: stderr.truncated,
            duration: begin.elapsed(),
        })
    }

    /// Starts the command and returns once the guest says that it runs.
    ///
    /// # Errors
    ///
    /// [`AgentError::Guest`] when it could not be started, among others.
    pub async fn spawn(self) -> Result<Running, AgentError> {
        let mut running = self.begin()?;
        running.started().await?;
        Ok(running)
    }

    /// Asks for the start without waiting for it.
    fn begin(self) -> Result<Running, AgentError> {
        let piped = matches!(self.run.stdin, StdinSource::Stream);
        let stream = self.agent.open(Request::Run(self.run))?;
        let sender = stream.sender().clone();
        let (feed, stdin) = match (piped, self.stdin.is_empty()) {
            (false, _) => (None, None),
            (true, true) => (None, Some(Stdin { sender })),
            (true, false) => (
                Some(Feed {
                    stdin: Stdin { sender },
                    bytes: self.stdin,
                    sent: 0,
                }),
                None,
            ),
        };
        Ok(Running {
            stream,
            feed,
            stdin,
            deadline: self.timeout.map(|timeout| Instant::now() + timeout),
            timed_out: false,
            exited: false,
            over: false,
        })
    }
}

/// A command that is bound to nothing; see [`Command::detached`]. Its standard input is `/dev/null`.
#[derive(Debug, Clone)]
#[must_use = "a command does nothing until it is started"]
pub struct DetachedCommand {
    command: Command,
    output: Option<String>,
}

impl DetachedCommand {
    /// Appends both outputs to this file of the guest. Without this they go to `/dev/null`.
    pub fn output_file(mut self, path: impl Into<String>) -> Self {
        self.output = Some(path.into());
        self
    }

    /// Starts the command and returns its process id, which is also the id of its process group.
    ///
    /// # Errors
    ///
    /// [`AgentError::Guest`] when it could not be started, among others.
    pub async fn start(self) -> Result<i32, AgentError> {
        let Command { agent, mut run, .. } = self.command;
        run.stdin = StdinSource::Null;
        run.lifetime = Lifetime::Detached {
            output: self.output,
        };
        match agent
            .ask(
                Request::Run(run),
                "a command's start",
                super::PROMPT_TIMEOUT,
            )
            .await?
        {
            Reply::Detached { pid } => Ok(pid),
            _ => Err(super::unexpected_reply()),
        }
    }
}

/// What a command that ended left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
    /// Whether more came than [`Command::output_max_bytes`] keeps.
    pub stdout_truncated: bool,
    /// Whether more came than [`Command::output_max_bytes`] keeps.
    pub stderr_truncated: bool,
    /// How long it took, seen from the host.
    pub duration: Duration,
}

impl Output {
    /// Whether the command exited with code 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }
}

/// What happened to a running command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It wrote to standard output.
    Stdout(Bytes),
    /// It wrote to standard error.
    Stderr(Bytes),
    /// Its standard output is closed, by it and by all that it handed it to.
    StdoutClosed,
    /// The process ended. What is left in its outputs, or what its children still write, follows.
    Exit(ExitStatus),
}

/// A command that was started. Dropping it kills the command's process group.
///
/// Its output is held back in the guest while nobody asks for events: at most
/// [`crate::protocol::WINDOW`] bytes wait on the host.
#[derive(Debug)]
pub struct Running {
    stream: Stream,
    feed: Option<Feed>,
    stdin: Option<Stdin>,
    deadline: Option<Instant>,
    timed_out: bool,
    exited: bool,
    over: bool,
}

impl Running {
    /// Waits for the next event; `None` after the last one: the process ended and its outputs are closed.
    /// Nothing is lost when the future is dropped. The time limit is kept only while somebody waits here.
    ///
    /// # Errors
    ///
    /// [`AgentError::Guest`] when the command could not be started; [`AgentError::Closed`].
    pub async fn next_event(&mut self) -> Result<Option<Event>, AgentError> {
        while !self.over {
            let Some(inbound) = self.next_until_deadline().await? else {
                if let Some(event) = self.time_is_up() {
                    return Ok(Some(event));
                }
                continue;
            };
            match inbound {
                Inbound::Data(Lane::Main, bytes) => return Ok(Some(Event::Stdout(bytes.into()))),
                Inbound::Data(Lane::Error, bytes) => return Ok(Some(Event::Stderr(bytes.into()))),
                Inbound::Exited(status) => return Ok(Some(self.exit(status))),
                Inbound::Done(_) => self.over = true,
                Inbound::End => return Ok(Some(Event::StdoutClosed)),
                Inbound::Started | Inbound::Following(_) => {}
            }
        }
        Ok(None)
    }

    /// Takes the writer of standard input, once, if it was asked for with [`Command::stdin_piped`].
    pub fn take_stdin(&mut self) -> Option<Stdin> {
        self.stdin.take()
    }

    /// Whether its time was up.
    pub fn timed_out(&self) -> bool {
        self.timed_out
    }

    /// Sends a signal to the command's process group. A command that ended is not an error.
    ///
    /// # Errors
    ///
    /// [`AgentError::Closed`].
    pub fn signal(&self, signal: i32) -> Result<(), AgentError> {
        self.send(ToGuest::Signal(signal))
    }

    /// Kills the command's process group; events go on until `None`. A command that ended is not an error.
    ///
    /// # Errors
    ///
    /// [`AgentError::Closed`].
    pub fn kill(&self) -> Result<(), AgentError> {
        self.send(ToGuest::Kill)
    }

    /// Waits for the guest's first word, which is that the command runs; not beyond the deadline, which the
    /// next event deals with.
    async fn started(&mut self) -> Result<(), AgentError> {
        match self.next_until_deadline().await? {
            Some(Inbound::Started) | None => Ok(()),
            Some(_) => Err(super::unexpected_reply()),
        }
    }

    fn send(&self, message: ToGuest) -> Result<(), AgentError> {
        match self.stream.sender().send(message) {
            Ok(()) | Err(SendError::Refused) => Ok(()),
            Err(SendError::Closed(error)) => Err(error),
        }
    }

    /// The next message; `None` when the deadline passed.
    async fn next_until_deadline(&mut self) -> Result<Option<Inbound>, AgentError> {
        let deadline = self.deadline;
        let next = poll_fn(|context| {
            if self
                .feed
                .as_mut()
                .is_some_and(|feed| feed.poll(context).is_ready())
            {
                self.feed = None;
            }
            self.stream.poll_next(context)
        });
        match deadline {
            None => next.await.map(Some),
            Some(deadline) => tokio::time::timeout_at(deadline, next)
                .await
                .ok()
                .transpose(),
        }
    }

    /// The first time, has the command killed; the second time, gives up on the guest's confirmation.
    fn time_is_up(&mut self) -> Option<Event> {
        if !self.timed_out {
            self.timed_out = true;
            self.deadline = Some(Instant::now() + KILL_TIMEOUT);
            // A channel that is closed shows when the next message is asked for.
            let _ = self.kill();
            return None;
        }
        self.over = true;
        (!self.exited).then(|| self.exit(ExitStatus::TimedOut))
    }

    fn exit(&mut self, status: ExitStatus) -> Event {
        self.exited = true;
        Event::Exit(if self.timed_out {
            ExitStatus::TimedOut
        } else {
            status
        })
    }
}

/// The writer of a command's standard input. Dropping it ends the input.
#[derive(Debug)]
pub struct Stdin {
    sender: Sender,
}

impl Stdin {
    /// Writes all of `bytes`, as fast as the command takes them. Returns whether it still took them; `false`
    /// once it ended or closed its input.
    ///
    /// # Errors
    ///
    /// [`AgentError::Closed`].
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<bool, AgentError> {
        match self.sender.send_all(bytes).await {
            Ok(()) => Ok(true),
            Err(SendError::Refused) => Ok(false),
            Err(SendError::Closed(error)) => Err(error),
        }
    }
}

impl Drop for Stdin {
    fn drop(&mut self) {
        // The command may be over, or the channel: then there is nobody to tell.
        let _ = self.sender.send(ToGuest::End);
    }
}

/// Standard input that was given beforehand and is sent while somebody waits for events.
#[derive(Debug)]
struct Feed {
    stdin: Stdin,
    bytes: Vec<u8>,
    sent: usize,
}

impl Feed {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.sent < self.bytes.len() {
            match self
                .stdin
                .sender
                .poll_send(context, &self.bytes[self.sent..])
            {
                Poll::Ready(Ok(count)) => self.sent += count,
                // A command need not read its input to the end.
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}

/// An output that is kept up to a limit.
struct Collected {
    bytes: Vec<u8>,
    bytes_max: usize,
    truncated: bool,
}

impl Collected {
    fn new(bytes_max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            bytes_max,
            truncated: false,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = self.bytes_max - self.bytes.len();
        self.truncated |= bytes.len() > room;
        self.bytes
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}
