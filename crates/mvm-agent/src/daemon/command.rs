//! Commands: processes with their pipes.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::{Pid, test_kill_process_group};

use super::services::Services;
use super::sys;
use super::work::{Input, InputQueue, Kind, Outlet, Progress, Work, failure, refusal};
use crate::protocol::{
    DATA_BYTES_MAX, ExitStatus, Failure, Lane, Lifetime, Program, Reply, Run, StdinSource, ToHost,
};

/// How soon a killed command is looked at again while the host has not made room for its last output.
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);

/// A process bound to a stream. Dropping it before it is over kills its process group.
#[derive(Debug)]
pub(super) struct CommandWork {
    /// The process, which is the leader of its group.
    leader: Pid,
    /// Nobody is left in the group, so that its number may be somebody else's by now.
    group_gone: bool,
    status: Option<ExitStatus>,
    announced: bool,
    reported: bool,
    killed: bool,
    over: bool,
    stdin: Option<OwnedFd>,
    pending: InputQueue,
    outputs: [(Lane, Option<OwnedFd>); 2],
}

/// What starting a command made of it.
pub(super) enum Begun {
    Attached(CommandWork),
    Detached(Pid),
}

/// Prepares a program, as the leader of a process group of its own. `base` is added to its environment
/// before its own variables.
pub(super) fn prepare(program: &Program, base: &[(&str, &str)]) -> Result<Command, Failure> {
    let mut command = prepare_member(program, base)?;
    command.process_group(0);
    Ok(command)
}

/// [`prepare`] for a program that stays in the daemon's process group until it makes its own.
pub(super) fn prepare_member(program: &Program, base: &[(&str, &str)]) -> Result<Command, Failure> {
    let directory = program.directory.as_deref().unwrap_or("/");
    // The kernel's error for a missing directory would read as if the program were missing.
    if !Path::new(directory).is_dir() {
        return Err(refusal(
            format!("run `{}`", program.name),
            format!("its working directory `{directory}` is not a directory"),
        ));
    }
    let mut command = Command::new(&program.name);
    command
        .args(&program.arguments)
        .envs(base.iter().copied())
        .current_dir(directory);
    command.envs(
        program
            .environment
            .iter()
            .map(|(name, value)| (name, value)),
    );
    sys::unblock_signals(&mut command);
    sys::usual_priority(&mut command);
    Ok(command)
}

/// Starts a command. `base` is added to its environment before the request's own variables.
pub(super) fn begin(run: &Run, base: &[(&str, &str)]) -> Result<Begun, Failure> {
    let operation = || format!("run `{}`", run.program.name);
    let mut command = prepare(&run.program, base)?;
    match run.stdin {
        StdinSource::Null => command.stdin(Stdio::null()),
        StdinSource::Stream => command.stdin(Stdio::piped()),
    };
    match &run.lifetime {
        Lifetime::Stream => command.stdout(Stdio::piped()).stderr(Stdio::piped()),
        Lifetime::Detached { output: None } => command.stdout(Stdio::null()).stderr(Stdio::null()),
        Lifetime::Detached { output: Some(path) } => {
            let (stdout, stderr) = open_output(path)?;
            command.stdout(stdout).stderr(stderr)
        }
    };
    let child = command
        .spawn()
        .map_err(|error| failure(operation(), &error))?;
    let leader = Pid::from_child(&child);
    match run.lifetime {
        Lifetime::Detached { .. } => Ok(Begun::Detached(leader)),
        Lifetime::Stream => Ok(Begun::Attached(CommandWork::new(leader, child).map_err(
            |error| {
                // Nobody would ever hear of it again.
                let _ = sys::signal_group(leader, libc::SIGKILL);
                failure(operation(), &error.into())
            },
        )?)),
    }
}

fn open_output(path: &str) -> Result<(File, File), Failure> {
    let opened = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|file| Ok((file.try_clone()?, file)));
    opened.map_err(|error| failure(format!("open `{path}` for a command's output"), &error))
}

impl CommandWork {
    fn new(leader: Pid, child: Child) -> Result<Self, Errno> {
        // The daemon reaps all its children itself, so the handle is only good for its pipes.
        let stdin = child.stdin.map(OwnedFd::from);
        let stdout = child.stdout.map(OwnedFd::from);
        let stderr = child.stderr.map(OwnedFd::from);
        for pipe in [&stdin, &stdout, &stderr].into_iter().flatten() {
            ioctl_fionbio(pipe, true)?;
        }
        Ok(Self {
            leader,
            group_gone: false,
            status: None,
            announced: false,
            reported: false,
            killed: false,
            over: false,
            stdin,
            pending: InputQueue::default(),
            outputs: [(Lane::Main, stdout), (Lane::Error, stderr)],
        })
    }

    fn signal(&self, signal: i32) {
        if !self.group_gone {
            // The only failure is that everybody is gone.
            let _ = sys::signal_group(self.leader, signal);
        }
    }

    fn write_stdin(&mut self, outlet: &mut Outlet<'_>) {
        let Some(stdin) = &self.stdin else {
            self.pending.discard(outlet);
            return;
        };
        let written = self.pending.write_to(stdin, outlet);
        if written.is_err() {
            self.pending.discard(outlet);
            outlet.send(&ToHost::InputClosed);
        }
        if written.is_err() || self.pending.is_finished() {
            self.stdin = None;
        }
    }

    /// Sends one piece of each output; all there is once the command was killed.
    fn read_outputs(&mut self, outlet: &mut Outlet<'_>) {
        let mut buffer = [0; DATA_BYTES_MAX];
        let settled = self.is_settled();
        for (lane, output) in &mut self.outputs {
            while let Some(pipe) = output {
                let room = outlet.room();
                if room == 0 {
                    return;
                }
                match rustix::io::read(&*pipe, &mut buffer[..room]) {
                    Ok(count) if count > 0 => outlet.data(*lane, &buffer[..count]),
                    Err(Errno::INTR) => continue,
                    Err(Errno::AGAIN) if !settled => {}
                    // The end; or somebody outside the killed group still holds the pipe, and is not waited for.
                    Ok(_) | Err(_) => {
                        *output = None;
                        if *lane == Lane::Main {
                            outlet.send(&ToHost::End);
                        }
                    }
                }
                if !settled {
                    break;
                }
            }
        }
    }

    /// Whether the command was killed and its process is reaped, so that what is in its pipes is all that
    /// counts.
    fn is_settled(&self) -> bool {
        self.killed && self.status.is_some()
    }
}

impl Work for CommandWork {
    fn kind(&self) -> Kind {
        Kind::Command
    }

    fn interests<'a>(&'a self, may_send: bool, interests: &mut Vec<PollFd<'a>>) {
        if let Some(stdin) = self.stdin.as_ref().filter(|_| !self.pending.is_empty()) {
            interests.push(PollFd::new(stdin, PollFlags::OUT));
        }
        if may_send {
            let open = self
                .outputs
                .iter()
                .filter_map(|(_, output)| output.as_ref());
            interests
                .extend(open.map(|output| PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN)));
        }
    }

    fn deadline(&self, _may_send: bool) -> Option<Instant> {
        self.is_settled().then(|| Instant::now() + DRAIN_INTERVAL)
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Data(chunk) => self.pending.push(chunk),
            Input::End => self.pending.end(),
            Input::Signal(signal) => self.signal(signal),
            // A pipe has no size.
            Input::Resize(_) => {}
            Input::Kill => {
                self.killed = true;
                self.signal(libc::SIGKILL);
            }
        }
    }

    fn reaped(&mut self, ended: &[(Pid, ExitStatus)]) {
        if let Some((_, status)) = ended.iter().find(|(pid, _)| *pid == self.leader) {
            self.status = Some(*status);
        }
        // The group's number stays taken while it has members. Asked right after each reaping, before any
        // other process can have got that number.
        if self.status.is_some() && test_kill_process_group(self.leader) == Err(Errno::SRCH) {
            self.group_gone = true;
        }
    }

    fn advance(
        &mut self,
        _now: Instant,
        _services: &Services,
        outlet: &mut Outlet<'_>,
    ) -> Result<Progress, Failure> {
        if !self.announced {
            self.announced = true;
            outlet.send(&ToHost::Started);
        }
        self.write_stdin(outlet);
        self.read_outputs(outlet);
        let Some(status) = self.status else {
            return Ok(Progress::Going);
        };
        if !self.reported {
            self.reported = true;
            outlet.send(&ToHost::Exited(status));
        }
        if self.outputs.iter().any(|(_, output)| output.is_some()) {
            return Ok(Progress::Going);
        }
        self.over = true;
        Ok(Progress::Done(Reply::Nothing))
    }
}

impl Drop for CommandWork {
    fn drop(&mut self) {
        if !self.over {
            self.signal(libc::SIGKILL);
        }
    }
}
