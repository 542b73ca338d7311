//! Judges a history: which invariants of the queue does it break, and by which operations?
//!
//! Every rule is sound: it complains only of what no order of events could explain, given that an operation takes
//! effect, if it does, between its invocation and its answer. None searches for an order, so all of them together
//! are linear in the length of the history but for sorting.

mod agreement;
mod answers;
mod case;
mod completions;
mod leases;
mod submissions;
#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use self::case::Case;
use crate::history::History;

/// What must hold whatever happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// An acknowledged submission is kept, and its job ends.
    AcknowledgedEnds,
    /// A job has one accepted completion, by the attempt that says so.
    CompletedOnce,
    /// No two leases of one job live at once.
    OneLease,
    /// The tokens of a job grow from claim to claim.
    TokensGrow,
    /// What was answered 503, or rejected, was never applied.
    RefusedNeverApplied,
    /// A node that is cut off from the majority acknowledges no change.
    MinorityNeverAcknowledges,
    /// In the end all nodes list the same.
    NodesAgree,
    /// One idempotency key, one job, whichever nodes were asked.
    OneJobPerKey,
    /// A linearizable list has all that was acknowledged before it was asked for.
    ReadsAreFresh,
    /// There is nothing that nobody asked for.
    NothingInvented,
    /// No node answers what none may answer.
    NoDefect,
}

impl Invariant {
    /// Every invariant.
    pub const ALL: [Invariant; 11] = [
        Invariant::AcknowledgedEnds,
        Invariant::CompletedOnce,
        Invariant::OneLease,
        Invariant::TokensGrow,
        Invariant::RefusedNeverApplied,
        Invariant::MinorityNeverAcknowledges,
        Invariant::NodesAgree,
        Invariant::OneJobPerKey,
        Invariant::ReadsAreFresh,
        Invariant::NothingInvented,
        Invariant::NoDefect,
    ];
}

impl fmt::Display for Invariant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Invariant::AcknowledgedEnds => "an acknowledged job is kept and ends",
            Invariant::CompletedOnce => "a job completes once",
            Invariant::OneLease => "no two live leases",
            Invariant::TokensGrow => "tokens only grow",
            Invariant::RefusedNeverApplied => "what was refused is never applied",
            Invariant::MinorityNeverAcknowledges => "a minority never acknowledges",
            Invariant::NodesAgree => "all nodes list the same",
            Invariant::OneJobPerKey => "one key is one job",
            Invariant::ReadsAreFresh => "a linearizable list is fresh",
            Invariant::NothingInvented => "nothing is invented",
            Invariant::NoDefect => "no node fails",
        })
    }
}

/// What the final state must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Every job was worked on until it had ended.
    Completed,
    /// Nobody works on jobs; they are only kept.
    Kept,
}

/// What the checker must know of the cluster besides the history.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long a lease lasts after its grant or its last renewal at least; nothing if workers are not in the history.
    pub lease: Option<Duration>,
    /// What became of the jobs.
    pub ends: Ends,
}

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// How, in one line, with the operations that show it.
    pub how: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.invariant, self.how)
    }
}

/// Returns every violation that a history shows; none if it may have been so.
pub fn judge(history: &History, rules: Rules) -> Vec<Violation> {
    let case = Case::new(history, rules);
    let mut found = Vec::new();
    submissions::look(&case, &mut found);
    completions::look(&case, &mut found);
    leases::look(&case, &mut found);
    answers::look(&case, &mut found);
    agreement::look(&case, &mut found);
    found
}
