//! Services: programs of the guest that belong to no conversation.

use bytes::Bytes;

use super::channel::{Inbound, Stream};
use super::error::{AgentError, ChannelEnd};
use super::{Agent, PROMPT_TIMEOUT, unexpected_reply};
use crate::protocol::{ExitStatus, Program, Reply, Request, ServiceInfo, ServiceState};

/// A service to start with [`Agent::start_service`]. It runs as the agent's user, which is root, in `/`, with
/// the agent's environment and what is added here, as the leader of a process group of its own. Its
/// standard input is `/dev/null`.
#[derive(Debug, Clone)]
#[must_use = "a service does nothing until it is started"]
pub struct ServiceCommand {
    name: String,
    program: Program,
}

impl ServiceCommand {
    /// Names the service, with 1 to 64 of `a-z A-Z 0-9 . _ @ -`, and its program: a path, or a name the guest
    /// looks up in its `PATH`.
    pub fn new(name: impl Into<String>, program: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            program: Program::new(program),
        }
    }

    /// Names a service that is a script for the guest's `sh`.
    pub fn shell(name: impl Into<String>, script: impl Into<String>) -> Self {
        Self::new(name, "sh").arg("-c").arg(script)
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.program.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    pub fn args<I>(mut self, arguments: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let arguments = arguments.into_iter().map(Into::into);
        self.program.arguments.extend(arguments);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.program.environment.push((name.into(), value.into()));
        self
    }

    /// Sets the working directory.
    pub fn cwd(mut self, directory: impl Into<String>) -> Self {
        self.program.directory = Some(directory.into());
        self
    }
}

impl Agent {
    /// Starts a service and returns its process id, which is also the id of its process group. It lives on
    /// when the conversation ends, in order or not.
    ///
    /// A service of this name that ended is replaced: its output is gone for all who do not follow it by
    /// now, and what is left of its process group is killed. When the future is dropped, the service may
    /// have been started or not.
    ///
    /// # Errors
    ///
    /// [`AgentError::Guest`] when it could not be started, when one of this name runs, for a name that cannot
    /// be one, and beyond 64 services, among others.
    pub async fn start_service(&self, command: ServiceCommand) -> Result<i32, AgentError> {
        let ServiceCommand { name, program } = command;
        let request = Request::StartService { name, program };
        match self
            .ask(request, "a service's start", PROMPT_TIMEOUT)
            .await?
        {
            Reply::Service { pid } => Ok(pid),
            _ => Err(unexpected_reply()),
        }
    }

    /// Follows the output of a service, both outputs in one, from the byte at `offset` on. Offsets count
    /// from 0 at each start of the service.
    ///
    /// While nobody follows it, the guest keeps the last
    /// [`BACKLOG_BYTES_MAX`](crate::protocol::BACKLOG_BYTES_MAX) bytes: an older offset yields the output from
    /// the oldest byte kept, and one beyond the end from the end, both told by the first event's offset and
    /// by [`FollowedService::offset`]. While somebody follows, nothing is dropped that he has not got, and a
    /// service that writes faster than he reads waits.
    ///
    /// # Errors
    ///
    /// [`AgentError::Guest`] when there is no such service, among others.
    pub async fn follow_service(
        &self,
        name: impl Into<String>,
        offset: u64,
    ) -> Result<FollowedService, AgentError> {
        let name = name.into();
        let mut stream = self.open(Request::FollowService { name, offset })?;
        let first = tokio::time::timeout(PROMPT_TIMEOUT, stream.next()).await;
        match first.map_err(|_| AgentError::Unresponsive {
            operation: "the wish to follow a service",
            waited: PROMPT_TIMEOUT,
        })?? {
            Inbound::Following(offset) => Ok(FollowedService {
                stream,
                offset,
                over: false,
            }),
            Inbound::Started
            | Inbound::Data(..)
            | Inbound::End
            | Inbound::Exited(_)
            | Inbound::Done(_) => Err(unexpected_reply()),
        }
    }

    /// Sends a signal to the process group of a service; signal 0 only asks whether there is one.
    ///
    /// # Errors
    ///
    /// [`AgentError::Guest`] when there is no such service, and with the cause `Os(3)`, `ESRCH`, when nobody is
    /// left of it, among others.
    pub async fn signal_service(
        &self,
        name: impl Into<String>,
        signal: i32,
    ) -> Result<(), AgentError> {
        let name = name.into();
        let request = Request::SignalService { name, signal };
        self.ask(request, "a signal to a service", PROMPT_TIMEOUT)
            .await?;
        Ok(())
    }

    /// Lists the services, those that ended too, in the order of their start.
    ///
    /// # Errors
    ///
    /// [`AgentError::Unresponsive`] or [`AgentError::Closed`].
    pub async fn services(&self) -> Result<Vec<ServiceInfo>, AgentError> {
        let infos = match self
            .ask(Request::Services, "the list of services", PROMPT_TIMEOUT)
            .await?
        {
            Reply::Services(infos) => infos,
            _ => return Err(unexpected_reply()),
        };
        let timed_out = ServiceState::Ended(ExitStatus::TimedOut);
        if infos.iter().any(|info| info.state == timed_out) {
            let rule = "an exit status only the host can give";
            return Err(AgentError::Closed(ChannelEnd::Violation(rule)));
        }
        Ok(infos)
    }
}

/// What happened to a service that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceEvent {
    /// It wrote something.
    Output {
        /// Where in its output these bytes begin. They follow the bytes before without a gap.
        offset: u64,
        /// What it wrote.
        bytes: Bytes,
    },
    /// Its first process ended, and all that it wrote was told before. What others of its process group
    /// write later is kept for later followers.
    Ended(ExitStatus),
}

/// A service that is followed. Dropping it leaves the service alone.
///
/// While nobody asks for events, at most [`crate::protocol::WINDOW`] bytes wait on the host, then as many as
/// the guest keeps wait there, then the service itself waits.
#[derive(Debug)]
pub struct FollowedService {
    stream: Stream,
    offset: u64,
    over: bool,
}

impl FollowedService {
    /// Where in the service's output the next event's bytes begin: the offset from which another follower
    /// can go on where this one is.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Waits for the next event; `None` after [`ServiceEvent::Ended`]. Nothing is lost when the future is
    /// dropped.
    ///
    /// # Errors
    ///
    /// [`AgentError::Closed`], once everything that came before the end of the channel was told.
    pub async fn next_event(&mut self) -> Result<Option<ServiceEvent>, AgentError> {
        while !self.over {
            match self.stream.next().await? {
                Inbound::Data(_, bytes) => {
                    let offset = self.offset;
                    self.offset =
                        offset
                            .checked_add(bytes.len() as u64)
                            .ok_or(AgentError::Closed(ChannelEnd::Violation(
                                "an output without an end",
                            )))?;
                    let bytes = Bytes::from(bytes);
                    return Ok(Some(ServiceEvent::Output { offset, bytes }));
                }
                Inbound::Exited(status) => return Ok(Some(ServiceEvent::Ended(status))),
                Inbound::Done(_) => self.over = true,
                Inbound::Started | Inbound::Following(_) | Inbound::End => {}
            }
        }
        Ok(None)
    }
}
