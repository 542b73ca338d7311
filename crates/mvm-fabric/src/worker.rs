//! The thread that moves frames between sockets and the segment.
//!
//! It waits in `epoll`, reads large batches, lets the segment decide, and writes what waits. Commands from
//! [`crate::Switch`] run between two batches, hence between two frames. The thread never blocks on a
//! machine: its own socket ends are non-blocking, and a machine that does not read only fills its queue.
//!
//! Frames in flight wake it by a timer, see `worker::clock`. Sockets are made and measured in `socket`. What a held
//! switch does otherwise is in `worker::checkpoint`, what is done for packet captures in `worker::taps`.

mod checkpoint;
mod clock;
mod taps;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown};

use self::clock::{Alarm, Clock};
use crate::deframer::{Deframer, MalformedLength};
use crate::link::{Port, Vlan};
use crate::segment::Segment;
use crate::socket::{self, Connection};
use crate::switch::AttachError;
use crate::taps::Taps;

/// A command runs on the thread, between two frames, and answers by a channel of its own.
pub(crate) type Command = Box<dyn FnOnce(&mut Worker) + Send>;

/// The event number of the descriptor that announces commands; ports have theirs from zero.
const WAKE: u64 = u64::MAX;

/// The event number of the descriptor that announces frames due.
const ALARM: u64 = u64::MAX - 1;

/// How many frames that are due are queued before queues are written, lest they fill.
const DUE_FRAMES_MAX: usize = 64;

/// How many events are taken at once. More only delays the first port's egress.
const EVENTS_MAX: usize = 64;

/// Queues of this size are written before the next port is read, lest many senders in one round fill the
/// queue of a receiver that reads well.
const FLUSH_EARLY_BYTES: usize = 64 * 1024;

/// Our end of the connection to a machine.
#[derive(Debug)]
struct Socket {
    end: OwnedFd,
    deframer: Deframer,
    /// The kernel took less than all: wait until it says there is room.
    blocked: bool,
}

impl Socket {
    fn new(end: OwnedFd, deframer: Deframer) -> Socket {
        Socket {
            end,
            deframer,
            blocked: false,
        }
    }
}

/// The state of the thread.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) segment: Segment,
    /// By port number; `None` while the port is down.
    sockets: Vec<Option<Socket>>,
    /// While it stands the switch is held: nothing is sent but the rest of frames begun.
    clock: Clock,
    alarm: Alarm,
    /// Of ports that were restored and have no connection yet: the beginning of a frame received.
    partial: BTreeMap<Port, Vec<u8>>,
    taps: Taps,
    /// How many there ever were.
    taps_made: u64,
    /// The handle is dropped.
    stopping: bool,
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
    commands: Receiver<Command>,
}

impl Worker {
    pub(crate) fn new(
        segment: Segment,
        wake: Arc<OwnedFd>,
        commands: Receiver<Command>,
    ) -> io::Result<Worker> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        let alarm = Alarm::new()?;
        let number = EventData::new_u64(ALARM);
        epoll::add(&epoll, alarm.descriptor(), number, EventFlags::IN)?;
        Ok(Worker {
            sockets: segment.ports().map(|_| None).collect(),
            segment,
            clock: Clock::new(),
            alarm,
            partial: BTreeMap::new(),
            taps: Taps::default(),
            taps_made: 0,
            stopping: false,
            epoll,
            wake,
            commands,
        })
    }

    /// Makes the command that runs this the last one.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
    }

    /// Works until it is stopped.
    pub(crate) fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        while self.run_commands() {
            self.deliver_due();
            self.flush(0);
            if let Err(error) = self.set_alarm() {
                tracing::error!(%error, "the switch stops: could not set its timer");
                return;
            }
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                None,
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "the switch stops: could not wait for events");
                    return;
                }
            }
            for event in &events {
                if !self.handle(*event) {
                    return;
                }
            }
        }
    }

    /// Adds a port with a new connection and gives the machine's end of it.
    pub(crate) fn attach(
        &mut self,
        vlan: Vlan,
        name: &str,
    ) -> Result<(Port, OwnedFd), AttachError> {
        let Connection {
            switch_end,
            machine_end,
        } = connection()?;
        let end = self
            .watch(switch_end, self.sockets.len())
            .map_err(socket_error)?;
        let port = self.segment.add_port_in(vlan, name)?;
        assert_eq!(
            port.index(),
            self.sockets.len(),
            "ports are numbered in the order of attaching"
        );
        self.sockets.push(Some(Socket::new(end, Deframer::new())));
        tracing::debug!(port = port.index(), name, "port attached");
        Ok((port, machine_end))
    }

    /// Replaces the connection of a port and gives the machine's end of the new one.
    pub(crate) fn reattach(&mut self, port: Port) -> Result<OwnedFd, AttachError> {
        self.check_port(port)?;
        let Connection {
            switch_end,
            machine_end,
        } = connection()?;
        let end = self.watch(switch_end, port.index()).map_err(socket_error)?;
        self.replace(port, end);
        Ok(machine_end)
    }

    /// Replaces the connection of a port by one that was made elsewhere.
    pub(crate) fn adopt(&mut self, port: Port, end: OwnedFd) -> Result<(), AttachError> {
        self.check_port(port)?;
        let end = socket::prepare(&end)
            .and_then(|()| self.watch(end, port.index()))
            .map_err(|error| AttachError::Adopt {
                source: error.into(),
            })?;
        self.replace(port, end);
        Ok(())
    }

    /// Takes a port down at the caller's wish, also one that was restored and awaits its machine.
    pub(crate) fn detach(&mut self, port: Port) {
        self.disconnect(port);
        self.partial.remove(&port);
        self.segment.lower(port);
    }

    fn check_port(&self, port: Port) -> Result<(), AttachError> {
        let ports = self.sockets.len();
        if port.index() < ports {
            Ok(())
        } else {
            Err(AttachError::UnknownPort { port, ports })
        }
    }

    /// Gives a port a connection that is watched already, in the place of one it may have. What a restored
    /// port awaits its machine with is kept: frames that wait, and the beginning of one it has sent.
    fn replace(&mut self, port: Port, end: OwnedFd) {
        self.disconnect(port);
        let partial = self.partial.remove(&port).unwrap_or_default();
        self.sockets[port.index()] = Some(Socket::new(end, Deframer::resume(&partial)));
        self.segment.raise(port);
        tracing::debug!(port = port.index(), name = %self.segment.name(port), "port attached again");
    }

    /// Closes the connection of a port, if it has one.
    fn disconnect(&mut self, port: Port) {
        let Some(socket) = self.sockets[port.index()].take() else {
            return;
        };
        // Closing alone would do neither while a child forked elsewhere still holds a copy of our end. Both
        // fail only if the kernel did them before.
        let _ = epoll::delete(&self.epoll, &socket.end);
        let _ = rustix::net::shutdown(&socket.end, Shutdown::Both);
        self.segment.lower(port);
    }

    /// Runs the commands that wait; false once it is stopped.
    fn run_commands(&mut self) -> bool {
        while !self.stopping {
            match self.commands.try_recv() {
                Ok(command) => command(self),
                Err(TryRecvError::Empty) => return true,
                // Whoever drops the last sender has sent the command to stop before.
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        false
    }

    /// Handles one event, commands first, so that a change waits for one batch and not for one round.
    fn handle(&mut self, event: epoll::Event) -> bool {
        if event.data.u64() == WAKE {
            // Only resets the descriptor: whoever woke us had sent the command before.
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
            return self.run_commands();
        }
        if event.data.u64() == ALARM {
            self.alarm.forget();
            self.deliver_due();
            return self.run_commands();
        }
        let port = Port(event.data.u64() as u32);
        // Copied out, for the structure is packed as the kernel's is.
        let flags = event.flags;
        if flags.contains(EventFlags::OUT) {
            self.unblock(port);
        }
        // An error or hang-up may belong to a connection that a command has replaced since. Reading finds
        // out: from the right one it gets the last frames and then the end.
        self.receive(port);
        self.deliver_due();
        self.flush(FLUSH_EARLY_BYTES);
        self.run_commands()
    }

    /// Queues the frames in flight that are due. Those of a held switch are not, for its clock stands.
    fn deliver_due(&mut self) {
        // Spares most switches a look at the clock.
        let Some(due) = self.segment.next_due() else {
            return;
        };
        let now = self.clock.now();
        if due > now {
            return;
        }
        while self.segment.advance(now, DUE_FRAMES_MAX) == DUE_FRAMES_MAX {
            self.flush(FLUSH_EARLY_BYTES);
        }
    }

    fn set_alarm(&mut self) -> io::Result<()> {
        let due = self
            .segment
            .next_due()
            .filter(|_| !self.clock.is_standing());
        self.alarm.set(due, self.clock.now())
    }

    /// Reads one batch from a machine and forwards its frames. Gives the number of bytes read.
    fn receive(&mut self, port: Port) -> usize {
        let Some(socket) = &mut self.sockets[port.index()] else {
            return 0;
        };
        match rustix::io::read(&socket.end, socket.deframer.space()) {
            Ok(0) => self.hang_up(port, None),
            Ok(bytes) => {
                socket.deframer.filled(bytes);
                self.forward(port, self.clock.now());
                return bytes;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => self.hang_up(port, Some(error)),
        }
        0
    }

    /// Forwards all whole frames received from a machine.
    fn forward(&mut self, port: Port, now: Duration) {
        let Some(socket) = &mut self.sockets[port.index()] else {
            return;
        };
        loop {
            match socket.deframer.next_frame() {
                Ok(Some(frame)) => self.segment.forward(port, frame, now),
                Ok(None) => return,
                Err(MalformedLength(length)) => {
                    // A machine can cause this once per connection, so there is no need to limit the rate.
                    tracing::warn!(
                        port = port.index(),
                        name = %self.segment.name(port),
                        length,
                        "port taken down: malformed frame length from its machine"
                    );
                    self.segment.count_malformed(port, socket.deframer.rest());
                    self.disconnect(port);
                    return;
                }
            }
        }
    }

    /// Writes the queues that hold more than `above` bytes, as far as machines take them.
    fn flush(&mut self, above: usize) {
        for port in self.segment.ports() {
            if self.sendable(port).len() > above {
                self.send(port);
            }
        }
    }

    /// What may be sent to a machine now.
    fn sendable(&self, port: Port) -> &[u8] {
        if self.clock.is_standing() {
            self.segment.begun(port)
        } else {
            self.segment.pending(port)
        }
    }

    fn send(&mut self, port: Port) {
        let Some(socket) = &self.sockets[port.index()] else {
            return;
        };
        if socket.blocked {
            return;
        }
        let pending = self.sendable(port);
        let sent = match rustix::net::send(&socket.end, pending, SendFlags::NOSIGNAL) {
            Ok(bytes) => bytes,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(error) => return self.hang_up(port, Some(error)),
        };
        let blocked = sent < pending.len();
        self.segment.sent(port, sent);
        if blocked {
            self.set_blocked(port, true);
        }
    }

    fn unblock(&mut self, port: Port) {
        self.set_blocked(port, false);
        self.send(port);
    }

    /// Starts or stops waiting for room in the kernel's buffer.
    fn set_blocked(&mut self, port: Port, blocked: bool) {
        let Some(socket) = &mut self.sockets[port.index()] else {
            return;
        };
        if socket.blocked == blocked {
            return;
        }
        socket.blocked = blocked;
        let interest = if blocked {
            EventFlags::IN | EventFlags::OUT
        } else {
            EventFlags::IN
        };
        if let Err(error) =
            epoll::modify(&self.epoll, &socket.end, event_data(port.index()), interest)
        {
            self.hang_up(port, Some(error));
        }
    }

    fn hang_up(&mut self, port: Port, error: Option<Errno>) {
        tracing::debug!(port = port.index(), name = %self.segment.name(port), ?error, "port down");
        self.disconnect(port);
    }

    /// Makes our end of a connection announce what arrives, as the port of this number.
    fn watch(&self, end: OwnedFd, index: usize) -> Result<OwnedFd, Errno> {
        epoll::add(&self.epoll, &end, event_data(index), EventFlags::IN)?;
        Ok(end)
    }
}

fn connection() -> Result<Connection, AttachError> {
    Connection::new().map_err(|source| AttachError::Socket { source })
}

fn socket_error(error: Errno) -> AttachError {
    AttachError::Socket {
        source: error.into(),
    }
}

fn event_data(index: usize) -> EventData {
    EventData::new_u64(index as u64)
}
