//! The handle of a running switch: starts the thread, sends it commands, stops it.
//!
//! What commands mean is in `segment`; how frames flow is in `worker`. Holding, capturing and restoring a
//! switch is in `switch::checkpoint`.

mod checkpoint;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};

use crate::counters::Counters;
use crate::rule::{Link, Port};
use crate::segment::{AddPortError, Limits, LinkError, Segment};
use crate::worker::{Command, Worker};

pub use checkpoint::{
    CaptureError, Drained, RestoreError, STATE_VERSION, SwitchState, Unread, UnreadError,
};

/// The thread of the switch has ended, after an error that it logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the switch has stopped; its log tells why")]
pub struct Stopped;

/// A machine could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There can be no such port.
    #[error(transparent)]
    Port(#[from] AddPortError),
    /// The port belongs to another switch.
    #[error("port number {} is not of this switch, which has {ports}", port.index())]
    UnknownPort {
        /// The port given.
        port: Port,
        /// How many ports there are.
        ports: usize,
    },
    /// The sockets could not be made.
    #[error("the pair of sockets between switch and machine could not be made")]
    Socket {
        /// What the kernel said.
        source: io::Error,
    },
    /// The descriptor given cannot be the switch's end of a connection.
    #[error("the descriptor given is no connected unix stream socket, or none that can be used")]
    Adopt {
        /// What the kernel said.
        source: io::Error,
    },
    /// The switch has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Links could not be changed; nothing was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The ports given make no sense.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The switch has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// A running Ethernet switch.
///
/// One thread forwards frames between the machines attached. All methods may be called from any thread.
/// They wait for that thread to finish the batch in its hands, well below a millisecond, which makes them
/// cheap enough to call from async code.
///
/// # When a change of links is in force
///
/// When the call returns. The [`Instant`] it returns lies between the last frame under the old links and
/// the first under the new ones. A frame sent by a machine and not yet read by the switch falls under the new
/// links. A frame that waits for its machine is dropped if its direction is now cut, with two exceptions:
/// what the kernel has already taken for the machine (bounded by the socket's buffer), and the rest
/// of a frame whose first bytes it has taken, because the machine could not tell frames apart otherwise.
#[derive(Debug)]
pub struct Switch {
    /// `None` only while dropping.
    commands: Option<Sender<Command>>,
    wake: Arc<OwnedFd>,
    /// `None` only while dropping.
    thread: Option<JoinHandle<()>>,
}

impl Switch {
    /// Starts a switch without ports, within [`Limits::DEFAULT`].
    ///
    /// # Errors
    ///
    /// If the kernel gives no descriptors or no thread.
    pub fn start() -> io::Result<Switch> {
        Switch::launch(Segment::new(Limits::DEFAULT), |worker| worker)
    }

    /// Starts the thread over a segment, with its worker as `prepare` makes it.
    fn launch(segment: Segment, prepare: impl FnOnce(Worker) -> Worker) -> io::Result<Switch> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (commands, receiver) = mpsc::channel();
        let worker = prepare(Worker::new(segment, Arc::clone(&wake), receiver)?);
        let thread = std::thread::Builder::new()
            .name("mvm-fabric".to_owned())
            .spawn(|| worker.run())?;
        Ok(Switch {
            commands: Some(commands),
            wake,
            thread: Some(thread),
        })
    }

    /// Adds a port and returns the machine's end of its connection, for QEMU's
    /// `-netdev stream,addr.type=fd,addr.str=N`.
    ///
    /// The end is close-on-exec: whoever spawns QEMU clears that in the child, and closes its own copy
    /// afterwards. As long as any copy is open, the port counts as up.
    /// A new port's links are all whole, even while others are partitioned.
    ///
    /// # Errors
    ///
    /// If the name is taken, the switch is full, or the kernel gives no sockets. Nothing is added then.
    pub fn attach(&self, name: &str) -> Result<(Port, OwnedFd), AttachError> {
        let name = name.to_owned();
        self.call(move |worker| worker.attach(&name))?
    }

    /// Gives a port a new connection, for the machine that replaces the one that died.
    ///
    /// An old connection still open is closed, and what waits for its machine is dropped. Name, links and
    /// counters stay; stations are forgotten.
    ///
    /// A port that awaits its machine since [`Switch::restore`] loses nothing the first time: what waits for
    /// it goes to the new connection, and what its machine had sent of a frame is taken to come before what
    /// the new connection sends.
    ///
    /// # Errors
    ///
    /// If the port is unknown or the kernel gives no sockets. The port is as before then.
    pub fn reattach(&self, port: Port) -> Result<OwnedFd, AttachError> {
        self.call(move |worker| worker.reattach(port))?
    }

    /// Takes a port down: its machine sees the connection end, and what waits for it is dropped. Does nothing
    /// to a port that is down.
    ///
    /// # Errors
    ///
    /// If the port is unknown.
    pub fn detach(&self, port: Port) -> Result<Instant, ChangeError> {
        self.call(move |worker| {
            worker.segment.check_port(port)?;
            worker.detach(port);
            Ok(Instant::now())
        })?
    }

    /// Finds a port by its name.
    ///
    /// # Errors
    ///
    /// If the switch has stopped.
    pub fn port(&self, name: &str) -> Result<Option<Port>, Stopped> {
        let name = name.to_owned();
        self.call(move |worker| worker.segment.port(&name))
    }

    /// Cuts both directions between two ports.
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn cut(&self, a: Port, b: Port) -> Result<Instant, ChangeError> {
        self.change(move |segment| segment.cut(a, b))
    }

    /// Cuts one direction: `to` no longer hears `from`.
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn cut_one_way(&self, from: Port, to: Port) -> Result<Instant, ChangeError> {
        self.change(move |segment| segment.cut_one_way(from, to))
    }

    /// Makes both directions between two ports whole, however they were cut.
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn heal(&self, a: Port, b: Port) -> Result<Instant, ChangeError> {
        self.change(move |segment| segment.heal(a, b))
    }

    /// Makes all directions whole.
    ///
    /// # Errors
    ///
    /// If the switch has stopped.
    pub fn heal_all(&self) -> Result<Instant, ChangeError> {
        self.change(|segment| {
            segment.heal_all();
            Ok(())
        })
    }

    /// Cuts both directions between one port and all others, and leaves the others alone.
    ///
    /// # Errors
    ///
    /// If the port is unknown.
    pub fn isolate(&self, one: Port) -> Result<Instant, ChangeError> {
        self.change(move |segment| segment.isolate(one))
    }

    /// Splits the machines: ports of different groups exchange no frames, ports of one group all do.
    ///
    /// Ports that are not named form one more group together. Earlier cuts are replaced, so one partition
    /// can follow another with no healed moment between.
    ///
    /// # Errors
    ///
    /// If a port is unknown or named twice.
    pub fn partition<G: AsRef<[Port]>>(&self, groups: &[G]) -> Result<Instant, ChangeError> {
        let groups: Vec<Vec<Port>> = groups.iter().map(|group| group.as_ref().to_vec()).collect();
        self.change(move |segment| segment.partition(&groups))
    }

    /// Tells whether one direction is cut.
    ///
    /// # Errors
    ///
    /// If a port is unknown or both are the same.
    pub fn is_cut(&self, link: Link) -> Result<bool, ChangeError> {
        Ok(self.call(move |worker| worker.segment.is_cut(link))??)
    }

    /// What all ports have seen so far, all at the same moment.
    ///
    /// # Errors
    ///
    /// If the switch has stopped.
    pub fn counters(&self) -> Result<Counters, Stopped> {
        self.call(|worker| worker.counters())
    }

    fn change<C>(&self, change: C) -> Result<Instant, ChangeError>
    where
        C: FnOnce(&mut Segment) -> Result<(), LinkError> + Send + 'static,
    {
        self.call(|worker| {
            change(&mut worker.segment)?;
            Ok(Instant::now())
        })?
    }

    /// Runs `action` on the thread, between two frames, and waits for what it returns.
    fn call<T, A>(&self, action: A) -> Result<T, Stopped>
    where
        T: Send + 'static,
        A: FnOnce(&mut Worker) -> T + Send + 'static,
    {
        let (answer, answered) = mpsc::sync_channel(1);
        let command: Command = Box::new(move |worker| {
            // Nobody stops waiting for an answer, so there is always someone to take it.
            let _ = answer.send(action(worker));
        });
        self.commands
            .as_ref()
            .ok_or(Stopped)?
            .send(command)
            .map_err(|_| Stopped)?;
        self.wake();
        answered.recv().map_err(|_| Stopped)
    }

    fn wake(&self) {
        // Fails only if the counter is at its maximum, and then the thread is awake.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for Switch {
    /// Stops the thread and waits for its end; all connections are closed.
    fn drop(&mut self) {
        self.commands = None;
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the switch had panicked");
        }
    }
}
