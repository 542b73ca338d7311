//! The handle of a running switch: starts the thread, sends it commands, stops it.
//!
//! What commands mean is in `segment`; how frames flow is in `worker`. Holding, capturing and restoring a
//! switch is in `switch::checkpoint`, changing its links in `switch::links`, tapping it in `switch::tap`.

mod checkpoint;
mod links;
mod tap;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};

use crate::counters::Counters;
use crate::link::{AddPortError, LinkError, Port, Vlan};
use crate::segment::{Limits, Segment};
use crate::worker::{Command, Worker};

pub use checkpoint::{
    CaptureError, Drained, RestoreError, STATE_VERSION, SwitchState, Unread, UnreadError,
};
pub use tap::{Tap, TapError};

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

/// How a switch is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchOptions {
    /// Its bounds.
    pub limits: Limits,
    /// What random choices of impaired links are made from, see [`Links::seed`](crate::Links::seed).
    pub seed: u64,
}

impl SwitchOptions {
    /// [`Limits::DEFAULT`], and seed 0: two runs that do not choose a seed choose alike.
    pub const DEFAULT: SwitchOptions = SwitchOptions {
        limits: Limits::DEFAULT,
        seed: 0,
    };
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
/// links. A frame that is in flight or waits for its machine is dropped if its direction is now cut, with two
/// exceptions:
/// what the kernel has already taken for the machine (bounded by the socket's buffer), and the rest
/// of a frame whose first bytes it has taken, because the machine could not tell frames apart otherwise.
#[derive(Debug)]
pub struct Switch {
    commands: Commands,
    /// `None` only while dropping.
    thread: Option<JoinHandle<()>>,
}

/// The way to the thread of a switch, which it does not keep going.
#[derive(Clone, Debug)]
struct Commands {
    sender: Sender<Command>,
    wake: Arc<OwnedFd>,
}

impl Switch {
    /// Starts a switch without ports, with [`SwitchOptions::DEFAULT`].
    ///
    /// # Errors
    ///
    /// If the kernel gives no descriptors or no thread.
    pub fn start() -> io::Result<Switch> {
        Switch::start_with(SwitchOptions::DEFAULT)
    }

    /// Starts a switch without ports.
    ///
    /// # Errors
    ///
    /// If the kernel gives no descriptors or no thread.
    pub fn start_with(options: SwitchOptions) -> io::Result<Switch> {
        let segment = Segment::new(options.limits, options.seed);
        Switch::launch(segment, |worker| worker)
    }

    /// Starts the thread over a segment, with its worker as `prepare` makes it.
    fn launch(segment: Segment, prepare: impl FnOnce(Worker) -> Worker) -> io::Result<Switch> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (sender, receiver) = mpsc::channel();
        let worker = prepare(Worker::new(segment, Arc::clone(&wake), receiver)?);
        let thread = std::thread::Builder::new()
            .name("mvm-fabric".to_owned())
            .spawn(|| worker.run())?;
        Ok(Switch {
            commands: Commands { sender, wake },
            thread: Some(thread),
        })
    }

    /// Adds a port of [`Vlan::DEFAULT`] and returns the machine's end of its connection, for QEMU's
    /// `-netdev stream,addr.type=fd,addr.str=N`.
    ///
    /// The end is close-on-exec: whoever spawns QEMU clears that in the child, and closes its own copy
    /// afterwards. As long as any copy is open, the port counts as up.
    /// No direction of a new port is cut, even while others are partitioned.
    ///
    /// # Errors
    ///
    /// If the name is taken, the switch is full, or the kernel gives no sockets. Nothing is added then.
    pub fn attach(&self, name: &str) -> Result<(Port, OwnedFd), AttachError> {
        self.attach_in(Vlan::DEFAULT, name)
    }

    /// Adds a port as [`Switch::attach`] does, of another VLAN.
    ///
    /// # Errors
    ///
    /// If the name is taken, in whichever VLAN, the switch is full, or the kernel gives no sockets. Nothing is added
    /// then.
    pub fn attach_in(&self, vlan: Vlan, name: &str) -> Result<(Port, OwnedFd), AttachError> {
        let name = name.to_owned();
        self.call(move |worker| worker.attach(vlan, &name))?
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
            worker.segment.links().check_port(port)?;
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

    /// What all ports have seen so far, all at the same moment.
    ///
    /// # Errors
    ///
    /// If the switch has stopped.
    pub fn counters(&self) -> Result<Counters, Stopped> {
        self.call(|worker| worker.counters())
    }

    /// Runs `action` on the thread, between two frames, and waits for what it returns.
    fn call<T, A>(&self, action: A) -> Result<T, Stopped>
    where
        T: Send + 'static,
        A: FnOnce(&mut Worker) -> T + Send + 'static,
    {
        self.commands.call(action)
    }
}

impl Commands {
    /// As [`Switch::call`].
    fn call<T, A>(&self, action: A) -> Result<T, Stopped>
    where
        T: Send + 'static,
        A: FnOnce(&mut Worker) -> T + Send + 'static,
    {
        let (answer, answered) = mpsc::sync_channel(1);
        self.send(Box::new(move |worker| {
            // Nobody stops waiting for an answer, so there is always someone to take it.
            let _ = answer.send(action(worker));
        }))?;
        // An error if the thread ends before the command's turn, for it is dropped then.
        answered.recv().map_err(|_| Stopped)
    }

    fn send(&self, command: Command) -> Result<(), Stopped> {
        self.sender.send(command).map_err(|_| Stopped)?;
        // Fails only if the counter is at its maximum, and then the thread is awake.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        Ok(())
    }
}

impl Drop for Switch {
    /// Stops the thread and waits for its end; all connections are closed.
    fn drop(&mut self) {
        // Fails only if the thread has ended, which is what is wanted.
        let _ = self.commands.send(Box::new(Worker::stop));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the switch had panicked");
        }
    }
}
