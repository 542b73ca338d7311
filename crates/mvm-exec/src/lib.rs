//! Runs one job's command on this host and lets nothing of it survive.
//!
//! What a job is for, who asked for it and where its output is stored is the node's affair; so are machines for
//! jobs that must not be trusted. What lives here is processes.
//!
//! ```text
//!  node (tokio)                 supervisor (one thread)            job
//!  ────────────                 ───────────────────────            ───
//!  Job::start ── fork+exec ───▶ this executable, again
//!      │                            │ PID namespace: forks PID 1,
//!      │   Start, Cancel, Kill      │ which keeps the job; else a
//!      ├───── socket ──────────────▶│ subreaper keeps it
//!      │◀──── Started, Ended ───────┤
//!      │                            ├── fork+exec ────────────────▶ own session,
//!      │                            │   SIGTERM, then SIGKILL      0 = /dev/null
//!      │◀──── pipe ─────────────────┼───────────────────────────── 1
//!      │◀──── pipe ─────────────────┼───────────────────────────── 2
//!  next_event ◀ Started, Output,    │
//!               Omitted, Ended      │ reaps, kills who is left,
//!                                   ▼ removes directory and group
//! ```
//!
//! # Invariants
//!
//! - The socket has two ends and the node holds one. When it closes - the job dropped, the node ended, the node
//!   killed by SIGKILL - the supervisor kills all and ends. Nobody else can hold it: every descriptor is
//!   close-on-exec and a supervisor closes what it inherits.
//! - A supervisor ends last. [`Event::Ended`] comes after its end, so by then nothing of the job is left: no
//!   process, no zombie, no private directory, no control group. (After [`Outcome::Lost`] an empty control
//!   group may stay until the next probe, which removes it.)
//! - A job's own process ends the job. Whoever it leaves behind may go on for [`Spec::linger`], for the last
//!   lines of a pipeline, and is killed then; a background process that holds the output never hangs the job.
//! - A job never waits for a reader. Its pipes are read by a task of the node whether anybody calls
//!   [`Job::next_event`] or not; memory is bounded by [`OutputLimits`], and what was left out is told by
//!   [`Event::Omitted`].
//! - The supervisor measures the time limit by its own monotonic clock. The first of end, limit and cancel
//!   counts.
//! - A job sees a clean environment, the descriptors 0, 1 and 2, default signals, umask 022, no terminal, no
//!   core dumps. Nothing of the node's environment reaches it or its supervisor.
//!
//! # What is promised under which isolation
//!
//! | | PID namespace | subreaper |
//! |---|---|---|
//! | ends, is cancelled, is dropped, the node is killed: nothing survives | yes, by the kernel | yes, by killing until none is left |
//! | the supervisor itself is killed | nothing survives | the job's own process dies; its children may survive, unless they can be found by their environment |
//! | the job can see and signal the node (same user) | only with the host's `/proc`: see; never signal | yes |
//! | a fork bomb | dies at once | dies when killing outruns forking |
//! | programs with another user's rights (`sudo`) | die too; cannot be begun under a user namespace | cannot be killed by an ordinary user |
//!
//! | | control group | per process |
//! |---|---|---|
//! | a memory limit holds for | the job as a whole | each process by itself |
//! | exceeding it | kills the job: [`Outcome::OutOfMemory`] | fails the allocation; the program's own end |
//!
//! Neither is a wall against a hostile job: it runs as the node's user and sees the node's files.
//!
//! # Example
//!
//! ```no_run
//! # async fn example(cancelled: impl Future<Output = ()>) -> Result<(), Box<dyn std::error::Error>> {
//! use mvm_exec::{Event, Isolation, Job, Spec};
//!
//! let isolation = Isolation::probe()?;
//! let mut job = Job::start(&isolation, Spec::script("make check"))?;
//! tokio::pin!(cancelled);
//! let mut asked = false;
//! let outcome = loop {
//!     tokio::select! {
//!         event = job.next_event() => match event {
//!             Event::Started { .. } => {}
//!             Event::Output(output) => drop(output.bytes),
//!             Event::Omitted { .. } => {}
//!             Event::Ended(outcome) => break outcome,
//!         },
//!         () = &mut cancelled, if !asked => {
//!             asked = true;
//!             job.cancel();
//!         }
//!     }
//! };
//! # drop(outcome); Ok(()) }
//! ```

mod capture;
mod isolation;
mod job;
mod mask;
mod memory;
mod outcome;
mod spec;
mod supervisor;
mod sys;
mod wire;

pub use capture::{Capture, Output, Stream};
pub use isolation::{Isolation, Kind, ProbeError};
pub use job::{Event, Job, StartError};
pub use mask::SECRET_BYTES_MIN;
pub use memory::MemoryControl;
pub use outcome::Outcome;
pub use spec::{
    DEFAULT_KILL_GRACE, DEFAULT_LINGER, DEFAULT_PATH, Directory, DiskPriority, OutputLimits,
    Priority, Spec,
};
pub use supervisor::supervise_if_asked;
