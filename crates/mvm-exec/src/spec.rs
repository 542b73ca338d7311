//! What to run and within which limits. How it is run is in `supervisor`, what became of it in `outcome`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

/// Where programs are looked for unless the job's environment says otherwise.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a job may take to react to SIGTERM, unless its [`Spec`] says otherwise.
pub const DEFAULT_KILL_GRACE: Duration = Duration::from_secs(5);

/// How long what a job left behind may go on, unless its [`Spec`] says otherwise: enough for a `tee` to
/// write its last lines.
pub const DEFAULT_LINGER: Duration = Duration::from_millis(250);

/// One job: a command, where it runs, what it sees, and its limits.
///
/// ```
/// use std::time::Duration;
/// let spec = mvm_exec::Spec::script("make check")
///     .env("CARGO_TERM_COLOR", "never")
///     .time_limit(Duration::from_secs(600));
/// assert_eq!(spec.program, "/bin/sh");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The program: a path, relative to the working directory, or a name to look for in `PATH`.
    pub program: OsString,
    /// Its arguments, without its own name.
    pub arguments: Vec<OsString>,
    /// Where it runs.
    pub directory: Directory,
    /// Variables added to the clean environment that every job begins with: `PATH`, `HOME` (the working
    /// directory) and `LANG=C.UTF-8`. Nothing of the node's own environment is in it. Of two entries with
    /// one name the later counts. `MVM_EXEC_JOB` is ours: a mark to find the job's processes by.
    pub environment: Vec<(OsString, OsString)>,
    /// How long it may run before it is asked to end; `None` for as long as it likes.
    pub time_limit: Option<Duration>,
    /// The most memory in bytes; which promise that is depends on [`MemoryControl`](crate::MemoryControl).
    pub memory_limit: Option<u64>,
    /// How much of each stream is kept.
    pub output: OutputLimits,
    /// What its output does not show: `***` stands for each line of these that has
    /// [`SECRET_BYTES_MIN`](crate::SECRET_BYTES_MIN) bytes or more. Only these very bytes are found: not what a job
    /// encodes, cuts or spreads over both streams.
    pub secrets: Vec<Vec<u8>>,
    /// How long it may take to react to SIGTERM before SIGKILL.
    pub kill_grace: Duration,
    /// How long processes it left behind may go on after its own end, for the last lines of a pipeline.
    pub linger: Duration,
    /// How it shares the processor and the disks.
    pub priority: Priority,
}

/// Where a job runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Directory {
    /// In this directory, which exists and is left as the job leaves it.
    Given(PathBuf),
    /// In a fresh one that only this user can read, made under this directory and removed after the job,
    /// also when the node has died meanwhile.
    Private {
        /// Where it is made.
        under: PathBuf,
    },
}

/// How many bytes of each stream are kept: the first ones, handed out live, and the last ones, handed out at
/// the end. What lies between is counted, not kept. Both bound the memory a job's output can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputLimits {
    /// How many of the first bytes are kept.
    pub first_bytes: usize,
    /// How many of the last bytes are kept once the first are exceeded.
    pub last_bytes: usize,
}

impl Default for OutputLimits {
    /// The first MiB and the last 64 KiB.
    fn default() -> Self {
        Self {
            first_bytes: 1 << 20,
            last_bytes: 64 << 10,
        }
    }
}

/// How a job shares the processor and the disks with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Priority {
    /// How nice it is, from 0 (as the node) to 19; more is 19.
    pub nice: u8,
    /// Its turn at the disks.
    pub disk: DiskPriority,
}

/// A job's turn at the disks, where the kernel's scheduler knows such turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiskPriority {
    /// As the node.
    #[default]
    Unchanged,
    /// After everybody else of the best-effort class.
    Low,
    /// Only when nobody else wants them.
    Idle,
}

impl Spec {
    /// Runs this program, in a private directory under the system's temporary one, without limits of time
    /// and memory.
    pub fn program(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            directory: Directory::Private {
                under: std::env::temp_dir(),
            },
            environment: Vec::new(),
            time_limit: None,
            memory_limit: None,
            output: OutputLimits::default(),
            secrets: Vec::new(),
            kill_grace: DEFAULT_KILL_GRACE,
            linger: DEFAULT_LINGER,
            priority: Priority::default(),
        }
    }

    /// Runs this text by `/bin/sh -c`.
    pub fn script(script: impl AsRef<OsStr>) -> Self {
        Self::program("/bin/sh").arguments([OsStr::new("-c"), script.as_ref()])
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Runs it in this existing directory.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Directory::Given(directory.into());
        self
    }

    /// Runs it in a private directory made under this one.
    #[must_use]
    pub fn private_directory_under(mut self, under: impl Into<PathBuf>) -> Self {
        self.directory = Directory::Private {
            under: under.into(),
        };
        self
    }

    /// Adds a variable to its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Limits its time.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self
    }

    /// Limits its memory, in bytes.
    #[must_use]
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Limits what is kept of its output.
    #[must_use]
    pub fn output(mut self, limits: OutputLimits) -> Self {
        self.output = limits;
        self
    }

    /// Keeps this out of what is told of its output.
    #[must_use]
    pub fn secret(mut self, value: impl Into<Vec<u8>>) -> Self {
        self.secrets.push(value.into());
        self
    }

    /// Sets how long it may take to react to SIGTERM.
    #[must_use]
    pub fn kill_grace(mut self, grace: Duration) -> Self {
        self.kill_grace = grace;
        self
    }

    /// Sets how long what it leaves behind may go on.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Sets its priority.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }
}
