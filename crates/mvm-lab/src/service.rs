//! A long-running program in a machine: started, logged to the run folder, stopped by signal.
//!
//! It belongs to the guest's agent, not to a conversation with it: a checkpoint ends the conversation, and the
//! service is followed on where its log ends, by this lab or by a fork.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use mvm_agent::client::{
    Agent, AgentError, ChannelEnd, FollowedService, ServiceCommand, ServiceEvent,
};
use mvm_machine::console::LineSplitter;
use tokio::{fs::File, io::AsyncWriteExt, sync::watch, task::JoinHandle};

use crate::event::{Event, Line, Recorder, ServiceState};

/// What to run in a machine.
#[derive(Clone, Debug)]
pub struct ServiceSpec {
    /// The name, for messages and for the log file.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Its environment, beside the agent's own.
    pub environment: BTreeMap<String, String>,
    /// When it is started.
    pub start: ServiceStart,
}

impl ServiceSpec {
    /// A program with its arguments, started with its machine.
    pub fn new<'a>(name: &str, command: impl IntoIterator<Item = &'a str>) -> ServiceSpec {
        ServiceSpec {
            name: name.to_owned(),
            command: command.into_iter().map(str::to_owned).collect(),
            environment: BTreeMap::new(),
            start: ServiceStart::WithMachine,
        }
    }
}

/// When a service is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceStart {
    /// Whenever its machine starts.
    #[default]
    WithMachine,
    /// By [`Node::start_service`](crate::node::Node::start_service) alone.
    WhenAsked,
}

/// Why a service could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Its log file could not be opened.
    #[error("could not open the log {path:?} of service {service}: {source}")]
    Log {
        /// The service.
        service: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The agent could not start or follow it.
    #[error("could not start service {service}: {source}")]
    Start {
        /// The service.
        service: String,
        /// What the agent said.
        source: AgentError,
    },
    /// The machine has no service of this name.
    #[error("could not find service {service} on machine {machine}: it has {known:?}")]
    Unknown {
        /// The machine.
        machine: String,
        /// The name asked for.
        service: String,
        /// The names there are.
        known: Vec<String>,
    },
}

/// `SIGTERM`'s number (signal(7)).
const SIGTERM: i32 = 15;
/// `SIGKILL`'s number.
const SIGKILL: i32 = 9;
/// How long the output of a service may take to arrive after its machine is gone.
const LOST_ALLOWED: Duration = Duration::from_secs(2);

/// Where a service runs and where what it does is written down.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) machine: String,
    pub(crate) agent: Agent,
    pub(crate) log: PathBuf,
    pub(crate) recorder: Recorder,
}

/// A service that was started and is followed.
pub(crate) struct Service {
    name: String,
    agent: Agent,
    ended: watch::Receiver<Option<String>>,
    /// Returns how much of the output is in the log.
    task: Option<JoinHandle<u64>>,
}

impl Service {
    /// Starts `spec`; its output is appended to the log.
    pub(crate) async fn start(place: Place, spec: &ServiceSpec) -> Result<Service, ServiceError> {
        let failed = |source| ServiceError::Start {
            service: spec.name.clone(),
            source,
        };
        let (program, arguments) = spec.command.split_first().expect("a service has a program");
        let mut command = ServiceCommand::new(&spec.name, program).args(arguments);
        for (name, value) in &spec.environment {
            command = command.env(name, value);
        }
        place.agent.start_service(command).await.map_err(failed)?;
        place.recorder.record(Event::Service {
            machine: place.machine.clone(),
            service: spec.name.clone(),
            state: ServiceState::Started,
        });
        Service::follow(place, &spec.name, 0).await
    }

    /// Follows a service that runs already, from the byte at `offset` of its output.
    pub(crate) async fn follow(
        place: Place,
        name: &str,
        offset: u64,
    ) -> Result<Service, ServiceError> {
        let followed = place
            .agent
            .follow_service(name, offset)
            .await
            .map_err(|source| ServiceError::Start {
                service: name.to_owned(),
                source,
            })?;
        let log = open_log(&place.log, name).await?;
        let (publish, ended) = watch::channel(None);
        let agent = place.agent.clone();
        let task = tokio::spawn(write_down(place, name.to_owned(), followed, log, publish));
        Ok(Service {
            name: name.to_owned(),
            agent,
            ended,
            task: Some(task),
        })
    }

    /// Returns how the service ended, `None` while it runs.
    pub(crate) fn ended(&self) -> Option<String> {
        self.ended.borrow().clone()
    }

    /// Ends the service: `SIGTERM`, and `SIGKILL` after `grace`. Returns how it ended.
    pub(crate) async fn stop(self, grace: Duration) -> String {
        self.signal(SIGTERM).await;
        if tokio::time::timeout(grace, self.wait()).await.is_err() {
            self.signal(SIGKILL).await;
        }
        self.wait().await
    }

    /// Kills the service at once. Returns how it ended.
    pub(crate) async fn kill(self) -> String {
        self.signal(SIGKILL).await;
        self.wait().await
    }

    /// Waits until the rest of a lost service's output is in its log.
    pub(crate) async fn lost(self) {
        // The channel of a machine that is gone closes at once; a hang would be the lab's own fault.
        let _ = tokio::time::timeout(LOST_ALLOWED, self.wait()).await;
    }

    /// Returns how much of the output is in the log, after the conversation was ended in order.
    pub(crate) async fn parted(mut self) -> u64 {
        match self.task.take() {
            Some(task) => task.await.unwrap_or(0),
            None => 0,
        }
    }

    async fn signal(&self, number: i32) {
        // Nobody may be left to take it, which is what signals are for.
        if let Err(error) = self.agent.signal_service(&self.name, number).await {
            tracing::debug!(service = self.name, number, %error, "a signal was not taken");
        }
    }

    async fn wait(&self) -> String {
        let mut ended = self.ended.clone();
        let how = ended.wait_for(Option::is_some).await;
        how.ok()
            .and_then(|how| how.clone())
            .unwrap_or_else(|| "its task was ended".to_owned())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn open_log(path: &Path, service: &str) -> Result<File, ServiceError> {
    let opened = File::options().create(true).append(true).open(path).await;
    opened.map_err(|source| ServiceError::Log {
        service: service.to_owned(),
        path: path.to_owned(),
        source,
    })
}

/// Logs a service's output and tells how it ended.
async fn write_down(
    place: Place,
    service: String,
    mut followed: FollowedService,
    mut log: File,
    publish: watch::Sender<Option<String>>,
) -> u64 {
    let mut lines = Lines {
        place: &place,
        service: &service,
        splitter: LineSplitter::default(),
    };
    let ended = copy(&mut followed, &mut log, &mut lines).await;
    lines.end();
    if let Err(error) = log.flush().await {
        tracing::warn!(%error, "could not write a service's log");
    }
    let (state, how) = match ended {
        Ok(how) => (ServiceState::Ended(how.clone()), how),
        // The service lives on and somebody else will follow it.
        Err(AgentError::Closed(ChannelEnd::Parted)) => return followed.offset(),
        Err(lost) => (
            ServiceState::Lost(lost.to_string()),
            format!("lost: {lost}"),
        ),
    };
    place.recorder.record(Event::Service {
        machine: place.machine,
        service,
        state,
    });
    publish.send_replace(Some(how));
    followed.offset()
}

/// Tells the lines of a service to whoever wants lines.
struct Lines<'a> {
    place: &'a Place,
    service: &'a str,
    splitter: LineSplitter,
}

impl Lines<'_> {
    fn push(&mut self, bytes: &[u8]) {
        if self.place.recorder.takes_lines {
            let lines = self.splitter.push(bytes);
            lines.iter().for_each(|line| self.tell(line));
        }
    }

    fn end(&mut self) {
        if let Some(line) = self.splitter.finish() {
            self.tell(&line);
        }
    }

    fn tell(&self, text: &str) {
        self.place.recorder.line(&Line {
            machine: &self.place.machine,
            service: Some(self.service),
            text,
        });
    }
}

async fn copy(
    followed: &mut FollowedService,
    log: &mut File,
    lines: &mut Lines<'_>,
) -> Result<String, AgentError> {
    let mut ended = "no exit status".to_owned();
    let mut expected = followed.offset();
    while let Some(event) = followed.next_event().await? {
        match event {
            ServiceEvent::Output { offset, bytes } => {
                let missing = offset.saturating_sub(expected);
                if missing > 0 {
                    let gap = format!("\n[{missing} bytes of output were dropped]\n");
                    write(log, gap.as_bytes()).await;
                }
                write(log, &bytes).await;
                lines.push(&bytes);
                expected = offset + bytes.len() as u64;
            }
            ServiceEvent::Ended(status) => ended = status.to_string(),
        }
    }
    Ok(ended)
}

async fn write(log: &mut File, bytes: &[u8]) {
    if let Err(error) = log.write_all(bytes).await {
        tracing::warn!(%error, "could not write a service's log");
    }
}
