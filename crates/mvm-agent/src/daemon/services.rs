//! Services: named processes that belong to the daemon and not to a conversation.
//!
//! The daemon reads each service's output into a [`Backlog`]. Who follows a service, and how far, is the
//! conversation's knowledge ([`super::follow`]); it is asked anew in every round, so that a follower that
//! is gone holds nothing back. Starting the process is [`super::command`]'s business.

use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, test_kill_process_group};

use super::backlog::Backlog;
use super::command;
use super::sys;
use super::work::{failure, refusal};
use crate::protocol::{
    ExitStatus, Failure, Program, SERVICE_NAME_BYTES_MAX, SERVICES_MAX, ServiceInfo, ServiceState,
    WINDOW, is_service_name,
};

/// What one service is read at a time: what a pipe holds unless told otherwise.
const READ_BYTES: usize = 64 * 1024;

/// One start of a service. A service that is started again is another one, which may have the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ServiceId(u64);

/// How far somebody was sent a service's output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) service: ServiceId,
    pub(super) offset: u64,
}

/// All services. Dropping it kills them.
#[derive(Debug)]
pub(super) struct Services {
    /// In the order of their start.
    table: Vec<Service>,
    started: u64,
}

#[derive(Debug)]
struct Service {
    id: ServiceId,
    name: String,
    /// The first process, which is the leader of its group.
    leader: Pid,
    /// Nobody is left in the group, so that its number may be somebody else's by now.
    group_gone: bool,
    status: Option<ExitStatus>,
    /// The end of the pipe that the service writes to; absent once nobody has the other end.
    output: Option<OwnedFd>,
    /// All that the leader wrote is in the backlog: its pipe was found empty after its end.
    drained: bool,
    backlog: Backlog,
    /// Another one has its name; it stays only as long as somebody follows it.
    replaced: bool,
}

impl Services {
    pub(super) fn new() -> Self {
        Self {
            table: Vec::new(),
            started: 0,
        }
    }

    /// Starts a service. One of this name that ended makes room for it: what is left of its group is killed,
    /// because nobody could name it any more.
    pub(super) fn start(
        &mut self,
        name: String,
        program: &Program,
        base: &[(&str, &str)],
    ) -> Result<Pid, Failure> {
        let operation = || format!("start the service `{name}`");
        if !is_service_name(&name) {
            return Err(refusal(
                operation(),
                format!("a name is 1 to {SERVICE_NAME_BYTES_MAX} of a-z A-Z 0-9 . _ @ -"),
            ));
        }
        let is_full = self.named().count() >= SERVICES_MAX;
        match self.find(&name) {
            Some(old) if old.status.is_none() => {
                return Err(refusal(
                    operation(),
                    format!("it runs already, as process {}", old.pid()),
                ));
            }
            Some(old) => old.kill(),
            None if is_full => {
                return Err(refusal(
                    operation(),
                    format!("there are {SERVICES_MAX} services already"),
                ));
            }
            None => {}
        }
        let (leader, output) = launch(program, base).map_err(|failure| Failure {
            operation: format!("{}, that is, {}", operation(), failure.operation),
            cause: failure.cause,
        })?;
        if let Some(old) = self.find(&name) {
            old.replaced = true;
        }
        self.started += 1;
        self.table.push(Service {
            id: ServiceId(self.started),
            name,
            leader,
            group_gone: false,
            status: None,
            output: Some(output),
            drained: false,
            backlog: Backlog::default(),
            replaced: false,
        });
        Ok(leader)
    }

    /// The place in the output of a service that is nearest to `offset`.
    pub(super) fn place(&mut self, name: &str, offset: u64) -> Result<Place, Failure> {
        let operation = || format!("follow the service `{name}`");
        let service = self.find(name).ok_or_else(|| unknown(operation()))?;
        Ok(Place {
            service: service.id,
            offset: service.backlog.nearest(offset),
        })
    }

    /// Sends a signal to the group of a service; `ESRCH` once nobody is left of it.
    pub(super) fn signal(&mut self, name: &str, signal: i32) -> Result<(), Failure> {
        let operation = || format!("send signal {signal} to the service `{name}`");
        let service = self.find(name).ok_or_else(|| unknown(operation()))?;
        service
            .signal(signal)
            .map_err(|error| failure(operation(), &error))
    }

    pub(super) fn list(&self) -> Vec<ServiceInfo> {
        let info = |service: &Service| ServiceInfo {
            name: service.name.clone(),
            pid: service.pid(),
            state: service
                .status
                .map_or(ServiceState::Running, ServiceState::Ended),
            output_offset: service.backlog.end(),
        };
        self.named().map(info).collect()
    }

    /// A piece of a service's output, of at most `bytes_max` bytes; empty when there is no more by now.
    pub(super) fn piece(&self, place: Place, bytes_max: usize) -> &[u8] {
        self.followed(place.service)
            .backlog
            .piece(place.offset, bytes_max)
    }

    /// How a service ended, if all that it wrote lies before `place`.
    pub(super) fn ended_before(&self, place: Place) -> Option<ExitStatus> {
        let service = self.followed(place.service);
        service
            .status
            .filter(|_| service.drained && place.offset == service.backlog.end())
    }

    pub(super) fn interests<'a>(&'a self, followed: &[Place], interests: &mut Vec<PollFd<'a>>) {
        for service in &self.table {
            if let Some(output) = service
                .output
                .as_ref()
                .filter(|_| service.room(followed) > 0)
            {
                interests.push(PollFd::new(output, PollFlags::IN));
            }
        }
    }

    /// When [`Services::advance`] is due even if no output is ready: at once where it is to be found out
    /// that there is no more.
    pub(super) fn deadline(&self, followed: &[Place]) -> Option<Instant> {
        self.table
            .iter()
            .any(|service| {
                service.status.is_some() && !service.drained && service.room(followed) > 0
            })
            .then(Instant::now)
    }

    /// Reads what the services wrote, and forgets those that are replaced.
    pub(super) fn advance(&mut self, followed: &[Place]) {
        self.table.retain(|service| {
            !service.replaced || followed.iter().any(|place| place.service == service.id)
        });
        for service in &mut self.table {
            service.read(service.room(followed));
        }
    }

    /// Takes note of a child that ended. To be called right after each reaping, before any other process can
    /// have got the number of its group.
    pub(super) fn reaped(&mut self, pid: Pid, status: ExitStatus) {
        for service in &mut self.table {
            if service.leader == pid {
                // A later process that got the number of a leader that is gone leads no group of ours.
                service.status.get_or_insert(status);
            }
            if service.status.is_some() && is_group_gone(service.leader) {
                service.group_gone = true;
            }
        }
    }

    /// Those that can be named.
    fn named(&self) -> impl Iterator<Item = &Service> {
        self.table.iter().filter(|service| !service.replaced)
    }

    fn find(&mut self, name: &str) -> Option<&mut Service> {
        self.table
            .iter_mut()
            .find(|service| !service.replaced && service.name == name)
    }

    fn followed(&self, id: ServiceId) -> &Service {
        self.table
            .iter()
            .find(|service| service.id == id)
            .expect("a service stays while somebody follows it")
    }
}

impl Service {
    fn pid(&self) -> i32 {
        self.leader.as_raw_nonzero().get()
    }

    fn signal(&self, signal: i32) -> std::io::Result<()> {
        if self.group_gone {
            return Err(Errno::SRCH.into());
        }
        sys::signal_group(self.leader, signal)
    }

    fn kill(&self) {
        // The only failure is that everybody is gone.
        let _ = self.signal(libc::SIGKILL);
    }

    /// How much may be read now. Followers lose nothing: they hold back the pipe, and with it the service,
    /// once the backlog is full of what they have not got. What was sent to them counts as got when it is a
    /// window old, for until then it may still be on its way: a host that opens another conversation can
    /// go on from where it really was.
    fn room(&self, followed: &[Place]) -> usize {
        let places = followed.iter().filter(|place| place.service == self.id);
        let kept_from = places
            .map(|place| place.offset.saturating_sub(u64::from(WINDOW)))
            .min();
        self.backlog.room(kept_from.unwrap_or(u64::MAX))
    }

    fn read(&mut self, room: usize) {
        let Some(output) = &self.output else {
            self.drained = self.status.is_some();
            return;
        };
        if room == 0 {
            return;
        }
        let mut buffer = [0; READ_BYTES];
        match rustix::io::read(output, &mut buffer[..room.min(READ_BYTES)]) {
            Ok(count) if count > 0 => self.backlog.push(&buffer[..count]),
            Err(Errno::INTR) => {}
            // Others of the group may still write; what the leader wrote is all here.
            Err(Errno::AGAIN) => self.drained = self.status.is_some(),
            Ok(_) | Err(_) => {
                self.output = None;
                self.drained = self.status.is_some();
            }
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts the process with both outputs in one pipe, and returns its leader and our end of the pipe.
fn launch(program: &Program, base: &[(&str, &str)]) -> Result<(Pid, OwnedFd), Failure> {
    let mut command = command::prepare(program, base)?;
    let run = |error| failure(format!("run `{}`", program.name), &error);
    let (output, input) = pipe_with(PipeFlags::CLOEXEC)
        .and_then(|(output, input)| ioctl_fionbio(&output, true).map(|()| (output, input)))
        .map_err(|errno| run(errno.into()))?;
    let again = input.try_clone().map_err(run)?;
    command
        .stdin(std::process::Stdio::null())
        .stdout(input)
        .stderr(again);
    // The daemon reaps all its children itself, so the handle is good for nothing.
    let child = command.spawn().map_err(run)?;
    Ok((Pid::from_child(&child), output))
}

fn is_group_gone(leader: Pid) -> bool {
    test_kill_process_group(leader) == Err(Errno::SRCH)
}

fn unknown(operation: String) -> Failure {
    refusal(operation, "there is no service of this name")
}
