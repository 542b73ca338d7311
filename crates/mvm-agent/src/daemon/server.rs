//! The loop: one `poll` over the channel, the signals and what the streams wait for.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, getpid, set_child_subreaper, wait};

use super::at_hand::AtHand;
use super::conversation::{Belongings, Conversation, Demand};
use super::outbox::Outbox;
use super::services::{Place, Services};
use super::share::Share;
use super::sys;
use super::work::refusal;
use crate::protocol::{
    self, ExitStatus, Failure, GuestInfo, Hello, HelloBack, MachineEnd, Nonce, Packet, ToGuest,
    VERSION,
};
use crate::wire::Decoder;

const READ_BYTES: usize = 64 * 1024;
/// A virtio port whose host end is closed reports that for ever; it is looked at again this often.
const HOST_ABSENT_INTERVAL: Duration = Duration::from_millis(50);
/// How long the last answer may take on its way out before the machine ends.
const FAREWELL_ALLOWED: Duration = Duration::from_secs(1);

/// What the daemon may do with the machine it runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Authority {
    /// It is PID 1.
    Init,
    /// It is a service of a machine of ours.
    Service,
    /// It runs on somebody's host, for a test.
    Hosted,
}

impl Authority {
    /// What commands get besides the agent's own environment.
    pub(super) fn environment(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Init | Self::Service => &[
                (
                    "PATH",
                    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                ),
                ("HOME", "/root"),
            ],
            Self::Hosted => &[],
        }
    }

    /// Refuses what only works in a machine of ours whose PID 1 is systemd.
    pub(super) fn check_systemd(self) -> Result<(), Failure> {
        match self {
            Self::Service => Ok(()),
            Self::Init | Self::Hosted => {
                Err(refusal("let services go", "no systemd holds any back here"))
            }
        }
    }

    /// Refuses what only the machine's own agent may do.
    pub(super) fn check_owner(self, operation: &str) -> Result<(), Failure> {
        match self {
            Self::Init | Self::Service => Ok(()),
            Self::Hosted => Err(refusal(operation, "this agent is a guest on its host")),
        }
    }
}

/// Why the loop ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    EndMachine(MachineEnd),
    HungUp,
    Stopped,
}

pub(super) struct Server {
    port: OwnedFd,
    signals: OwnedFd,
    authority: Authority,
    decoder: Decoder,
    outbox: Outbox,
    conversation: Option<Conversation>,
    /// The last conversation ended in order: nothing is said before the next greeting.
    parted: bool,
    services: Services,
    at_hand: Option<AtHand>,
    share: Option<Share>,
    guest: GuestInfo,
}

/// What one look at the channel told.
enum Heard {
    Something,
    HostAbsent,
}

impl Server {
    /// Takes a non-blocking channel.
    pub(super) fn new(port: OwnedFd, authority: Authority) -> io::Result<Self> {
        // What a command leaves behind when it ends is ours to reap, as it is for PID 1: only so is it known
        // when the number of its group is free.
        set_child_subreaper(Some(getpid()))?;
        let signals = match authority {
            // What BusyBox's `reboot`, `halt` and `poweroff` tell PID 1 by.
            Authority::Init => &[libc::SIGCHLD, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2][..],
            Authority::Service | Authority::Hosted => &[libc::SIGCHLD, libc::SIGTERM],
        };
        let signals = sys::signal_fd(signals)?;
        let mut outbox = Outbox::new();
        // A host that still believes in an earlier agent's conversation learns that it is over.
        outbox.gone(None);
        let (decoder, conversation, guest) = (Decoder::new(), None, guest_info());
        Ok(Self {
            port,
            signals,
            authority,
            decoder,
            outbox,
            conversation,
            parted: false,
            services: Services::new(),
            at_hand: None,
            share: None,
            guest,
        })
    }

    /// Gives it what the next identity takes, if nothing else is asked for before.
    pub(super) fn with_at_hand(self, at_hand: Option<AtHand>) -> Self {
        Self { at_hand, ..self }
    }

    pub(super) fn run(mut self) -> io::Result<Outcome> {
        let mut host_absent = false;
        loop {
            self.wait(host_absent)?;
            if let Some(end) = self.take_signals()? {
                return match self.authority {
                    Authority::Init => self.farewell(end),
                    Authority::Service | Authority::Hosted => Ok(Outcome::Stopped),
                };
            }
            if !self.outbox.is_overfull() {
                match self.listen()? {
                    Ok(Heard::Something) => host_absent = false,
                    Ok(Heard::HostAbsent) if self.authority == Authority::Hosted => {
                        return Ok(Outcome::HungUp);
                    }
                    Ok(Heard::HostAbsent) => host_absent = true,
                    Err(end) => return self.farewell(end),
                }
            }
            // In this order: followers send what was just read.
            let followed = self.followed();
            self.services.advance(&followed);
            if let Some(conversation) = &mut self.conversation {
                conversation.advance(Instant::now(), &self.services, &mut self.outbox);
            }
            if let Err(error) = self.outbox.flush(&self.port) {
                match self.authority {
                    Authority::Hosted => return Ok(Outcome::HungUp),
                    // The host will greet anew when it is back.
                    Authority::Init | Authority::Service
                        if error.kind() == io::ErrorKind::BrokenPipe => {}
                    Authority::Init | Authority::Service => return Err(error),
                }
            }
        }
    }

    /// Sleeps until something can be done.
    fn wait(&self, host_absent: bool) -> io::Result<()> {
        let mut interests = vec![PollFd::new(&self.signals, PollFlags::IN)];
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, !self.outbox.is_overfull());
        flags.set(PollFlags::OUT, !self.outbox.is_empty());
        if !host_absent {
            interests.push(PollFd::new(&self.port, flags));
        }
        if let Some(conversation) = &self.conversation {
            conversation.interests(&self.outbox, &mut interests);
        }
        let followed = self.followed();
        self.services.interests(&followed, &mut interests);
        let now = Instant::now();
        let conversation = self.conversation.as_ref();
        let deadline = conversation.and_then(|conversation| conversation.deadline(&self.outbox));
        let absent = host_absent.then(|| now + HOST_ABSENT_INTERVAL);
        let timeout = deadline
            .into_iter()
            .chain(self.services.deadline(&followed))
            .chain(absent)
            .min()
            .map(|until| timespec(until.saturating_duration_since(now)));
        match poll(&mut interests, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// How far the followers of services are.
    fn followed(&self) -> Vec<Place> {
        self.conversation
            .as_ref()
            .map_or_else(Vec::new, Conversation::followed)
    }

    /// Reaps what has ended; returns how the machine is to end if a signal asks for that.
    fn take_signals(&mut self) -> io::Result<Option<MachineEnd>> {
        let (mut end, mut is_signalled) = (None, false);
        // The number is the first field of the kernel's `struct signalfd_siginfo`, which has 128 bytes.
        let mut record = [0; 128];
        loop {
            match rustix::io::read(&self.signals, &mut record) {
                Ok(count) if count == record.len() => {
                    is_signalled = true;
                    let number = u32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
                    match number.cast_signed() {
                        libc::SIGTERM => end = Some(MachineEnd::Reboot),
                        libc::SIGUSR1 | libc::SIGUSR2 => end = Some(MachineEnd::PowerOff),
                        _ => {}
                    }
                }
                Ok(_) | Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        if !is_signalled {
            return Ok(None);
        }
        // Signals merge, so the children are asked, not the signals.
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let status = exit_status(status);
            self.services.reaped(pid, status);
            if let Some(conversation) = &mut self.conversation {
                conversation.reaped(&[(pid, status)]);
            }
        }
        Ok(end)
    }

    /// Reads once from the channel and does what it says. The inner error is the demand to end the machine.
    fn listen(&mut self) -> io::Result<Result<Heard, MachineEnd>> {
        let mut buffer = [0; READ_BYTES];
        let count = match rustix::io::read(&self.port, &mut buffer) {
            Ok(0) => return Ok(Ok(Heard::HostAbsent)),
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Ok(Heard::Something)),
            Err(Errno::CONNRESET | Errno::PIPE) => return Ok(Ok(Heard::HostAbsent)),
            Err(errno) => return Err(errno.into()),
        };
        let mut bytes = &buffer[..count];
        while let Some(content) = self.decoder.next(&mut bytes) {
            // What is not a packet of ours is the rest of one that was cut.
            let Ok(packet) = protocol::read_packet::<ToGuest>(&content) else {
                continue;
            };
            match self.take(packet) {
                Demand::Nothing => {}
                Demand::Part => {
                    self.conversation = None;
                    self.parted = true;
                }
                Demand::EndMachine(end) => return Ok(Err(end)),
            }
        }
        Ok(Ok(Heard::Something))
    }

    fn take(&mut self, packet: Packet<ToGuest>) -> Demand {
        match packet {
            Packet::Hello(hello) => self.greet(&hello),
            Packet::Frame(frame) => {
                let nonce = frame.nonce;
                let Some(conversation) = self
                    .conversation
                    .as_mut()
                    .filter(|current| current.nonce == nonce)
                else {
                    if !self.parted {
                        self.outbox.gone(Some(nonce));
                    }
                    return Demand::Nothing;
                };
                let mut belongings = Belongings {
                    services: &mut self.services,
                    at_hand: &mut self.at_hand,
                    share: &mut self.share,
                };
                let outbox = &mut self.outbox;
                match conversation.take(frame, Instant::now(), &mut belongings, outbox) {
                    Ok(demand) => return demand,
                    Err(_broken) => self.give_up(nonce),
                }
            }
            // Only guests say these.
            Packet::HelloBack(_) | Packet::Gone(_) => {}
        }
        Demand::Nothing
    }

    /// Answers a greeting; a new nonce begins a new conversation and ends the old one.
    fn greet(&mut self, hello: &Hello) {
        let matches = hello.version == VERSION;
        let back = HelloBack {
            version: VERSION,
            nonce: hello.nonce,
            guest: matches.then(|| self.guest.clone()),
        };
        let known = self
            .conversation
            .as_ref()
            .is_some_and(|current| current.nonce == hello.nonce);
        if known || !matches {
            self.outbox.hello_back(&back);
            return;
        }
        // The old conversation's commands are killed before the new one can ask for anything.
        self.conversation = None;
        self.conversation = Some(Conversation::new(hello.nonce, self.authority));
        self.parted = false;
        self.outbox.restart(&back);
    }

    fn give_up(&mut self, nonce: Nonce) {
        self.conversation = None;
        self.outbox.gone(Some(nonce));
    }

    /// Lets the last answer out.
    fn farewell(&mut self, end: MachineEnd) -> io::Result<Outcome> {
        let deadline = Instant::now() + FAREWELL_ALLOWED;
        while !self.outbox.is_empty() && Instant::now() < deadline {
            if self.outbox.flush(&self.port).is_err() {
                break;
            }
            let mut interests = [PollFd::new(&self.port, PollFlags::OUT)];
            let left = timespec(deadline.saturating_duration_since(Instant::now()));
            // A failing poll only makes this loop spin until its deadline.
            let _ = poll(&mut interests, Some(&left));
        }
        Ok(Outcome::EndMachine(end))
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

fn exit_status(status: WaitStatus) -> ExitStatus {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, signal) => ExitStatus::Signal(signal.unwrap_or(0)),
    }
}

fn guest_info() -> GuestInfo {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    GuestInfo {
        kernel_release: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        boot_id: boot_id.trim().to_owned(),
        is_init: getpid() == Pid::INIT,
    }
}
