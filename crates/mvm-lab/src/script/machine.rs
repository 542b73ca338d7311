//! Life, units, consoles and ports of one machine, as scripts ask for them.

use std::{
    future::pending,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex as StdMutex},
    time::Duration,
};

use mvm_machine::qmp::QmpEvent;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard, broadcast};

use super::{
    session::Session,
    wire::{Done, MachineVerb, Refusal},
};
use crate::{
    node::{Node, NodeError, lock},
    run_folder::shell_line,
};

/// A machine and what the script does with it.
pub(super) struct Driven {
    pub(super) node: Arc<Node>,
    /// Held while the machine starts or ends, so that what follows finds it up or off.
    turn: Arc<Mutex<()>>,
    /// Why a start that nobody waited for failed.
    failed: Arc<StdMutex<Option<NodeError>>>,
    /// What QEMU told since the machine came up and nobody has asked for.
    events: Mutex<Option<broadcast::Receiver<QmpEvent>>>,
}

impl Driven {
    pub(super) fn new(node: Arc<Node>) -> Driven {
        Driven {
            node,
            turn: Arc::default(),
            failed: Arc::default(),
            events: Mutex::default(),
        }
    }

    async fn start(&self) -> Result<(), NodeError> {
        self.node.start().await?;
        *self.events.lock().await = Some(self.node.monitor_events().await?);
        Ok(())
    }

    /// The next event of QEMU's that was not asked for yet, or null when none came for a while.
    async fn monitor_event(&self, wait: Duration) -> Value {
        let mut events = self.events.lock().await;
        let next = async {
            let Some(events) = events.as_mut() else {
                return pending().await;
            };
            loop {
                match events.recv().await {
                    Ok(event) => break Some(event),
                    // So many came that the oldest are gone.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => break None,
                }
            }
        };
        match tokio::time::timeout(wait, next).await {
            Ok(Some(event)) => event.message,
            Ok(None) => {
                // Its machine is gone; the next one has events of its own.
                *events = None;
                Value::Null
            }
            Err(_elapsed) => Value::Null,
        }
    }

    /// Waits until a start under way is over, and keeps others from beginning.
    async fn settled(&self) -> Result<MutexGuard<'_, ()>, Refusal> {
        let turn = self.turn.lock().await;
        match self.failed_start() {
            Some(error) => Err(error.into()),
            None => Ok(turn),
        }
    }

    /// Why a start failed that nobody waited for. Told once.
    pub(super) fn failed_start(&self) -> Option<NodeError> {
        lock(&self.failed).take()
    }

    /// Waits until the machine is up, and starts it if it is not.
    pub(super) async fn up(&self) -> Result<&Arc<Node>, Refusal> {
        let _turn = self.settled().await?;
        if !self.node.is_on().await {
            self.start().await?;
        }
        Ok(&self.node)
    }
}

impl Session<'_> {
    pub(super) async fn machine_verb(&self, machine: &Arc<Driven>, verb: MachineVerb) -> Done {
        match verb {
            MachineVerb::Start => self.start(machine).await,
            MachineVerb::Connect => machine.up().await.map(|_| Value::Null),
            MachineVerb::Shutdown => {
                let _turn = machine.turn.lock().await;
                machine.node.shutdown().await;
                Ok(Value::Null)
            }
            MachineVerb::WaitForShutdown { timeout } => {
                let ended = async {
                    drop(machine.settled().await?);
                    machine.node.wait_for_end().await;
                    Ok(Value::Null)
                };
                match tokio::time::timeout(timeout.get(), ended).await {
                    Ok(ended) => ended,
                    Err(_elapsed) => Err(Refusal::assertion(format!(
                        "machine {} was not off within {:?}",
                        machine.node.name(),
                        timeout.get()
                    ))),
                }
            }
            MachineVerb::Crash => {
                let _turn = machine.turn.lock().await;
                machine.node.crash().await;
                Ok(Value::Null)
            }
            MachineVerb::Reboot => {
                let _turn = machine.turn.lock().await;
                machine.node.shutdown().await;
                machine.start().await?;
                Ok(Value::Null)
            }
            MachineVerb::Pause => {
                machine.up().await?.pause().await?;
                Ok(Value::Null)
            }
            MachineVerb::Resume => {
                machine.node.resume().await?;
                Ok(Value::Null)
            }
            MachineVerb::IsUp => Ok(Value::Bool(machine.node.is_on().await)),
            MachineVerb::Pid => Ok(machine.node.pid().await.ok().into()),
            MachineVerb::Execute {
                command,
                timeout,
                told_as,
            } => self.execute(machine, command, timeout, told_as).await,
            MachineVerb::Spawn { command } => self.spawn(machine, command).await,
            MachineVerb::Begin { command } => self.begin(machine, command).await,
            MachineVerb::WaitStarted { number, timeout } => {
                self.wait_started(number, timeout).await
            }
            MachineVerb::StartedRuns { number } => self.started_runs(number),
            MachineVerb::StartedOutput { number } => self.started_output(number),
            MachineVerb::KillStarted { number } => self.kill_started(number),
            MachineVerb::WaitUntil {
                command,
                succeeds,
                timeout,
            } => self.wait_until(machine, command, succeeds, timeout).await,
            MachineVerb::Systemctl { arguments, user } => {
                self.systemctl(machine, &arguments, user.as_deref()).await
            }
            MachineVerb::WaitForUnit {
                unit,
                user,
                timeout,
            } => {
                self.wait_for_unit(machine, &unit, user.as_deref(), timeout)
                    .await
            }
            MachineVerb::Unit { unit, user } => self.unit(machine, &unit, user.as_deref()).await,
            MachineVerb::WaitForPort {
                port,
                address,
                open,
                timeout,
            } => {
                self.wait_for_port(machine, &address, port, open, timeout)
                    .await
            }
            MachineVerb::Console { start, begun, wait } => {
                Ok(self.console(machine, start, &begun, wait).await)
            }
            MachineVerb::MonitorEvent { wait } => Ok(machine.monitor_event(wait.get()).await),
            MachineVerb::CopyFromHost { source, target } => {
                self.copy_from_host(machine, &source, &target).await
            }
            MachineVerb::CopyFromMachine { source, target } => {
                self.copy_from_machine(machine, &source, &target).await
            }
            MachineVerb::ForwardPort {
                host_port,
                guest_port,
            } => {
                let local = SocketAddr::from((Ipv4Addr::LOCALHOST, host_port));
                let forward = machine.up().await?.forward(local, guest_port).await?;
                lock(&self.forwards).push(forward);
                Ok(Value::Null)
            }
            MachineVerb::Block { blocked } => self.block(machine, blocked),
            MachineVerb::Monitor { command } => {
                let answer = machine.up().await?.monitor_command(&command).await?;
                Ok(json!(answer))
            }
            MachineVerb::SendConsole { text } => {
                let node = machine.up().await?;
                match node.console().write(text.as_bytes()).await {
                    true => Ok(Value::Null),
                    false => Err(Refusal::machine(format!(
                        "could not type on the console of {}: it is off",
                        node.name()
                    ))),
                }
            }
            MachineVerb::AttachCommand { kind } => self.attach_command(machine, &kind),
        }
    }

    /// The command that attaches a terminal to a machine.
    fn attach_command(&self, machine: &Driven, kind: &str) -> Done {
        let control = self.run.control.as_ref().ok_or_else(|| {
            Refusal::machine("machines cannot be attached to: the run has no control socket")
        })?;
        let program = std::env::current_exe().unwrap_or_else(|_| "mvm-ci".into());
        let command = [
            program.to_string_lossy().into_owned(),
            kind.to_owned(),
            "--control".to_owned(),
            control.socket().to_string_lossy().into_owned(),
            machine.node.name().to_owned(),
        ];
        Ok(json!({ "command": command, "shown": shell_line(&command) }))
    }

    /// Starts a machine, unless it is up or starting; returns once it is under way.
    async fn start(&self, machine: &Arc<Driven>) -> Done {
        let Ok(turn) = Arc::clone(&machine.turn).try_lock_owned() else {
            return Ok(Value::Null);
        };
        if let Some(error) = machine.failed_start() {
            return Err(error.into());
        }
        if machine.node.is_on().await {
            return Ok(Value::Null);
        }
        let machine = Arc::clone(machine);
        lock(&self.background).spawn(async move {
            if let Err(error) = machine.start().await {
                *lock(&machine.failed) = Some(error);
            }
            drop(turn);
        });
        Ok(Value::Null)
    }

    /// Cuts eth1 off, or brings it back, whatever other cards the machine has.
    fn block(&self, machine: &Driven, blocked: bool) -> Done {
        let name = machine.node.name();
        let Some(card) = machine.node.member().cards.first() else {
            return Err(Refusal::value(format!("machine {name} has no card eth1")));
        };
        let segment = self.run.lab.network().on(card.segment)?;
        match blocked {
            true => segment.isolate(name)?,
            false => segment.heal_one(name)?,
        }
        Ok(Value::Null)
    }
}
