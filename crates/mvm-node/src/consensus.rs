//! What the store answers, in the words of consensus.
//!
//! What is proposed and read is [`mvm_queue`]'s: [`Command`](mvm_queue::Command) and [`Query`](mvm_queue::Query).

use mvm_queue::{Answer, Effect, Outcome, Refusal};
use serde::{Deserialize, Serialize};

/// What became of a proposed command. Each case says what the client may conclude.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "proposal", rename_all = "snake_case")]
pub enum Proposal {
    /// It is on the disks of a majority and has been applied.
    Committed {
        /// What it did.
        effect: Effect,
    },
    /// The log took it, and applied it as a refusal: no job was touched.
    Rejected {
        /// Why.
        refusal: Refusal,
    },
    /// It was not handed to the log, and never will be.
    Unavailable {
        /// What stood in the way.
        cause: Unavailable,
    },
    /// It was handed to the log (or to a node that might have done so) and no answer came in time.
    /// It may be applied now, later, or never; at most once.
    Unknown,
    /// It was applied, and failed in the same way on every replica, without effect: a defect.
    Broken {
        /// What the database said.
        detail: String,
    },
}

impl From<Outcome> for Proposal {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Ok(effect) => Self::Committed { effect },
            Err(refusal) => Self::Rejected { refusal },
        }
    }
}

/// What keeps a node from serving linearizable requests.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Unavailable {
    /// The node has not joined its cluster yet.
    #[error("this node is still forming or joining its cluster")]
    Forming,
    /// The node has no data, and it is not known that it may join or found a cluster.
    #[error("this node has no data and does not join yet: {detail}")]
    Waiting {
        /// Whom it waits for.
        detail: String,
    },
    /// No leader is known.
    #[error(
        "this node knows no leader: it is cut off from the majority, or an election is under way"
    )]
    NoLeader,
    /// The node is the leader but has not heard from a majority lately.
    #[error("the leader has not heard from a majority of the nodes for {since_ms} ms")]
    NoQuorum {
        /// How long.
        since_ms: u64,
    },
    /// The leader was known and could not be reached.
    #[error("the leader, node {leader}, could not be reached: {detail}")]
    LeaderUnreachable {
        /// Which node.
        leader: u64,
        /// The last failure.
        detail: String,
    },
    /// The node was asked as the leader, and is not.
    #[error("node {node} is not the leader")]
    NotLeader {
        /// Which node.
        node: u64,
    },
    /// The node is on its way out.
    #[error("this node is shutting down")]
    ShuttingDown,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Barrier {
    /// Sees everything acknowledged anywhere before the read began. Needs a quorum.
    Linearizable,
    /// Sees this node's replica, which may lag. Needs nobody.
    Local,
}

impl Barrier {
    /// The word used in queries and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Linearizable => "linearizable",
            Self::Local => "local",
        }
    }
}

/// What became of a read.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "reading", rename_all = "snake_case")]
pub enum Reading {
    /// The answer.
    Done {
        /// What was read.
        answer: Answer,
        /// The answer reflects the log at least up to this entry.
        log_index: u64,
    },
    /// The barrier could not be met in time.
    Unavailable {
        /// What stood in the way.
        cause: Unavailable,
    },
    /// The database failed.
    Broken {
        /// What it said.
        detail: String,
    },
}
