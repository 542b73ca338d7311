//! One conversation: its streams, their credit, and what each of them does.
//!
//! Packets and the channel are [`super::server`]'s; what a stream does is a [`Work`].

use std::collections::BTreeMap;
use std::time::Instant;

use rustix::event::PollFd;
use rustix::process::Pid;

use super::at_hand::AtHand;
use super::command::{self, Begun};
use super::follow::Follow;
use super::outbox::Outbox;
use super::services::{Place, Services};
use super::share::{Served, Share};
use super::tcp::{Dial, PortWait};
use super::terminal::TerminalWork;
use super::transfer::{Download, Upload};
use super::work::{Credit, Input, Kind, Outlet, Progress, Work, refusal};
use super::{identity, release, server::Authority};
use crate::protocol::{
    ExitStatus, Failure, Frame, MachineEnd, Nonce, Reply, Request, Run, STREAMS_MAX, StreamId,
    ToGuest, ToHost,
};

/// The conversation the host opened last. Dropping it kills its commands.
pub(super) struct Conversation {
    pub(super) nonce: Nonce,
    authority: Authority,
    next_sequence: u32,
    /// The highest stream opened so far; ids are never used twice.
    last_stream: u32,
    streams: BTreeMap<StreamId, Slot>,
    served: Option<Served>,
}

struct Slot {
    credit: Credit,
    work: Box<dyn Work>,
}

/// The host broke the protocol, or bytes were lost: the conversation cannot go on.
#[derive(Debug)]
pub(super) struct Broken;

/// What an accepted frame asks of the whole daemon.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Demand {
    Nothing,
    /// The conversation is over; its last word is said.
    Part,
    EndMachine(MachineEnd),
}

/// What belongs to the machine rather than to a conversation.
pub(super) struct Belongings<'a> {
    pub(super) services: &'a mut Services,
    pub(super) at_hand: &'a mut Option<AtHand>,
    pub(super) share: &'a mut Option<Share>,
}

/// What a request became.
enum Opened {
    Work(Box<dyn Work>),
    Answered(Reply),
    Parted,
    EndMachine(MachineEnd),
}

impl Conversation {
    pub(super) fn new(nonce: Nonce, authority: Authority) -> Self {
        Self {
            nonce,
            authority,
            next_sequence: 0,
            last_stream: 0,
            streams: BTreeMap::new(),
            served: None,
        }
    }

    /// Takes one frame of this conversation.
    pub(super) fn take(
        &mut self,
        frame: Frame<ToGuest>,
        now: Instant,
        belongings: &mut Belongings<'_>,
        outbox: &mut Outbox,
    ) -> Result<Demand, Broken> {
        if frame.sequence != self.next_sequence {
            return Err(Broken);
        }
        self.next_sequence = self.next_sequence.wrapping_add(1);
        let Frame {
            stream,
            message,
            payload,
            ..
        } = frame;
        if !payload.is_empty() && message != ToGuest::Data {
            return Err(Broken);
        }
        match message {
            ToGuest::Open(request) => return self.open(stream, request, now, belongings, outbox),
            ToGuest::Data => self.data(stream, payload)?,
            ToGuest::Grant(amount) => {
                if let Some(slot) = self.streams.get_mut(&stream) {
                    slot.credit.granted(amount).ok_or(Broken)?;
                }
            }
            ToGuest::End => self.input(stream, Input::End),
            ToGuest::Signal(signal) => self.input(stream, Input::Signal(signal)),
            ToGuest::Resize(size) => self.input(stream, Input::Resize(size)),
            ToGuest::Kill => self.input(stream, Input::Kill),
            ToGuest::Close => drop(self.streams.remove(&stream)),
            ToGuest::KeepAlive => {}
        }
        Ok(Demand::Nothing)
    }

    /// Lets every stream do what it can, and drops those that are done.
    pub(super) fn advance(&mut self, now: Instant, services: &Services, outbox: &mut Outbox) {
        self.streams.retain(|stream, slot| {
            let mut outlet = Outlet {
                stream: *stream,
                credit: &mut slot.credit,
                outbox,
            };
            match slot.work.advance(now, services, &mut outlet) {
                Ok(Progress::Going) => return true,
                Ok(Progress::Done(reply)) => outlet.send(&ToHost::Done(reply)),
                Err(failure) => outlet.send(&ToHost::Failed(failure)),
            }
            false
        });
    }

    pub(super) fn interests<'a>(&'a self, outbox: &Outbox, interests: &mut Vec<PollFd<'a>>) {
        for slot in self.streams.values() {
            slot.work.interests(slot.credit.room(outbox) > 0, interests);
        }
    }

    pub(super) fn deadline(&self, outbox: &Outbox) -> Option<Instant> {
        self.streams
            .values()
            .filter_map(|slot| slot.work.deadline(slot.credit.room(outbox) > 0))
            .min()
    }

    /// How far its followers are.
    pub(super) fn followed(&self) -> Vec<Place> {
        self.streams
            .values()
            .filter_map(|slot| slot.work.followed())
            .collect()
    }

    pub(super) fn reaped(&mut self, ended: &[(Pid, ExitStatus)]) {
        for slot in self.streams.values_mut() {
            slot.work.reaped(ended);
        }
    }

    fn open(
        &mut self,
        stream: StreamId,
        request: Request,
        now: Instant,
        belongings: &mut Belongings<'_>,
        outbox: &mut Outbox,
    ) -> Result<Demand, Broken> {
        if stream.0 <= self.last_stream {
            return Err(Broken);
        }
        self.last_stream = stream.0;
        let opened = if self.streams.len() >= STREAMS_MAX {
            Err(refusal(
                "open a stream",
                format!("{STREAMS_MAX} are open already"),
            ))
        } else {
            self.begin(stream, request, now, belongings)
        };
        match opened {
            Ok(Opened::Work(work)) => {
                self.streams.insert(
                    stream,
                    Slot {
                        credit: Credit::new(),
                        work,
                    },
                );
            }
            Ok(Opened::Answered(reply)) => outbox.frame(stream, &ToHost::Done(reply), &[]),
            Ok(Opened::Parted) => {
                outbox.frame(stream, &ToHost::Done(Reply::Parted), &[]);
                return Ok(Demand::Part);
            }
            Ok(Opened::EndMachine(end)) => {
                outbox.frame(stream, &ToHost::Done(Reply::Nothing), &[]);
                return Ok(Demand::EndMachine(end));
            }
            Err(failure) => outbox.frame(stream, &ToHost::Failed(failure), &[]),
        }
        Ok(Demand::Nothing)
    }

    fn begin(
        &mut self,
        stream: StreamId,
        request: Request,
        now: Instant,
        belongings: &mut Belongings<'_>,
    ) -> Result<Opened, Failure> {
        let Belongings {
            services,
            at_hand,
            share,
        } = belongings;
        let is_prepared = match at_hand {
            Some(at_hand) if self.authority.is_changed_by(&request) => {
                std::mem::take(&mut at_hand.is_current)
            }
            Some(_) | None => false,
        };
        Ok(match request {
            Request::Ping => Opened::Answered(Reply::Nothing),
            Request::Run(run) => self.run(&run)?,
            Request::Terminal(run) => {
                let work = TerminalWork::begin(&run, self.authority.environment())?;
                Opened::Work(Box::new(work))
            }
            Request::Upload { path, mode } => {
                Opened::Work(Box::new(Upload::begin(&path, mode, stream)?))
            }
            Request::Download { path } => Opened::Work(Box::new(Download::begin(&path)?)),
            Request::WaitForPort {
                host,
                port,
                timeout,
            } => Opened::Work(Box::new(PortWait::begin(host, port, timeout, now))),
            Request::Dial(address) => Opened::Work(Box::new(Dial::begin(address)?)),
            Request::Configure { identity, entropy } => {
                self.authority.check_owner("configure the machine")?;
                let at_hand = at_hand.as_ref().filter(|_| is_prepared);
                identity::assume(&identity, &entropy, at_hand)?;
                Opened::Answered(Reply::Nothing)
            }
            Request::MountShared => {
                self.authority.check_owner("mount a file system")?;
                mounted(share)?;
                Opened::Answered(Reply::Nothing)
            }
            Request::Share { session } => {
                self.authority.check_owner("mount a file system")?;
                // The port is for one at a time.
                self.served = None;
                self.served = Some(mounted(share)?.serve(session));
                Opened::Answered(Reply::Nothing)
            }
            Request::SetClock { since_epoch } => {
                self.authority.check_owner("set the clock")?;
                identity::set_clock(since_epoch)?;
                Opened::Answered(Reply::Nothing)
            }
            Request::Renew => {
                self.authority.check_systemd()?;
                release::renew()?;
                Opened::Answered(Reply::Nothing)
            }
            Request::Release => {
                self.authority.check_systemd()?;
                release::release()?;
                Opened::Answered(Reply::Nothing)
            }
            Request::Reseed { entropy } => {
                self.authority
                    .check_owner("reseed the kernel's random pool")?;
                identity::reseed(&entropy, at_hand.as_ref())?;
                Opened::Answered(Reply::Nothing)
            }
            Request::StartService { name, program } => {
                let leader = services.start(name, &program, self.authority.environment())?;
                Opened::Answered(Reply::Service {
                    pid: leader.as_raw_nonzero().get(),
                })
            }
            Request::FollowService { name, offset } => {
                Opened::Work(Box::new(Follow::begin(services.place(&name, offset)?)))
            }
            Request::SignalService { name, signal } => {
                services.signal(&name, signal)?;
                Opened::Answered(Reply::Nothing)
            }
            Request::Services => Opened::Answered(Reply::Services(services.list())),
            Request::Part => {
                self.check_idle()?;
                Opened::Parted
            }
            Request::End(end) => {
                self.authority.check_owner("end the machine")?;
                Opened::EndMachine(end)
            }
        })
    }

    fn run(&self, run: &Run) -> Result<Opened, Failure> {
        Ok(match command::begin(run, self.authority.environment())? {
            Begun::Attached(work) => Opened::Work(Box::new(work)),
            Begun::Detached(pid) => Opened::Answered(Reply::Detached {
                pid: pid.as_raw_nonzero().get(),
            }),
        })
    }

    /// Refuses to part while something is under way that would be cut off.
    fn check_idle(&self) -> Result<(), Failure> {
        let open: Vec<String> = [
            (Kind::Command, "command", "commands"),
            (Kind::Terminal, "terminal", "terminals"),
            (Kind::Transfer, "transfer", "transfers"),
            (Kind::PortWait, "wait for a port", "waits for ports"),
            (Kind::Connection, "connection", "connections"),
        ]
        .into_iter()
        .filter_map(|(kind, one, many)| {
            let streams = self.streams.values();
            match streams.filter(|slot| slot.work.kind() == kind).count() {
                0 => None,
                1 => Some(format!("1 {one}")),
                count => Some(format!("{count} {many}")),
            }
        })
        .collect();
        if open.is_empty() {
            return Ok(());
        }
        Err(refusal(
            "end the conversation",
            format!("still open: {}", open.join(", ")),
        ))
    }

    fn data(&mut self, stream: StreamId, payload: Vec<u8>) -> Result<(), Broken> {
        // Data may be under way when a stream ends on this side.
        if let Some(slot) = self.streams.get_mut(&stream) {
            slot.credit.charge(payload.len()).ok_or(Broken)?;
            slot.work.input(Input::Data(payload));
        }
        Ok(())
    }

    fn input(&mut self, stream: StreamId, input: Input) {
        if let Some(slot) = self.streams.get_mut(&stream) {
            slot.work.input(input);
        }
    }
}

/// The folder in common, mounted anew where it is there no longer.
fn mounted(share: &mut Option<Share>) -> Result<&Share, Failure> {
    let there = share.take().filter(|share| !share.is_over());
    Ok(share.insert(there.map_or_else(Share::mount, Ok)?))
}

impl Authority {
    /// Whether what was prepared for an identity may be of no use after this request. Where the agent is a service, the
    /// machine does much by itself that never concerns it: the cards, of which alone that is prepared.
    fn is_changed_by(self, request: &Request) -> bool {
        match self {
            Authority::Service => matches!(request, Request::Configure { .. }),
            Authority::Init | Authority::Hosted => changes_machine(request),
        }
    }
}

/// Whether the machine may be another one after this request: names, cards and files are not as they were.
fn changes_machine(request: &Request) -> bool {
    match request {
        Request::Run(_)
        | Request::Terminal(_)
        | Request::Upload { .. }
        | Request::StartService { .. }
        | Request::SignalService { .. }
        | Request::Renew
        | Request::Release
        | Request::Configure { .. } => true,
        Request::Ping
        | Request::Download { .. }
        | Request::WaitForPort { .. }
        | Request::Dial(_)
        | Request::MountShared
        | Request::Share { .. }
        | Request::SetClock { .. }
        | Request::Reseed { .. }
        | Request::FollowService { .. }
        | Request::Services
        | Request::Part
        | Request::End(_) => false,
    }
}
