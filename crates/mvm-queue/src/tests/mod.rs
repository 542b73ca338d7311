//! Tests that look at all parts at once.

mod both;
mod bounds;
mod database;
mod draw;
mod flow;
mod invariants;
mod keeper;
mod model;
mod plans;
mod planted;
mod properties;
mod simulation;
mod table;
mod upgrades;

/// A planted bug in the core, to show that a check can fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Bug {
    /// A request that was applied is applied again.
    ForgetsRequests,
    /// More jobs of a key than may are ready.
    IgnoresKeys,
    /// Jobs do not wait for others.
    IgnoresDependencies,
    /// A claim gives the token of the one before.
    RepeatsTokens,
    /// A claim takes jobs that are in progress.
    GrantsTwice,
    /// Any token will do.
    IgnoresTokens,
    /// A lost job is not ready again.
    LosesLostJobs,
    /// Any token will do to append to a journal.
    AppendsStale,
}
