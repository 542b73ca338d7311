//! What happens in a run: one closed enum on one clock, written once and read by every report.
//!
//! Reports are not a trait: each is a function of these events (`report`).

use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::verdict::Verdict;

/// The version of the event lines; it grows when a reader of the old ones would be misled.
pub const EVENTS_VERSION: u32 = 1;

/// What a machine is doing, as far as the lab knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MachineState {
    /// Waits for one of the host's boot tokens.
    Waiting,
    /// QEMU runs, no agent yet.
    Booting,
    /// The agent answers and the machine has its name and addresses.
    AgentUp,
    /// Its processors are stopped.
    Paused,
    /// It was killed.
    Crashed,
    /// It powered off.
    Off,
}

/// How a machine came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// From its kernel's first instruction.
    Cold,
    /// From a snapshot of a machine like it, with an identity of its own.
    Resumed,
    /// From a pool of machines that were resumed beforehand, with an identity of its own.
    Warm,
    /// From a checkpoint of the whole cluster, as what it was.
    Restored,
}

impl Way {
    /// Returns the word for people.
    pub fn word(self) -> &'static str {
        match self {
            Way::Cold => "booted cold",
            Way::Resumed => "resumed from a snapshot",
            Way::Warm => "taken from the warm pool",
            Way::Restored => "restored from a checkpoint",
        }
    }
}

/// What a service in a machine is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// It was started.
    Started,
    /// It ended, by request or not; the text tells how.
    Ended(String),
    /// Its machine went away under it; the text tells how that showed.
    Lost(String),
}

/// How much a line of the log matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// For whoever looks for something; not shown to people.
    Debug,
    /// What a test tells.
    Info,
    /// Something is not as it should be.
    Warning,
    /// Something went wrong.
    Error,
}

/// How a step went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum StepOutcome {
    /// It held.
    Passed,
    /// It did not; `verdict` tells whose fault that is.
    Failed {
        /// Failed or unknown.
        verdict: Verdict,
        /// What was tried, found and last observed.
        message: String,
    },
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// The first event of a run.
    RunStarted {
        /// [`EVENTS_VERSION`].
        version: u32,
        /// The scenario's name.
        scenario: String,
        /// The version of mvm-lab.
        lab_version: String,
        /// When, in milliseconds since the Unix epoch: the only wall-clock time in a run.
        unix_ms: u64,
        /// The command line that runs it again.
        command: Vec<String>,
    },
    /// What the machines are made of, known once the host was looked at.
    Environment {
        /// QEMU's version.
        qemu: String,
        /// The guests' kernel release.
        kernel: String,
        /// The accelerator and why.
        accelerator: String,
    },
    /// A machine's state changed.
    Machine {
        /// Which.
        machine: String,
        /// To what.
        state: MachineState,
    },
    /// A machine came up.
    CameUp {
        /// Which.
        machine: String,
        /// How.
        way: Way,
        /// From the decision to start it to an answering agent with its identity, in milliseconds.
        duration_ms: f64,
    },
    /// All machines together were frozen.
    Checkpointed {
        /// The checkpoint's name.
        checkpoint: String,
        /// How long the guests stood still.
        stood_still_ms: f64,
    },
    /// All machines together came back from a checkpoint.
    Restored {
        /// The checkpoint's name.
        checkpoint: String,
        /// When it was taken, in milliseconds since the Unix epoch.
        taken_unix_ms: u64,
        /// The same moment on the clock of the run that took it.
        taken_at_ms: f64,
        /// From the decision to bring it back until every agent answered.
        duration_ms: f64,
    },
    /// A service's state changed.
    Service {
        /// In which machine.
        machine: String,
        /// Which.
        service: String,
        /// To what.
        state: ServiceState,
    },
    /// The scenario says what a machine's role is now, such as "leader".
    Role {
        /// Which.
        machine: String,
        /// The role.
        role: String,
    },
    /// Links changed.
    Network {
        /// The change, in the field's words.
        change: String,
        /// The moment from which it counted, between two frames, on the same clock as the event's own.
        effect_ms: f64,
    },
    /// A step began.
    StepStarted {
        /// Its name.
        step: String,
    },
    /// A step ended.
    StepEnded {
        /// Its name.
        step: String,
        /// How it went.
        #[serde(flatten)]
        outcome: StepOutcome,
        /// How long it took.
        duration_ms: u64,
    },
    /// A command of a script ended.
    Command {
        /// On which machine.
        machine: String,
        /// What was wanted of it, such as "must succeed".
        told_as: String,
        /// The command.
        command: String,
        /// Its status, as a shell tells it.
        status: i32,
        /// How long it took.
        duration_ms: u64,
    },
    /// A line of a test's log: its own, or of a command's standard error.
    Log {
        /// How much it matters.
        level: LogLevel,
        /// The machine it comes from.
        machine: Option<String>,
        /// The line.
        text: String,
    },
    /// Something that is not as it should be, and that the run goes on without.
    Warning {
        /// The text.
        text: String,
    },
    /// Something worth telling, such as a measurement.
    Note {
        /// The text.
        text: String,
    },
    /// The last event of a run.
    RunEnded {
        /// What it came to.
        verdict: Verdict,
        /// Why, unless it passed.
        message: Option<String>,
        /// How long it took.
        duration_ms: u64,
    },
}

/// An event and when it happened on the run's clock.
#[derive(Clone, Debug, Serialize)]
pub struct Stamped {
    /// Milliseconds since the run began, with microseconds after the point.
    pub at_ms: f64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Called with each event, in order, from whichever thread records it.
pub type Listener = Box<dyn FnMut(&Stamped) + Send>;

/// A line that a guest said. It is in a log of the run folder, and is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The machine.
    pub machine: &'a str,
    /// The service, or nothing for the serial console.
    pub service: Option<&'a str>,
    /// The line, printable, without its end.
    pub text: &'a str,
}

/// Called with each line, in turn with events, from whichever thread records it.
pub type LineListener = Box<dyn FnMut(&Line<'_>) + Send>;

/// Writes events to the run folder and hands them to listeners, as it does lines. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    origin: Instant,
    sinks: Arc<Mutex<Sinks>>,
    /// Whether somebody wants lines.
    pub(crate) takes_lines: bool,
    /// Whether what consoles say is part of the log.
    logs_consoles: Arc<AtomicBool>,
}

struct Sinks {
    file: File,
    listeners: Vec<Listener>,
    lines: Option<LineListener>,
}

impl Recorder {
    /// Creates the event file at `path`; the run's clock starts now.
    pub fn create(
        path: &Path,
        listeners: Vec<Listener>,
        lines: Option<LineListener>,
    ) -> std::io::Result<Recorder> {
        let file = File::create(path)?;
        Ok(Recorder {
            origin: Instant::now(),
            takes_lines: lines.is_some(),
            logs_consoles: Arc::default(),
            sinks: Arc::new(Mutex::new(Sinks {
                file,
                listeners,
                lines,
            })),
        })
    }

    /// Returns the instant the run's clock counts from.
    pub fn origin(&self) -> Instant {
        self.origin
    }

    /// Has what consoles say from now on be part of the log, or not.
    pub(crate) fn log_consoles(&self, on: bool) {
        self.logs_consoles.store(on, Ordering::Relaxed);
    }

    /// Takes a line of a machine's console.
    pub(crate) fn console_line(&self, machine: &str, text: &str) {
        if self.logs_consoles.load(Ordering::Relaxed) {
            self.record(Event::Log {
                level: LogLevel::Info,
                machine: Some(machine.to_owned()),
                text: text.to_owned(),
            });
        }
        self.line(&Line {
            machine,
            service: None,
            text,
        });
    }

    /// Tells whoever wants lines of one.
    pub(crate) fn line(&self, line: &Line<'_>) {
        if let Some(listener) = &mut self.lock().lines {
            listener(line);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sinks> {
        self.sinks
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Records `event` as happening now.
    pub fn record(&self, event: Event) {
        let mut sinks = self.lock();
        // Stamped under the lock, so that the file's order is the clock's.
        let stamped = Stamped {
            at_ms: precise_ms(self.origin.elapsed()),
            event,
        };
        let mut line = serde_json::to_vec(&stamped).expect("events serialize");
        line.push(b'\n');
        if let Err(error) = sinks.file.write_all(&line) {
            tracing::warn!(%error, "could not write to the event file");
        }
        for listener in &mut sinks.listeners {
            listener(&stamped);
        }
    }
}

/// Milliseconds with microseconds after the point.
pub(crate) fn precise_ms(duration: Duration) -> f64 {
    (duration.as_micros() as f64) / 1000.0
}
