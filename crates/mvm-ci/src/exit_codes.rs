//! The exit codes of commands that speak to nodes. They go with those of [`mvm_lab::verdict::EXIT_CODES`].

use mvm_client::ClientError;
use mvm_queue::JobState;

/// A job ended otherwise than completed, or a cluster is not well.
pub const FAILED: u8 = 1;
/// The same as clap's.
pub const USAGE: u8 = 2;
/// Nobody told what became of a change.
pub const UNKNOWN: u8 = 3;
/// No node took the request.
pub const UNREACHABLE: u8 = 4;
/// A node said no.
pub const REFUSED: u8 = 5;
/// Stopped by Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// Nobody to attach to, or no more. The same as ssh's.
pub const DETACHED: u8 = 255;

/// The table.
pub const NODE_EXIT_CODES: &[(u8, &str)] = &[
    (
        0,
        "done; the jobs that were waited for completed; the cluster is healthy",
    ),
    (
        FAILED,
        "a job that was waited for failed, was cancelled or is dead; the cluster is degraded",
    ),
    (
        USAGE,
        "usage: the command line, a file it names or the environment is wrong",
    ),
    (
        UNKNOWN,
        "unknown: a change was sent and nobody told what became of it, or what answered is no node",
    ),
    (
        UNREACHABLE,
        "unreachable: no node took the request in time; nothing was changed",
    ),
    (REFUSED, "refused: a node understood and said no"),
    (
        INTERRUPTED,
        "interrupted: nobody waits any more, and the job goes on",
    ),
];

/// The code for a call that did not succeed.
pub const fn of_error(error: &ClientError) -> u8 {
    match error {
        ClientError::Unreachable { .. } => UNREACHABLE,
        ClientError::OutcomeUnknown { .. } | ClientError::Violation { .. } => UNKNOWN,
        ClientError::Refused { .. } => REFUSED,
    }
}

/// The code for a job that was waited for.
pub const fn of_state(state: JobState) -> u8 {
    match state {
        JobState::Completed => 0,
        JobState::Failed | JobState::Cancelled | JobState::Dead => FAILED,
        JobState::Pending | JobState::Claimed | JobState::InProgress => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_table() {
        let page = include_str!("../../../docs/cli.md");
        for (code, meaning) in NODE_EXIT_CODES {
            let row = format!("| {code} | {meaning} |");
            assert!(page.contains(&row), "docs/cli.md lacks {row}");
        }
    }
}
