//! The process that stands between node and job, one per job: this executable, started again.
//!
//! It holds one end of a socket whose other end only the node holds. Under a PID namespace it forks once more:
//! the child is PID 1 of the namespace and keeps the job ([`keeper`]), the parent stays outside and waits, so
//! that something is left to remove the job's directory and control group. Under a subreaper one process is
//! both.

mod descendants;
mod keeper;
mod launch;
mod namespace;
mod plan;
mod scratch;

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal,
    set_dumpable_behavior,
};

use crate::Outcome;
use crate::memory::Group;
use crate::sys::{self, Forked};
use crate::wire::{self, HELLO, Order, Probed, Report, Start};

use keeper::{Keeper, Survivors};
use scratch::Scratch;
pub(crate) use scratch::remove_private;

/// The argument that makes a program a supervisor.
pub(crate) const ARGUMENT: &str = "--mvm-exec-supervise";

/// Makes this process a supervisor, and never returns, if it was started as one; does nothing otherwise.
///
/// To be called first thing in `main`, before threads, runtimes and the reading of arguments: jobs are run by
/// starting this very executable again with a hidden argument.
pub fn supervise_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().as_deref() == Some(OsStr::new(ARGUMENT)) && arguments.next().is_none() {
        let _ = supervise();
        std::process::exit(0);
    }
}

/// Says hello, takes one order and carries it out.
fn supervise() -> io::Result<ExitCode> {
    let control = take_control()?;
    let mut control = Control::new(control);
    control.report(&Report::Hello(HELLO.to_vec()))?;
    if let Err(error) = sys::require_one_thread() {
        return refuse(&control, error.to_string());
    }
    match control.order()? {
        Order::Probe => control.report(&Report::Probed(namespace::probe()))?,
        Order::Start(start) => run(control, &start)?,
        Order::Cancel | Order::Kill => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes the socket away from standard input, and everything else that was inherited but the two outputs.
fn take_control() -> io::Result<OwnedFd> {
    sys::close_inherited(3);
    // Its own session: neither a terminal's interrupt nor a signal to the node's group ends it.
    let _ = rustix::process::setsid();
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(control)
}

fn refuse(control: &Control, reason: String) -> io::Result<ExitCode> {
    control.report(&Report::Ended(Outcome::CouldNotStart { reason }))?;
    Ok(ExitCode::SUCCESS)
}

/// Makes what the job needs, keeps it, and removes what was made.
fn run(mut control: Control, start: &Start) -> io::Result<()> {
    // Before the first fork, lest the end of a child be missed.
    let signals = sys::block_signals()?;
    let scratch = match Scratch::of(&start.spec.directory) {
        Ok(scratch) => scratch,
        Err(reason) => return refuse(&control, reason).map(drop),
    };
    let group = match limit_memory(start) {
        Ok(group) => group,
        Err(reason) => return refuse(&control, reason).map(drop),
    };
    let last = if start.namespace {
        run_in_namespace(&mut control, signals, start, scratch.path(), group.as_ref())
    } else {
        keep_as_subreaper(&mut control, signals, start, scratch.path(), group.as_ref())
    };
    // By now nobody is left who could hold them.
    drop(group);
    drop(scratch);
    match last {
        Some(outcome) => control.report(&Report::Ended(outcome)),
        None => Ok(()),
    }
}

fn limit_memory(start: &Start) -> Result<Option<Group>, String> {
    match (&start.control_group, start.spec.memory_limit) {
        (Some(parent), Some(bytes)) => Group::create(parent, bytes).map(Some).map_err(|error| {
            format!(
                "could not make a control group in {} to limit its memory: {error}",
                parent.display()
            )
        }),
        _ => Ok(None),
    }
}

fn keep_as_subreaper(
    control: &mut Control,
    signals: OwnedFd,
    start: &Start,
    directory: &Path,
    group: Option<&Group>,
) -> Option<Outcome> {
    // The job is of the same user: it can kill this process, but neither trace it nor take its socket.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let own = Some(rustix::process::getpid());
    if let Err(error) = rustix::process::set_child_subreaper(own) {
        return Some(Outcome::CouldNotStart {
            reason: format!("could not become the one who inherits orphans: {error}"),
        });
    }
    Some(Keeper::new(control, signals, None, Survivors::Walk).keep(&start.spec, directory, group))
}

/// Forks the namespace's PID 1 and waits for its end, which is the end of all in it. Returns an outcome if
/// PID 1 could not report one.
fn run_in_namespace(
    control: &mut Control,
    signals: OwnedFd,
    start: &Start,
    directory: &Path,
    group: Option<&Group>,
) -> Option<Outcome> {
    let could_not = |what: &str, error: io::Error| {
        Some(Outcome::CouldNotStart {
            reason: format!("could not {what}: {error}"),
        })
    };
    if let Err(error) = namespace::enter() {
        return could_not("make a PID namespace", error);
    }
    // PID 1 sees the other end close when this process ends, in whatever way and however early.
    let (held, leash) = match rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC) {
        Ok((leash, held)) => (held, leash),
        Err(error) => return could_not("make a pipe", error.into()),
    };
    match sys::fork() {
        Err(error) => could_not("fork the first process of a namespace", error),
        Ok(Forked::Child) => {
            drop(held);
            let keeper = Keeper::new(control, signals, Some(leash), Survivors::DieWithNamespace);
            let outcome = namespace::settle()
                .map_err(|error| Outcome::CouldNotStart {
                    reason: format!("could not settle in a PID namespace: {error}"),
                })
                .map_or_else(
                    |outcome| outcome,
                    |()| keeper.keep(&start.spec, directory, group),
                );
            let told = control.report(&Report::Ended(outcome));
            // Not `return`: the kernel now kills whoever is left in the namespace, and what the parent made
            // is the parent's to remove.
            std::process::exit(if told.is_ok() { 0 } else { 1 })
        }
        Ok(Forked::Parent(first)) => {
            drop(leash);
            release_outputs();
            let outcome = await_first(control, first);
            drop(held);
            outcome
        }
    }
}

/// Waits for PID 1, and kills it if the node is gone: it should see that itself, unless it is stopped.
fn await_first(control: &Control, first: Pid) -> Option<Outcome> {
    let lost = |reason: String| Some(Outcome::Lost { reason });
    let first_fd = match pidfd_open(first, PidfdFlags::empty()) {
        Ok(first_fd) => first_fd,
        Err(error) => {
            let _ = rustix::process::kill_process(first, Signal::KILL);
            let _ = rustix::process::waitpid(Some(first), WaitOptions::empty());
            return lost(format!("could not watch the namespace's PID 1: {error}"));
        }
    };
    loop {
        let mut events = [
            PollFd::new(&first_fd, PollFlags::IN),
            // Only its end: what the node says is for PID 1.
            PollFd::new(&control.socket, PollFlags::empty()),
        ];
        let _ = poll(&mut events, None);
        let (ended, node_gone) = (
            !events[0].revents().is_empty(),
            !events[1].revents().is_empty(),
        );
        if node_gone && !ended {
            let _ = pidfd_send_signal(&first_fd, Signal::KILL);
        }
        if ended || node_gone {
            break;
        }
    }
    match rustix::process::waitpid(Some(first), WaitOptions::empty()) {
        Ok(Some((_, status))) if status.exit_status() == Some(0) => None,
        Ok(Some((_, status))) => lost(match status.terminating_signal() {
            Some(signal) => format!("signal {signal} ended the namespace's PID 1"),
            None => format!(
                "the namespace's PID 1 ended with {:?}",
                status.exit_status()
            ),
        }),
        other => lost(format!(
            "could not wait for the namespace's PID 1: {other:?}"
        )),
    }
}

/// Lets go of the job's outputs: while this process holds them they have no end.
fn release_outputs() {
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

/// The supervisor's end of the socket to the node.
pub(super) struct Control {
    pub(super) socket: OwnedFd,
    received: Vec<u8>,
}

impl Control {
    fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            received: Vec::new(),
        }
    }

    fn report(&self, report: &Report) -> io::Result<()> {
        let frame = report.to_frame();
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            let flags = rustix::net::SendFlags::NOSIGNAL;
            let count = rustix::io::retry_on_intr(|| rustix::net::send(&self.socket, rest, flags))?;
            rest = &rest[count..];
        }
        Ok(())
    }

    /// Waits for the next order.
    fn order(&mut self) -> io::Result<Order> {
        loop {
            if let Some(order) = self.received_order()? {
                return Ok(order);
            }
            self.receive()?;
        }
    }

    /// Returns an order that has arrived in whole.
    fn received_order(&mut self) -> io::Result<Option<Order>> {
        let frame = wire::take_frame(&mut self.received).map_err(io::Error::other)?;
        let order = frame.map(|(tag, body)| Order::parse(tag, &body));
        order.transpose().map_err(io::Error::other)
    }

    /// Reads once; an end is an error.
    fn receive(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.socket, &mut buffer))? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.received.extend(&buffer[..count]);
                Ok(())
            }
        }
    }
}

/// Where the job runs, checked: the kernel's error for a missing directory would read as if the program were
/// missing.
fn check_directory(path: &Path) -> Result<(), String> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(format!("its working directory {shown} is not a directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(format!("its working directory {shown} does not exist"))
        }
        Err(error) => Err(format!("its working directory {shown}: {error}")),
    }
}
