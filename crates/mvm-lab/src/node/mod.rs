//! A machine of the lab by name: the verbs a scenario uses on it.
//!
//! How it comes up is in `start`, its terminals and its console are in `terminal`; what a machine is made of lives in `mvm-machine`; several of them start together
//! in `lab`.

mod ending;
mod error;
mod provision;
mod start;
mod terminal;
mod units;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex as StdMutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mvm_agent::client::{Agent, AgentError, DialedStream, ExitStatus, Forward, Output};
use mvm_machine::{
    machine::{MachineSpec, Memory, MemoryUse, Running, Stopped},
    process::PathGuard,
    qmp::{QmpError, QmpEvent},
};
use tokio::{
    sync::{Mutex, Semaphore, broadcast},
    task::JoinSet,
};

pub(crate) use self::start::copy_memory;
pub use self::{
    error::NodeError,
    terminal::{Terminal, TerminalInput, TerminalOptions, WindowSize},
    units::UnitState,
};
use crate::{
    environment::Environment,
    event::{Event, MachineState, Recorder},
    lab::StartBy,
    network::Network,
    run_folder::RunFolder,
    service::{Place, Service, ServiceError, ServiceSpec},
    shared,
    topology::{Member, MemoryPlan},
    wait::{self, Seen},
};

/// How long a command of a scenario may take unless it says otherwise.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// A guest asked to power off ends its processes first, which have their own grace.
const POWER_OFF_ALLOWED: Duration = Duration::from_secs(30);
/// The output of one failed command that a message shows.
const OUTPUT_SHOWN_BYTES: usize = 2000;

/// What the machines of a lab share.
pub(crate) struct Common {
    pub(crate) environment: Arc<Environment>,
    pub(crate) network: Network,
    pub(crate) members: BTreeMap<String, Member>,
    pub(crate) folder: RunFolder,
    pub(crate) recorder: Recorder,
    pub(crate) boot_timeout: Duration,
    pub(crate) start: StartBy,
    pub(crate) memory: MemoryPlan,
    /// Where memory and private disks of running machines lie.
    pub(crate) scratch: PathGuard,
    /// Turns to resume a machine and to make it somebody. It is all processor, as booting is, but too short to queue for
    /// with other processes.
    pub(crate) resuming: Semaphore,
}

/// A machine of a running lab.
pub struct Node {
    pub(crate) member: Member,
    pub(crate) common: Arc<Common>,
    /// What it is made of when it starts next.
    pub(crate) spec: StdMutex<MachineSpec>,
    pub(crate) machine: Mutex<Option<Running>>,
    pub(crate) paused: AtomicBool,
    /// Others may remember it: it was up before.
    pub(crate) known: AtomicBool,
    /// Shared with forwarded ports, which outlive a start of the machine.
    pub(crate) agent: Arc<StdMutex<Option<Agent>>>,
    pub(crate) services: Mutex<BTreeMap<String, Service>>,
    /// Serves the folder in common as long as the agent above is talked to.
    pub(crate) sharing: StdMutex<JoinSet<()>>,
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

    /// Has QEMU's human monitor carry out a command; returns what it printed, errors of the command included.
    pub async fn monitor_command(&self, command: &str) -> Result<String, NodeError> {
        let machine = self.machine.lock().await;
        let running = machine.as_ref().ok_or_else(|| self.off())?;
        let printed = running.monitor_command(command).await;
        printed.map_err(|source| self.monitor_error(source))
    }

    /// Returns a stream of the events that QEMU tells of the machine from now on; it ends with the machine.
    pub async fn monitor_events(&self) -> Result<broadcast::Receiver<QmpEvent>, NodeError> {
        let machine = self.machine.lock().await;
        let running = machine.as_ref().ok_or_else(|| self.off())?;
        Ok(running.monitor_events())
    }

    /// Kills the machine at once; its memory is gone, its data disk keeps what the guest flushed. No effect if
    /// it is off.
    pub async fn crash(&self) {
        if let Some(running) = self.take().await {
            self.stopped(running.crash().await);
            self.lose_services().await;
            self.entered(MachineState::Crashed);
        }
    }

    /// Ends the machine with its run: no event of the scenario's, so none is recorded.
    pub(crate) async fn end(&self) {
        if let Some(running) = self.take().await {
            self.stopped(running.crash().await);
            self.lose_services().await;
        }
    }

    /// Powers the machine off in order. No effect if it is off.
    pub async fn shutdown(&self) {
        if let Some(running) = self.take().await {
            self.stopped(running.power_off(POWER_OFF_ALLOWED).await);
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
        self.paused.store(true, Ordering::Relaxed);
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
        self.paused.store(false, Ordering::Relaxed);
        self.entered(MachineState::AgentUp);
        Ok(())
    }

    /// Returns the agent of the running machine.
    pub fn agent(&self) -> Result<Agent, NodeError> {
        lock(&self.agent).clone().ok_or_else(|| self.off())
    }

    /// Runs a shell command as root and returns its status and output. At most `timeout`; then the
    /// command's whole process group is killed.
    pub async fn execute_within(
        &self,
        command: &str,
        timeout: Duration,
    ) -> Result<Output, NodeError> {
        let mut shell = self.agent()?.shell(command).timeout(timeout);
        for (name, value) in &self.member.config.provision.environment {
            shell = shell.env(name, value);
        }
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

    /// Listens on the host, at `local` (port 0: any free one), and forwards every connection to a port of the machine's
    /// loopback, until the returned guard is dropped.
    ///
    /// It goes through the agent, so it works whatever the network does, and on across restarts of the machine and
    /// checkpoints. While the machine is off, connections are closed at once. A checkpoint is refused while
    /// connections are open.
    pub async fn forward(&self, local: SocketAddr, port: u16) -> Result<Forward, NodeError> {
        let agent = Arc::clone(&self.agent);
        let guest = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listening = Forward::listen(local, guest, move || lock(&agent).clone());
        listening.await.map_err(|source| NodeError::Forward {
            machine: self.name().to_owned(),
            source,
        })
    }

    /// Starts a service of the machine's configuration. Its own environment comes before the machine's.
    pub async fn start_service(&self, name: &str) -> Result<(), NodeError> {
        let mut spec = self.service_spec(name)?.clone();
        for (name, value) in &self.member.config.provision.environment {
            let own = spec.environment.entry(name.clone());
            own.or_insert_with(|| value.clone());
        }
        let place = self.service_place(name)?;
        let mut services = self.services.lock().await;
        let started = Service::start(place, &spec).await;
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

    /// Follows services of a machine that came back, each from where its log ends, unless its end is known here.
    pub(crate) async fn follow_services(
        &self,
        positions: &BTreeMap<String, u64>,
    ) -> Result<(), NodeError> {
        let mut services = self.services.lock().await;
        for (name, offset) in positions {
            if services.contains_key(name) {
                continue;
            }
            let followed = Service::follow(self.service_place(name)?, name, *offset).await;
            let service = followed.map_err(|source| self.service_error(source))?;
            services.insert(name.clone(), service);
        }
        Ok(())
    }

    /// Leaves the services of a machine whose conversation was ended alone; returns where each one's log ends. Of those
    /// that have ended only that counts, and it stays known here.
    pub(crate) async fn leave_services(&self) -> BTreeMap<String, u64> {
        let mut services = self.services.lock().await;
        let mut positions = BTreeMap::new();
        for (name, service) in std::mem::take(&mut *services) {
            if service.ended().is_some() {
                positions.insert(name.clone(), u64::MAX);
                services.insert(name, service);
            } else {
                positions.insert(name, service.parted().await);
            }
        }
        positions
    }

    fn service_place(&self, name: &str) -> Result<Place, NodeError> {
        Ok(Place {
            machine: self.name().to_owned(),
            agent: self.agent()?,
            log: self.service_log(name),
            recorder: self.common.recorder.clone(),
        })
    }

    /// Returns the host memory the machine uses.
    pub async fn memory_use(&self) -> Result<MemoryUse, NodeError> {
        let machine = self.machine.lock().await;
        let running = machine.as_ref().ok_or_else(|| self.off())?;
        running.memory_use().map_err(|source| NodeError::Memory {
            file: format!("/proc/{}/smaps_rollup", running.pid()).into(),
            source,
        })
    }

    /// Returns the process id of the machine's QEMU.
    pub async fn pid(&self) -> Result<u32, NodeError> {
        let machine = self.machine.lock().await;
        Ok(machine.as_ref().ok_or_else(|| self.off())?.pid())
    }

    /// Returns the file a service's output goes to.
    pub fn service_log(&self, name: &str) -> PathBuf {
        self.common.folder.service_log(self.name(), name)
    }

    /// Returns the file the serial console goes to.
    pub fn console_log(&self) -> PathBuf {
        self.common.folder.console(self.name())
    }

    /// Tells the reports what the machine's role is now, such as "leader".
    pub fn set_role(&self, role: &str) {
        self.common.recorder.record(Event::Role {
            machine: self.name().to_owned(),
            role: role.to_owned(),
        });
    }

    /// Takes the running machine, noting how much memory it used.
    async fn take(&self) -> Option<Running> {
        let running = self.machine.lock().await.take()?;
        self.talk_to_nobody();
        self.note_memory(&running);
        Some(running)
    }

    pub(crate) fn note_memory(&self, running: &Running) {
        if let Ok(used) = running.memory_use() {
            let mut most = lock(&self.private_bytes_max);
            *most = used.private.max(*most);
        }
    }

    /// Keeps what the machine that ended leaves to the next, its disk, and removes its memory.
    pub(crate) fn stopped(&self, stopped: Stopped) {
        if let Memory::Own(file) = &stopped.spec.memory
            && let Err(error) = std::fs::remove_file(file)
        {
            tracing::warn!(file = %file.display(), %error, "could not remove a machine's memory");
        }
        lock(&self.spec).data_disk = stopped.spec.data_disk;
    }

    /// Talks to the machine's agent from now on, and serves the folder in common to it.
    pub(crate) fn talk_to(&self, running: &Running) {
        let (machine, folder) = (self.name().to_owned(), self.common.folder.shared());
        let recorder = self.common.recorder.clone();
        let mut sharing = JoinSet::new();
        sharing.spawn(shared::serve(running.share(), machine, folder, recorder));
        *lock(&self.sharing) = sharing;
        *lock(&self.agent) = Some(running.agent().clone());
    }

    /// Talks to no agent: the machine is off, or about to be frozen.
    pub(crate) fn talk_to_nobody(&self) {
        *lock(&self.sharing) = JoinSet::new();
        *lock(&self.agent) = None;
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
        self.common.recorder.record(Event::Machine {
            machine: self.name().to_owned(),
            state,
        });
    }

    pub(crate) fn off(&self) -> NodeError {
        NodeError::Off {
            machine: self.name().to_owned(),
        }
    }

    pub(crate) fn agent_error(&self, source: AgentError) -> NodeError {
        NodeError::Agent {
            machine: self.name().to_owned(),
            source,
        }
    }

    pub(crate) fn monitor_error(&self, source: QmpError) -> NodeError {
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

pub(crate) fn lock<T>(mutex: &StdMutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can be left half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the end of an output as text.
fn tail(bytes: &[u8]) -> String {
    let start = bytes.len().saturating_sub(OUTPUT_SHOWN_BYTES);
    String::from_utf8_lossy(&bytes[start..])
        .trim_end()
        .to_owned()
}
