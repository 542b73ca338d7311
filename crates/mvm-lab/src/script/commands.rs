//! Commands of a script: run by bash as the NixOS test driver runs them, in the foreground and beside the script.
//!
//! A command is over when it has ended and its standard output is closed. Whoever still has its standard error lives
//! on, and so does what that writes, as lines of the log.

use std::{
    sync::{Arc, Mutex as StdMutex, atomic::Ordering},
    time::{Duration, Instant},
};

use mvm_agent::client::{Command, Event as CommandEvent, ExitStatus, Running};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    firewall,
    machine::Driven,
    session::Session,
    shaping,
    wire::{Done, Limit, Refusal},
};
use crate::{
    event::{Event, LogLevel, Recorder},
    node::{Node, NodeError, lock},
    scenario::milliseconds,
};

/// What `timeout` exits with when the time was up (timeout(1)), as scripts know it.
const STATUS_TIMED_OUT: i32 = 124;
/// What a shell makes of a signal.
const STATUS_SIGNAL: i32 = 128;
/// Every shell of a script: what goes wrong in it must not pass unseen.
const STRICT: &str = "set -euo pipefail; ";
/// Where they are run.
pub(super) const FOLDER: &str = "/tmp";
/// How much of each output is kept.
const OUTPUT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a command left.
#[derive(Clone, Debug, Default)]
pub(super) struct Ended {
    pub(super) status: i32,
    pub(super) timed_out: bool,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Ended {
    fn told(&self) -> Value {
        json!({
            "status": self.status,
            "timed_out": self.timed_out,
            "stdout": self.stdout,
            "stderr": self.stderr,
        })
    }
}

/// A command that runs beside the script.
pub(super) struct Started {
    output: StdMutex<Vec<u8>>,
    ended: watch::Sender<Option<Ended>>,
    kill: tokio::sync::Notify,
}

/// A command's outputs as they come.
struct Collected {
    machine: String,
    recorder: Recorder,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// The beginning of a line of standard error.
    line: Vec<u8>,
}

impl Collected {
    fn new(machine: &str, recorder: &Recorder) -> Collected {
        Collected {
            machine: machine.to_owned(),
            recorder: recorder.clone(),
            stdout: Vec::new(),
            stderr: Vec::new(),
            line: Vec::new(),
        }
    }

    fn take_stdout(&mut self, bytes: &[u8]) {
        keep(&mut self.stdout, bytes);
    }

    /// Keeps standard error, and tells its whole lines at once.
    fn take_stderr(&mut self, bytes: &[u8]) {
        keep(&mut self.stderr, bytes);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            keep(&mut self.line, piece);
            if piece.ends_with(b"\n") {
                self.tell_line();
            }
        }
    }

    fn tell_line(&mut self) {
        let text = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        self.line.clear();
        if !text.is_empty() {
            self.recorder.record(Event::Log {
                level: LogLevel::Info,
                machine: Some(self.machine.clone()),
                text,
            });
        }
    }

    fn ended(&mut self, status: ExitStatus) -> Ended {
        if !self.line.is_empty() {
            self.tell_line();
        }
        let text =
            |bytes: &mut Vec<u8>| String::from_utf8_lossy(&std::mem::take(bytes)).into_owned();
        Ended {
            status: number(status),
            timed_out: status == ExitStatus::TimedOut,
            stdout: text(&mut self.stdout),
            stderr: text(&mut self.stderr),
        }
    }
}

fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
    kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

fn number(status: ExitStatus) -> i32 {
    match status {
        ExitStatus::Code(code) => code,
        ExitStatus::Signal(signal) => STATUS_SIGNAL + signal,
        ExitStatus::TimedOut => STATUS_TIMED_OUT,
    }
}

impl Session<'_> {
    /// The shell for a script's command.
    fn shell(&self, node: &Node, command: &str) -> Result<Command, NodeError> {
        self.watch(node.name(), command);
        let mut shell = node.agent()?.command("bash").arg("-c");
        for (name, value) in [("HOME", "/root"), ("USER", "root")] {
            shell = shell.env(name, value);
        }
        for (name, value) in &node.member().config.provision.environment {
            shell = shell.env(name, value);
        }
        Ok(shell.arg(format!("{STRICT}{command}")).cwd(FOLDER))
    }

    /// Warns of what a script does in machines that has another effect than it seems to.
    fn watch(&self, machine: &str, command: &str) {
        for half in lock(&self.firewalls).hear(machine, command) {
            self.warn(firewall::warning(&half), half);
        }
        if shaping::concerns_eth0(command) && lock(&self.shaped).insert(machine.to_owned()) {
            self.warn(shaping::warning(machine), machine.to_owned());
        }
    }

    fn warn(&self, text: String, machine: String) {
        self.run.recorder.record(Event::Log {
            level: LogLevel::Warning,
            text,
            machine: Some(machine),
        });
    }

    /// Runs a command to its end.
    pub(super) async fn run_command(
        &self,
        node: &Node,
        command: &str,
        allowed: Option<Duration>,
    ) -> Result<Ended, Refusal> {
        let mut shell = self.shell(node, command)?;
        if let Some(allowed) = allowed {
            shell = shell.timeout(allowed);
        }
        let failed = |source| Refusal::from(node.agent_error(source));
        let mut running = shell.spawn().await.map_err(failed)?;
        let mut collected = Collected::new(node.name(), &self.run.recorder);
        let mut status = None;
        let mut stdout_open = true;
        while let Some(event) = running.next_event().await.map_err(failed)? {
            match event {
                CommandEvent::Stdout(bytes) => collected.take_stdout(&bytes),
                CommandEvent::Stderr(bytes) => collected.take_stderr(&bytes),
                CommandEvent::StdoutClosed => stdout_open = false,
                CommandEvent::Exit(exit) => status = Some(exit),
            }
            if !stdout_open && let Some(status) = status {
                let ended = collected.ended(status);
                lock(&self.background).spawn(follow(running, collected));
                return Ok(ended);
            }
        }
        // A command that ended while a child of it held its output until its time was up, timed out.
        Ok(collected.ended(match running.timed_out() {
            true => ExitStatus::TimedOut,
            false => status.unwrap_or(ExitStatus::TimedOut),
        }))
    }

    pub(super) async fn execute(
        &self,
        machine: &Driven,
        command: String,
        timeout: Limit,
        told_as: Option<String>,
    ) -> Done {
        let node = machine.up().await?;
        let began = Instant::now();
        let ended = self.run_command(node, &command, timeout.bound()).await?;
        self.run.recorder.record(Event::Command {
            machine: node.name().to_owned(),
            told_as: told_as.unwrap_or_else(|| "executed".to_owned()),
            command,
            status: ended.status,
            duration_ms: milliseconds(began.elapsed()),
        });
        Ok(ended.told())
    }

    /// Starts a command that nobody hears of again.
    pub(super) async fn spawn(&self, machine: &Driven, command: String) -> Done {
        let node = machine.up().await?;
        let started = self.shell(node, &command)?.detached().start().await;
        started.map_err(|source| node.agent_error(source))?;
        Ok(Value::Null)
    }

    /// Starts a command beside the script.
    pub(super) async fn begin(&self, machine: &Driven, command: String) -> Done {
        let node = machine.up().await?;
        let running = self.shell(node, &command)?.spawn().await;
        let running = running.map_err(|source| node.agent_error(source))?;
        let started = Arc::new(Started {
            output: StdMutex::default(),
            ended: watch::Sender::new(None),
            kill: tokio::sync::Notify::new(),
        });
        let collected = Collected::new(node.name(), &self.run.recorder);
        lock(&self.background).spawn(attend(running, collected, Arc::clone(&started)));
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        lock(&self.started).insert(number, started);
        Ok(number.into())
    }

    pub(super) async fn wait_started(&self, number: u64, timeout: Limit) -> Done {
        let mut ended = self.command_started(number)?.ended.subscribe();
        let over = ended.wait_for(Option::is_some);
        match tokio::time::timeout(timeout.get(), over).await {
            Ok(ended) => {
                let ended = ended.ok().and_then(|ended| ended.clone());
                Ok(ended.unwrap_or_default().told())
            }
            Err(_elapsed) => Err(Refusal::assertion(format!(
                "the command did not end within {:?}",
                timeout.get()
            ))),
        }
    }

    pub(super) fn started_runs(&self, number: u64) -> Done {
        let started = self.command_started(number)?;
        Ok(started.ended.borrow().is_none().into())
    }

    pub(super) fn started_output(&self, number: u64) -> Done {
        let started = self.command_started(number)?;
        let output = lock(&started.output);
        Ok(String::from_utf8_lossy(&output).into())
    }

    pub(super) fn kill_started(&self, number: u64) -> Done {
        self.command_started(number)?.kill.notify_one();
        Ok(Value::Null)
    }

    fn command_started(&self, number: u64) -> Result<Arc<Started>, Refusal> {
        let started = lock(&self.started).get(&number).cloned();
        started.ok_or_else(|| Refusal::value(format!("no command was started as {number}")))
    }
}

/// Tells what those write who outlive a command.
async fn follow(mut running: Running, mut collected: Collected) {
    while let Ok(Some(event)) = running.next_event().await {
        if let CommandEvent::Stderr(bytes) = event {
            collected.stderr.clear();
            collected.take_stderr(&bytes);
        }
    }
}

/// Takes what a command beside the script writes, until it ends or is killed.
async fn attend(mut running: Running, mut collected: Collected, started: Arc<Started>) {
    let mut status = ExitStatus::Signal(9);
    loop {
        tokio::select! {
            event = running.next_event() => match event {
                Ok(Some(CommandEvent::Stdout(bytes))) => {
                    keep(&mut lock(&started.output), &bytes);
                    collected.take_stdout(&bytes);
                }
                Ok(Some(CommandEvent::Stderr(bytes))) => collected.take_stderr(&bytes),
                Ok(Some(CommandEvent::StdoutClosed)) => {}
                Ok(Some(CommandEvent::Exit(exit))) => status = exit,
                Ok(None) | Err(_) => break,
            },
            () = started.kill.notified() => {
                // A channel that is closed shows with the next event.
                let _ = running.kill();
            }
        }
    }
    started.ended.send_replace(Some(collected.ended(status)));
}
