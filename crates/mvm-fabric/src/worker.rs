//! The thread that moves frames between sockets and the segment.
//!
//! It waits in `epoll`, reads large batches, lets the segment decide, and writes what waits. Commands from
//! [`crate::Switch`] run between two batches, hence between two frames. The thread never blocks on a
//! machine: its own socket ends are non-blocking, and a machine that does not read only fills its queue.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType, sockopt};

use crate::deframer::{Deframer, MalformedLength};
use crate::rule::Port;
use crate::segment::Segment;
use crate::switch::AttachError;

/// A command runs on the thread, between two frames, and answers by a channel of its own.
pub(crate) type Command = Box<dyn FnOnce(&mut Worker) + Send>;

/// The event number of the descriptor that announces commands; ports have theirs from zero.
const WAKE: u64 = u64::MAX;

/// How many events are taken at once. More only delays the first port's egress.
const EVENTS_MAX: usize = 64;

/// Queues of this size are written before the next port is read, lest many senders in one round fill the
/// queue of a receiver that reads well.
const FLUSH_EARLY_BYTES: usize = 64 * 1024;

/// What a machine may have sent and we have not read. The kernel charges each small frame several times
/// its size, so its default holds some three hundred; it caps this at `net.core.wmem_max`.
const MACHINE_SEND_BUFFER_BYTES: usize = 1024 * 1024;

/// What we may have sent and a machine has not read. Smaller, because a cut cannot call these bytes back.
const SWITCH_SEND_BUFFER_BYTES: usize = 256 * 1024;

/// Our end of the connection to a machine.
#[derive(Debug)]
struct Socket {
    end: OwnedFd,
    deframer: Deframer,
    /// The kernel took less than all: wait until it says there is room.
    blocked: bool,
}

/// The state of the thread.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) segment: Segment,
    /// By port number; `None` while the port is down.
    sockets: Vec<Option<Socket>>,
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
        Ok(Worker {
            segment,
            sockets: Vec::new(),
            epoll,
            wake,
            commands,
        })
    }

    /// Works until the handle is dropped.
    pub(crate) fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        while self.run_commands() {
            self.flush(0);
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
    pub(crate) fn attach(&mut self, name: &str) -> Result<(Port, OwnedFd), AttachError> {
        let (socket, machine_end) = self.connect(self.sockets.len())?;
        let port = self.segment.add_port(name)?;
        assert_eq!(
            port.index(),
            self.sockets.len(),
            "ports are numbered in the order of attaching"
        );
        self.sockets.push(Some(socket));
        tracing::debug!(port = port.index(), name, "port attached");
        Ok((port, machine_end))
    }

    /// Replaces the connection of a port and gives the machine's end of the new one.
    pub(crate) fn reattach(&mut self, port: Port) -> Result<OwnedFd, AttachError> {
        let ports = self.sockets.len();
        if port.index() >= ports {
            return Err(AttachError::UnknownPort { port, ports });
        }
        let (socket, machine_end) = self.connect(port.index())?;
        self.disconnect(port);
        self.sockets[port.index()] = Some(socket);
        self.segment.raise(port);
        tracing::debug!(port = port.index(), name = %self.segment.name(port), "port attached again");
        Ok(machine_end)
    }

    /// Closes the connection of a port, if it has one.
    pub(crate) fn disconnect(&mut self, port: Port) {
        let Some(socket) = self.sockets[port.index()].take() else {
            return;
        };
        // Closing alone would do neither while a child forked elsewhere still holds a copy of our end. Both
        // fail only if the kernel did them before.
        let _ = epoll::delete(&self.epoll, &socket.end);
        let _ = rustix::net::shutdown(&socket.end, Shutdown::Both);
        self.segment.lower(port);
    }

    /// Runs the commands that wait; false once there can be no more.
    fn run_commands(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(command) => command(self),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Handles one event, commands first, so that a change waits for one batch and not for one round.
    fn handle(&mut self, event: epoll::Event) -> bool {
        if event.data.u64() == WAKE {
            // Only resets the descriptor: whoever woke us had sent the command before.
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
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
        self.flush(FLUSH_EARLY_BYTES);
        self.run_commands()
    }

    /// Reads one batch from a machine and forwards its frames.
    fn receive(&mut self, port: Port) {
        let Some(socket) = &mut self.sockets[port.index()] else {
            return;
        };
        match rustix::io::read(&socket.end, socket.deframer.space()) {
            Ok(0) => self.hang_up(port, None),
            Ok(bytes) => {
                socket.deframer.filled(bytes);
                self.forward(port, Instant::now());
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => self.hang_up(port, Some(error)),
        }
    }

    /// Forwards all whole frames received from a machine.
    fn forward(&mut self, port: Port, now: Instant) {
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
                    self.segment.count_malformed(port);
                    self.disconnect(port);
                    return;
                }
            }
        }
    }

    /// Writes the queues that hold more than `above` bytes, as far as machines take them.
    fn flush(&mut self, above: usize) {
        for port in self.segment.ports() {
            if self.segment.pending(port).len() > above {
                self.send(port);
            }
        }
    }

    fn send(&mut self, port: Port) {
        let Some(socket) = &mut self.sockets[port.index()] else {
            return;
        };
        if socket.blocked {
            return;
        }
        let pending = self.segment.pending(port);
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

    /// Makes a connection for the port of this number: our end, watched, and the machine's.
    fn connect(&self, index: usize) -> Result<(Socket, OwnedFd), AttachError> {
        self.try_connect(index)
            .map_err(|error| AttachError::Socket {
                source: error.into(),
            })
    }

    fn try_connect(&self, index: usize) -> Result<(Socket, OwnedFd), Errno> {
        let (end, machine_end) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::io::ioctl_fionbio(&end, true)?;
        // The receiving side of a Unix socket has no buffer of its own to enlarge.
        sockopt::set_socket_send_buffer_size(&end, SWITCH_SEND_BUFFER_BYTES)?;
        sockopt::set_socket_send_buffer_size(&machine_end, MACHINE_SEND_BUFFER_BYTES)?;
        epoll::add(&self.epoll, &end, event_data(index), EventFlags::IN)?;
        Ok((
            Socket {
                end,
                deframer: Deframer::new(),
                blocked: false,
            },
            machine_end,
        ))
    }
}

fn event_data(index: usize) -> EventData {
    EventData::new_u64(index as u64)
}
