//! A machine of the lab by name: the verbs a scenario uses on it.
//!
//! What a machine is made of lives in `mvm-machine`; several of them start together in `lab`.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex as StdMutex},
    time::Duration,
};

use mvm_agent::client::{Agent, AgentError, DialedStream, ExitStatus, Identity, Output};
use mvm_fabric::{AttachError, Port};
use mvm_machine::{
    boot_tokens,
    machine::{BootError, Booting, LaunchError, MachineSpec, Running},
    qmp::QmpError,
};
use tokio::sync::Mutex;

use crate::{
    event::{Event, MachineState, Recorder},
    network::Network,
    run_folder::RunFolder,
    service::{Service, ServiceError, ServiceSpec},
    topology::Member,
    wait::{self, Seen, WaitError},
};

/// How long a command of a scenario may take unless it says otherwise.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// A guest asked to power off ends its processes first, which have their own grace.
const POWER_OFF_ALLOWED: Duration = Duration::from_secs(30);
/// The output of one failed command that a message shows.
const OUTPUT_SHOWN_BYTES: usize = 2000;

/// Why something could not be done with a machine.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The machine is off.
    #[error("could not use machine {machine}: it is off")]
    Off {
        /// The machine.
        machine: String,
    },
    /// It is on already.
    #[error("could not start machine {machine}: it is on")]
    On {
        /// The machine.
        machine: String,
    },
    /// No boot token could be had.
    #[error("could not take a boot token in {folder:?}: {source}")]
    Token {
        /// The folder of the tokens.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The switch gave no socket.
    #[error("could not connect machine {machine} to the switch: {source}")]
    Switch {
        /// The machine.
        machine: String,
        /// What the switch said.
        source: AttachError,
    },
    /// QEMU did not start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The guest did not come up.
    #[error(transparent)]
    Boot(Box<BootError>),
    /// The agent channel failed.
    #[error("could not talk to the agent on {machine}: {source}")]
    Agent {
        /// The machine.
        machine: String,
        /// What the channel said.
        source: AgentError,
    },
    /// The monitor failed.
    #[error("could not control machine {machine}: {source}")]
    Monitor {
        /// The machine.
        machine: String,
        /// What the monitor said.
        source: QmpError,
    },
    /// A service could not be handled.
    #[error("on machine {machine}: {source}")]
    Service {
        /// The machine.
        machine: String,
        /// Why.
        source: ServiceError,
    },
    /// A command ended otherwise than it should have.
    #[error("command {command:?} on {machine} {how}{output}")]
    Command {
        /// The machine.
        machine: String,
        /// The command.
        command: String,
        /// What it did instead.
        how: String,
        /// Its output, shortened.
        output: String,
    },
    /// A condition did not come to hold.
    #[error("on machine {machine}: {source}")]
    Wait {
        /// The machine.
        machine: String,
        /// What was waited for and seen.
        source: WaitError,
    },
}

impl NodeError {
    /// Tells whether the system under test is to blame, rather than the lab.
    pub fn is_assertion(&self) -> bool {
        match self {
            NodeError::Command { .. } | NodeError::Wait { .. } => true,
            NodeError::Agent { source, .. } => matches!(source, AgentError::PortClosed { .. }),
            _ => false,
        }
    }
}

/// A machine of a running lab.
pub struct Node {
    pub(crate) member: Member,
    pub(crate) spec: MachineSpec,
    pub(crate) port: Port,
    pub(crate) network: Arc<Network>,
    pub(crate) hosts: Arc<Vec<(std::net::IpAddr, String)>>,
    pub(crate) folder: RunFolder,
    pub(crate) tokens: PathBuf,
    pub(crate) boot_timeout: Duration,
    pub(crate) recorder: Recorder,
    pub(crate) machine: Mutex<Option<Running>>,
    pub(crate) agent: StdMutex<Option<Agent>>,
    pub(crate) services: Mutex<BTreeMap<String, Service>>,
    pub(crate) private_bytes_max: StdMutex<u64>,
}

impl Node {
    /// Returns the machine's name.
    pub fn name(&self) -> &str {
        &self.member.config.name
    }

    /// Returns the machine's number and addresses.
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// Boots the machine, gives it its identity and starts its services.
    ///
    /// Waits for one of the host's boot tokens first. A machine started again has its data disk as it
    /// was left.
    pub async fn start(&self) -> Result<(), NodeError> {
        let mut machine = self.machine.lock().await;
        if machine.is_some() {
            return Err(NodeError::On {
                machine: self.name().to_owned(),
            });
        }
        self.entered(MachineState::Waiting);
        let token =
            boot_tokens::acquire(&self.tokens)
                .await
                .map_err(|source| NodeError::Token {
                    folder: self.tokens.clone(),
                    source,
                })?;
        let socket =
            self.network
                .switch
                .reattach(self.port)
                .map_err(|source| NodeError::Switch {
                    machine: self.name().to_owned(),
                    source,
                })?;
        self.entered(MachineState::Booting);
        let booting = Booting::launch(self.spec.clone(), vec![socket]).await?;
        let running = booting
            .ready(self.boot_timeout)
            .await
            .map_err(|error| NodeError::Boot(Box::new(error)))?;
        let agent = running.agent().clone();
        agent
            .configure(self.identity())
            .await
            .map_err(|source| self.agent_error(source))?;
        drop(token);
        self.set_agent(Some(agent));
        *machine = Some(running);
        drop(machine);
        self.entered(MachineState::AgentUp);
        for service in &self.member.config.services {
            self.start_service(&service.name).await?;
        }
        Ok(())
    }

    /// Kills the machine at once; its memory is gone, its data disk stays. No effect if it is off.
    pub async fn crash(&self) {
        if let Some(running) = self.take().await {
            running.crash().await;
            self.lose_services().await;
            self.entered(MachineState::Crashed);
        }
    }

    /// Ends the machine with its run: no event of the scenario's, so none is recorded.
    pub(crate) async fn end(&self) {
        if let Some(running) = self.take().await {
            running.crash().await;
            self.lose_services().await;
        }
    }

    /// Powers the machine off in order. No effect if it is off.
    pub async fn shutdown(&self) {
        if let Some(running) = self.take().await {
            running.power_off(POWER_OFF_ALLOWED).await;
            self.lose_services().await;
            self.entered(MachineState::Off);
        }
    }

    /// Stops the machine's processors, its clocks with them.
    pub async fn pause(&self) -> Result<(), NodeError> {
        let machine = self.machine.lock().await;
        let running = machine.as_ref().ok_or_else(|| self.off())?;
        running
            .pause()
            .await
            .map_err(|source| self.monitor_error(source))?;
        self.entered(MachineState::Paused);
        Ok(())
    }

    /// Lets a paused machine run on.
    pub async fn resume(&self) -> Result<(), NodeError> {
        let machine = self.machine.lock().await;
        let running = machine.as_ref().ok_or_else(|| self.off())?;
        running
            .resume()
            .await
            .map_err(|source| self.monitor_error(source))?;
        self.entered(MachineState::AgentUp);
        Ok(())
    }

    /// Returns the agent of the running machine.
    pub fn agent(&self) -> Result<Agent, NodeError> {
        let agent = self
            .agent
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        agent.clone().ok_or_else(|| self.off())
    }

    /// Runs a shell command as root and returns its status and output. At most `timeout`; then the
    /// command's whole process group is killed.
    pub async fn execute_within(
        &self,
        command: &str,
        timeout: Duration,
    ) -> Result<Output, NodeError> {
        let shell = self.agent()?.shell(command).timeout(timeout);
        shell
            .output()
            .await
            .map_err(|source| self.agent_error(source))
    }

    /// Runs a shell command with the usual bound of a minute.
    pub async fn execute(&self, command: &str) -> Result<Output, NodeError> {
        self.execute_within(command, COMMAND_TIMEOUT).await
    }

    /// Runs a command that must exit with 0; returns its standard output.
    pub async fn succeed(&self, command: &str) -> Result<String, NodeError> {
        let output = self.execute(command).await?;
        match output.status {
            ExitStatus::Code(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            _ => Err(self.command_error(command, &output)),
        }
    }

    /// Runs a command that must fail, by its exit code or by a signal; returns its standard output.
    pub async fn fail(&self, command: &str) -> Result<String, NodeError> {
        let output = self.execute(command).await?;
        match output.status {
            ExitStatus::Code(1..) | ExitStatus::Signal(_) => {
                Ok(String::from_utf8_lossy(&output.stdout).into_owned())
            }
            _ => Err(self.command_error(command, &output)),
        }
    }

    /// Runs a command again and again until it exits with 0; returns that run's standard output.
    pub async fn wait_until_succeeds(
        &self,
        command: &str,
        allowed: Duration,
    ) -> Result<String, NodeError> {
        let probe = || async {
            match self.succeed(command).await {
                Ok(output) => Seen::Done(Ok(output)),
                Err(error @ NodeError::Command { .. }) => Seen::NotYet(error.to_string()),
                Err(error) => Seen::Done(Err(error)),
            }
        };
        self.wait_for(&format!("{command:?} succeed"), allowed, probe)
            .await?
    }

    /// Waits until something listens on a TCP port of the machine's loopback.
    pub async fn wait_for_open_port(&self, port: u16, allowed: Duration) -> Result<(), NodeError> {
        let waited = self
            .agent()?
            .wait_for_port("127.0.0.1", port, allowed)
            .await;
        waited.map_err(|source| self.agent_error(source))
    }

    /// Polls a condition that concerns this machine.
    pub async fn wait_for<T, F>(
        &self,
        condition: &str,
        allowed: Duration,
        probe: impl FnMut() -> F,
    ) -> Result<T, NodeError>
    where
        F: Future<Output = Seen<T>>,
    {
        wait::until(condition, allowed, probe)
            .await
            .map_err(|source| NodeError::Wait {
                machine: self.name().to_owned(),
                source,
            })
    }

    /// Opens a TCP connection to a port of the machine's loopback, through the agent: it works
    /// whatever the network does.
    pub async fn dial(&self, port: u16) -> Result<DialedStream, NodeError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        self.agent()?
            .dial(address)
            .await
            .map_err(|source| self.agent_error(source))
    }

    /// Starts a service of the machine's configuration.
    pub async fn start_service(&self, name: &str) -> Result<(), NodeError> {
        let spec = self.service_spec(name)?;
        let agent = self.agent()?;
        let log = self.service_log(name);
        let mut services = self.services.lock().await;
        let started = Service::start(self.name(), spec, &agent, &log, self.recorder.clone()).await;
        let service = started.map_err(|source| self.service_error(source))?;
        services.insert(name.to_owned(), service);
        Ok(())
    }

    /// Ends a service with `SIGTERM`, and `SIGKILL` after `grace`; returns how it ended.
    pub async fn stop_service(&self, name: &str, grace: Duration) -> Result<String, NodeError> {
        Ok(self.take_service(name).await?.stop(grace).await)
    }

    /// Kills a service with `SIGKILL`; returns how it ended.
    pub async fn kill_service(&self, name: &str) -> Result<String, NodeError> {
        Ok(self.take_service(name).await?.kill().await)
    }

    /// Returns how a service ended, `None` while it runs.
    pub async fn service_ended(&self, name: &str) -> Option<String> {
        self.services
            .lock()
            .await
            .get(name)
            .and_then(Service::ended)
    }

    /// Returns the file a service's output goes to.
    pub fn service_log(&self, name: &str) -> PathBuf {
        self.folder.service_log(self.name(), name)
    }

    /// Returns the file the serial console goes to.
    pub fn console_log(&self) -> &Path {
        self.spec.console.path()
    }

    /// Tells the reports what the machine's role is now, such as "leader".
    pub fn set_role(&self, role: &str) {
        self.recorder.record(Event::Role {
            machine: self.name().to_owned(),
            role: role.to_owned(),
        });
    }

    fn identity(&self) -> Identity {
        Identity {
            hostname: self.name().to_owned(),
            interfaces: vec![mvm_agent::client::Interface {
                mac: self.member.mac().0,
                name: Some("eth1".to_owned()),
                addresses: self.member.addresses(),
            }],
            hosts: self.hosts.to_vec(),
            wall_clock: Some(std::time::SystemTime::now()),
        }
    }

    /// Takes the running machine, noting how much memory it used.
    async fn take(&self) -> Option<Running> {
        let running = self.machine.lock().await.take()?;
        self.set_agent(None);
        if let Ok(bytes) = running.private_memory_bytes() {
            let mut most = self
                .private_bytes_max
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            *most = bytes.max(*most);
        }
        Some(running)
    }

    fn set_agent(&self, agent: Option<Agent>) {
        *self
            .agent
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) = agent;
    }

    /// The services of a machine that is gone have ended with it.
    async fn lose_services(&self) {
        for (_, service) in std::mem::take(&mut *self.services.lock().await) {
            service.lost().await;
        }
    }

    async fn take_service(&self, name: &str) -> Result<Service, NodeError> {
        self.service_spec(name)?;
        self.services
            .lock()
            .await
            .remove(name)
            .ok_or_else(|| self.off())
    }

    fn service_spec(&self, name: &str) -> Result<&ServiceSpec, NodeError> {
        let known = &self.member.config.services;
        known
            .iter()
            .find(|service| service.name == name)
            .ok_or_else(|| {
                self.service_error(ServiceError::Unknown {
                    machine: self.name().to_owned(),
                    service: name.to_owned(),
                    known: known.iter().map(|service| service.name.clone()).collect(),
                })
            })
    }

    fn entered(&self, state: MachineState) {
        self.recorder.record(Event::Machine {
            machine: self.name().to_owned(),
            state,
        });
    }

    fn off(&self) -> NodeError {
        NodeError::Off {
            machine: self.name().to_owned(),
        }
    }

    fn agent_error(&self, source: AgentError) -> NodeError {
        NodeError::Agent {
            machine: self.name().to_owned(),
            source,
        }
    }

    fn monitor_error(&self, source: QmpError) -> NodeError {
        NodeError::Monitor {
            machine: self.name().to_owned(),
            source,
        }
    }

    fn service_error(&self, source: ServiceError) -> NodeError {
        NodeError::Service {
            machine: self.name().to_owned(),
            source,
        }
    }

    fn command_error(&self, command: &str, output: &Output) -> NodeError {
        let how = match output.status {
            ExitStatus::TimedOut => "did not end in time and was killed".to_owned(),
            status => format!("ended: {status}"),
        };
        let shown = [("stdout", &output.stdout), ("stderr", &output.stderr)]
            .into_iter()
            .filter(|(_, bytes)| !bytes.is_empty())
            .map(|(name, bytes)| format!("\n  {name}: {}", tail(bytes)))
            .collect();
        NodeError::Command {
            machine: self.name().to_owned(),
            command: command.to_owned(),
            how,
            output: shown,
        }
    }
}

/// Returns the end of an output as text.
fn tail(bytes: &[u8]) -> String {
    let start = bytes.len().saturating_sub(OUTPUT_SHOWN_BYTES);
    String::from_utf8_lossy(&bytes[start..])
        .trim_end()
        .to_owned()
}
