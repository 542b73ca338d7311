//! What a run comes to, and the exit code that says so.

use serde::Serialize;

/// The end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every step held.
    Passed,
    /// The system under test broke a promise.
    Failed,
    /// The lab itself had trouble, so nothing is known about the system under test.
    Unknown,
    /// The host lacks something the run needs; nothing was run.
    Unfit,
    /// Somebody stopped the run.
    Interrupted,
}

/// The exit codes of `mvm-ci`, in one table; commands that speak to nodes have a few of their own.
pub const EXIT_CODES: &[(u8, &str)] = &[
    (0, "passed: every step held"),
    (
        1,
        "failed: the system under test broke a promise, or the command could not do its work",
    ),
    (2, "usage: the command line or a configuration is wrong"),
    (
        3,
        "unknown: the lab had trouble, nothing is known about the system under test",
    ),
    (
        4,
        "environment unfit: the host lacks something; see `mvm-ci doctor`",
    ),
    (
        130,
        "interrupted: stopped by a signal; everything was cleaned up",
    ),
];

impl Verdict {
    /// Returns the exit code, one of [`EXIT_CODES`].
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Passed => 0,
            Verdict::Failed => 1,
            Verdict::Unknown => 3,
            Verdict::Unfit => 4,
            Verdict::Interrupted => 130,
        }
    }

    /// Returns the word for people.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Passed => "passed",
            Verdict::Failed => "failed",
            Verdict::Unknown => "unknown",
            Verdict::Unfit => "environment unfit",
            Verdict::Interrupted => "interrupted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_is_in_the_table() {
        for verdict in [
            Verdict::Passed,
            Verdict::Failed,
            Verdict::Unknown,
            Verdict::Unfit,
            Verdict::Interrupted,
        ] {
            let row = EXIT_CODES
                .iter()
                .find(|(code, _)| *code == verdict.exit_code());
            let (_, meaning) = row.unwrap_or_else(|| panic!("{verdict:?} has no row"));
            assert!(
                meaning.starts_with(verdict.word()),
                "{verdict:?}: {meaning}"
            );
        }
    }
}
