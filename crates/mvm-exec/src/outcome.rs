//! What became of a job.

use std::fmt::{self, Display, Formatter};

/// How a job ended. When it is known, nothing of the job is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its own process returned this code, 0 to 255.
    Exited(i32),
    /// This signal ended its own process, and neither we nor the memory limit had it sent.
    Signalled(i32),
    /// It exceeded its time limit and was ended, by whatever code or signal.
    TimedOut,
    /// It was cancelled and ended, by whatever code or signal.
    Cancelled,
    /// It exceeded its memory limit and the kernel killed it.
    OutOfMemory,
    /// It never began; nothing of it ran.
    CouldNotStart {
        /// What was tried and what was found.
        reason: String,
    },
    /// Its supervisor failed, so nobody knows how far it came.
    Lost {
        /// What was seen of the supervisor's end.
        reason: String,
    },
}

impl Outcome {
    /// Whether the job did what it was to do: its process returned 0.
    pub fn is_success(&self) -> bool {
        *self == Self::Exited(0)
    }
}

impl Display for Outcome {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(formatter, "exit code {code}"),
            Self::Signalled(signal) => write!(formatter, "ended by signal {signal}"),
            Self::TimedOut => formatter.write_str("exceeded its time limit"),
            Self::Cancelled => formatter.write_str("cancelled"),
            Self::OutOfMemory => formatter.write_str("exceeded its memory limit"),
            Self::CouldNotStart { reason } => write!(formatter, "could not start: {reason}"),
            Self::Lost { reason } => write!(formatter, "lost: {reason}"),
        }
    }
}
