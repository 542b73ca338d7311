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

/// The table of `mvm-ci flow`.
pub const FLOW_EXIT_CODES: &[(u8, &str)] = &[
    (
        0,
        "done; the workflow that was waited for responded, or ended well without; the replay is what happened",
    ),
    (
        FAILED,
        "the workflow that was waited for failed or was cancelled; the replay diverged; the engine could not go on",
    ),
    (
        USAGE,
        "usage: the command line, a file it names or the environment is wrong",
    ),
    (
        UNKNOWN,
        "unknown: a change was sent and nobody told what became of it, or what answered is no engine",
    ),
    (
        UNREACHABLE,
        "unreachable: no engine took the request, and nothing was changed; or `up` cannot have its directory or port",
    ),
    (REFUSED, "refused: an engine understood and said no"),
    (
        INTERRUPTED,
        "interrupted: nobody waits any more, and the workflow goes on",
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
    fn the_pages_have_the_tables() {
        let pages = [
            (include_str!("../../../docs/cli.md"), NODE_EXIT_CODES),
            (include_str!("../../../docs/workflows.md"), FLOW_EXIT_CODES),
        ];
        for (page, table) in pages {
            for (code, meaning) in table {
                let row = format!("| {code} | {meaning} |");
                assert!(page.contains(&row), "a page in docs lacks {row}");
            }
        }
    }
}
