//! A long-running program in a machine: started, logged to the run folder, stopped by signal.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use mvm_agent::client::{Agent, AgentError, Event as CommandEvent, Running};
use tokio::{
    fs::File,
    io::AsyncWriteExt,
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::event::{Event, Recorder, ServiceState};

/// What to run in a machine.
#[derive(Clone, Debug)]
pub struct ServiceSpec {
    /// The name, for messages and for the log file.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Its environment, beside the agent's own.
    pub environment: BTreeMap<String, String>,
}

/// Why a service could not be started.
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
    /// The agent could not start it.
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

/// A service that was started.
pub(crate) struct Service {
    signals: mpsc::Sender<i32>,
    ended: watch::Receiver<Option<String>>,
    task: JoinHandle<()>,
}

impl Service {
    /// Starts `spec` through `agent`; its output goes to `log`, appended.
    pub(crate) async fn start(
        machine: &str,
        spec: &ServiceSpec,
        agent: &Agent,
        log: &Path,
        recorder: Recorder,
    ) -> Result<Service, ServiceError> {
        let service = spec.name.clone();
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .await
            .map_err(|source| ServiceError::Log {
                service: service.clone(),
                path: log.to_owned(),
                source,
            })?;
        let (program, arguments) = spec.command.split_first().expect("a service has a program");
        let mut command = agent.command(program).args(arguments);
        for (name, value) in &spec.environment {
            command = command.env(name, value);
        }
        let running = command
            .spawn()
            .await
            .map_err(|source| ServiceError::Start {
                service: service.clone(),
                source,
            })?;
        let machine = machine.to_owned();
        recorder.record(Event::Service {
            machine: machine.clone(),
            service: service.clone(),
            state: ServiceState::Started,
        });
        let (signals, inbox) = mpsc::channel(4);
        let (publish, ended) = watch::channel(None);
        let task = tokio::spawn(async move {
            let (state, how) = match follow(running, inbox, file).await {
                Ok(how) => (ServiceState::Ended(how.clone()), how),
                Err(lost) => (
                    ServiceState::Lost(lost.to_string()),
                    format!("lost: {lost}"),
                ),
            };
            recorder.record(Event::Service {
                machine,
                service,
                state,
            });
            publish.send_replace(Some(how));
        });
        Ok(Service {
            signals,
            ended,
            task,
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

    async fn signal(&self, number: i32) {
        // A service that has ended no longer listens.
        let _ = self.signals.send(number).await;
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
        self.task.abort();
    }
}

/// Logs a service's output and passes signals on until it ends; returns how it ended.
async fn follow(
    mut running: Running,
    mut signals: mpsc::Receiver<i32>,
    mut log: File,
) -> Result<String, AgentError> {
    let ended = pump(&mut running, &mut signals, &mut log).await;
    if let Err(error) = log.flush().await {
        tracing::warn!(%error, "could not write a service's log");
    }
    ended
}

async fn pump(
    running: &mut Running,
    signals: &mut mpsc::Receiver<i32>,
    log: &mut File,
) -> Result<String, AgentError> {
    let mut listening = true;
    let mut ended = "no exit status".to_owned();
    loop {
        tokio::select! {
            event = running.next_event() => match event? {
                Some(CommandEvent::Stdout(bytes) | CommandEvent::Stderr(bytes)) => {
                    if let Err(error) = log.write_all(&bytes).await {
                        tracing::warn!(%error, "could not write a service's log");
                    }
                }
                Some(CommandEvent::Exit(status)) => ended = status.to_string(),
                None => return Ok(ended),
            },
            number = signals.recv(), if listening => match number {
                Some(number) => running.signal(number)?,
                None => listening = false,
            },
        }
    }
}
