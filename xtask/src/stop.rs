//! Why a task ended before its work was done, and the exit code for it. Any other error is a plain failure.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// The exit code of a task that failed by itself.
pub(crate) const FAILED: u8 = 1;
/// The host lacks something; the same code as `mvm-ci` uses.
const UNFIT: u8 = 4;
/// What shells report for a program ended by an interrupt.
const INTERRUPTED: u8 = 130;

/// An end that has an exit code of its own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// The host lacks something that could not be got.
    #[error("could not make this host ready: {reason}")]
    Unfit { reason: String },
    /// A program that a task ran did not succeed.
    #[error("could not finish {phase}: `{command}` ended with {status}")]
    Child {
        phase: String,
        command: String,
        status: ExitStatus,
    },
    /// Somebody asked us to stop.
    #[error("interrupted during {phase}")]
    Interrupted { phase: String },
}

impl Stop {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Unfit { .. } => UNFIT,
            Self::Child { status, .. } => child_exit_code(*status),
            Self::Interrupted { .. } => INTERRUPTED,
        }
    }
}

/// A child's own code is passed on; a signal becomes 128 + its number, as shells do.
fn child_exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .filter(|code| *code != 0)
        .unwrap_or(FAILED)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::child_exit_code;

    #[track_caller]
    fn check(wait_status: i32, expected: u8) {
        assert_eq!(child_exit_code(ExitStatus::from_raw(wait_status)), expected);
    }

    #[test]
    fn codes_and_signals_are_passed_on() {
        check(101 << 8, 101);
        check(4 << 8, 4);
        check(9, 137);
        check(11 | 0x80, 139);
    }
}
