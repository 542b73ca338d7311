//! One running job, as the node sees it. The task that talks to its supervisor is in `pump`.

mod marked;
mod pump;
mod queue;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;

use crate::capture::{Output, Stream};
use crate::isolation::supervisor_command;
use crate::mask::Secrets;
use crate::wire::{FRAME_BYTES_MAX, Order, Start};
use crate::{Directory, Isolation, Kind, MemoryControl, Outcome, Spec};

use pump::Pump;
use queue::Queue;

/// What happens to a job, in this order: `Started` unless it could not start; its `Output` as it comes; for
/// each stream that was longer than its first bytes `Omitted`, if anything was left out, and the last bytes as
/// `Output`; and `Ended`, for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Its own process runs.
    Started {
        /// Where; a private directory is known only now.
        directory: PathBuf,
    },
    /// A piece of its output.
    Output(Output),
    /// So many bytes of a stream, between its first and its last ones, were not kept.
    Omitted {
        /// The stream.
        stream: Stream,
        /// How many.
        bytes: u64,
    },
    /// It is over, and nothing of it is left.
    Ended(Outcome),
}

/// Why a job's supervisor could not be started: this host is short of something. What is wrong with the job
/// itself is told by [`Outcome::CouldNotStart`].
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No pipes, no processes.
    #[error("could not start a supervisor: {0}")]
    Supervisor(#[source] io::Error),
    /// The job is too large to be told.
    #[error("the command and its environment take {bytes} bytes; {FRAME_BYTES_MAX} are the most")]
    TooLarge {
        /// How large it is.
        bytes: usize,
    },
}

/// A running job. Dropping it kills all of it at once; a task of its own then awaits the supervisor's end.
#[derive(Debug)]
pub struct Job {
    queue: Arc<Queue>,
    orders: mpsc::UnboundedSender<Order>,
    supervisor: u32,
}

impl Job {
    /// Starts a job. Returns before its process runs: whether it could start is told by the events.
    ///
    /// # Errors
    ///
    /// [`StartError`] if there are no descriptors or processes left, or the job is too large to be told.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with its I/O and time drivers enabled.
    pub fn start(isolation: &Isolation, mut spec: Spec) -> Result<Self, StartError> {
        let limits = spec.output;
        let secrets = Secrets::of(&std::mem::take(&mut spec.secrets));
        let patience = pump::Patience::of(&spec);
        let mark = marked::new_mark().map_err(StartError::Supervisor)?;
        spec.environment
            .push((marked::VARIABLE.into(), mark.clone().into()));
        let frame = start_frame(isolation, spec)?;
        let Streams {
            control,
            stdout,
            stderr,
            child,
        } = spawn(isolation).map_err(StartError::Supervisor)?;
        let supervisor = child.id().unwrap_or_default();
        let queue = Arc::new(Queue::new(limits, secrets));
        let (orders, inbox) = mpsc::unbounded_channel();
        let (outputs, queue_of_pump) = ([stdout, stderr], Arc::clone(&queue));
        let pump = Pump::new(queue_of_pump, control, outputs, child, patience, mark);
        tokio::spawn(pump.run(frame, inbox));
        Ok(Self {
            queue,
            orders,
            supervisor,
        })
    }

    /// Waits for what happens next. After [`Event::Ended`] it returns the same at once, again and again.
    ///
    /// Cancel safe: a dropped future takes no event with it.
    pub async fn next_event(&mut self) -> Event {
        self.queue.next().await
    }

    /// Asks the job to end: SIGTERM to its process group, SIGKILL to all after [`Spec::kill_grace`]. Returns
    /// at once; how it went is told by the events.
    pub fn cancel(&self) {
        // Nobody listens once the job is over.
        let _ = self.orders.send(Order::Cancel);
    }

    /// Kills all of the job at once.
    pub fn kill(&self) {
        let _ = self.orders.send(Order::Kill);
    }

    /// Waits for the job's end and drops its output. Cancel safe but for the output dropped.
    pub async fn wait(&mut self) -> Outcome {
        loop {
            if let Event::Ended(outcome) = self.next_event().await {
                return outcome;
            }
        }
    }

    /// Returns the process id of the supervisor, which is the job's in the host's eyes: it ends last.
    pub fn supervisor_id(&self) -> u32 {
        self.supervisor
    }
}

fn start_frame(isolation: &Isolation, mut spec: Spec) -> Result<Vec<u8>, StartError> {
    // The supervisor runs elsewhere.
    let (Directory::Given(path) | Directory::Private { under: path }) = &mut spec.directory;
    *path = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
    let control_group = match isolation.memory() {
        MemoryControl::ControlGroup { parent } => Some(parent.clone()),
        MemoryControl::PerProcess { .. } => None,
    };
    let start = Start {
        namespace: matches!(isolation.kind(), Kind::PidNamespace { .. }),
        control_group,
        spec,
    };
    let frame = Order::Start(Box::new(start)).to_frame();
    if frame.len() > FRAME_BYTES_MAX {
        return Err(StartError::TooLarge { bytes: frame.len() });
    }
    Ok(frame)
}

struct Streams {
    control: tokio::net::UnixStream,
    stdout: Receiver,
    stderr: Receiver,
    child: tokio::process::Child,
}

fn spawn(isolation: &Isolation) -> io::Result<Streams> {
    let (control, theirs) = UnixStream::pair()?;
    control.set_nonblocking(true)?;
    let (stdout, stdout_theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr, stderr_theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut command = supervisor_command(isolation.supervisor(), theirs);
    command.stdout(stdout_theirs).stderr(stderr_theirs);
    let receiver = |pipe: OwnedFd| Receiver::from_owned_fd(pipe);
    Ok(Streams {
        control: tokio::net::UnixStream::from_std(control)?,
        stdout: receiver(stdout)?,
        stderr: receiver(stderr)?,
        // The command, and with it our copies of the other ends, is dropped here.
        child: tokio::process::Command::from(command).spawn()?,
    })
}
