//! The words spoken to the store: commands that change it, queries that read it, and the answers.
//!
//! They cross from node to node inside [`Versioned`], so their JSON form is a format of its own.

use serde::{Deserialize, Serialize};

use crate::job::{FencingToken, Job, JobId, JobState, Refusal, UnixMillis};

/// The version of the format that nodes speak among themselves.
pub const WIRE_VERSION: u32 = 1;

/// Names one request of a client, given by it as `Idempotency-Key` or made by the node.
///
/// The store remembers what became of it: the same id again gets the same answer, and no second effect.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct RequestId(pub String);

/// A change to the queue, complete: whoever applies it, whenever and however often, does the same.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The request it serves.
    pub request: RequestId,
    /// When the node that took the request read its clock.
    pub at: UnixMillis,
    /// What to do.
    pub change: Change,
}

/// What a [`Command`] does.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// Adds a job.
    Submit {
        /// The id the job gets.
        job: JobId,
        /// What sort of worker it needs.
        kind: String,
        /// What the worker is told.
        payload: serde_json::Value,
        /// The node that took it.
        submitted_on: u64,
    },
    /// Gives the oldest pending job to a worker.
    Claim {
        /// The worker's name.
        worker: String,
        /// The kinds it can do; empty means any.
        kinds: Vec<String>,
    },
    /// Moves a job to another state.
    Move {
        /// Which job.
        job: JobId,
        /// Where to.
        target: JobState,
        /// The token of the mover's claim, if it has one.
        token: Option<FencingToken>,
    },
}

impl Change {
    /// A digest of what the client asked for, by which a reused idempotency key is noticed.
    ///
    /// What the node added (the new job's id, its own number) is left out: a repeat that arrives at
    /// another node is still the same request.
    pub fn digest(&self) -> String {
        let asked = match self {
            Self::Submit { kind, payload, .. } => serde_json::json!(["submit", kind, payload]),
            Self::Claim { worker, kinds } => serde_json::json!(["claim", worker, kinds]),
            Self::Move { job, target, token } => serde_json::json!(["move", job, target, token]),
        };
        blake3::hash(asked.to_string().as_bytes())
            .to_hex()
            .to_string()
    }
}

/// What a command that was not refused did.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// The job as it was added.
    Submitted {
        /// The new job.
        job: Job,
    },
    /// The claim; nothing if no job was pending.
    Claimed {
        /// The job as it was claimed, with the token that its worker must show.
        claim: Option<(Job, FencingToken)>,
    },
    /// The job as it was after the move.
    Moved {
        /// The moved job.
        job: Job,
    },
}

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

/// What keeps a node from serving linearizable requests.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Unavailable {
    /// The node has not joined its cluster yet.
    #[error("this node is still forming or joining its cluster")]
    Forming,
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

/// What to read.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "query", rename_all = "snake_case", deny_unknown_fields)]
pub enum Query {
    /// One job.
    Job {
        /// Which.
        job: JobId,
    },
    /// A page of jobs in the order in which they were committed.
    List {
        /// Continue after the job that this cursor names.
        after: Option<Cursor>,
        /// At most so many.
        limit: u32,
        /// Only those in this state.
        state: Option<JobState>,
    },
    /// The latest jobs, newest first.
    Latest {
        /// At most so many.
        limit: u32,
    },
    /// How many jobs are in each state.
    Stats,
}

/// A place in the list of jobs. Stays valid for ever, since jobs are only added at the end.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Cursor(pub i64);

/// The answer to a [`Query`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// The job, if there is one of that id.
    Job {
        /// The job.
        job: Option<Job>,
    },
    /// The jobs, and where the next page begins if there is one.
    Jobs {
        /// The jobs.
        jobs: Vec<Job>,
        /// Where to continue.
        next: Option<Cursor>,
    },
    /// Every state with its number of jobs, also where that is zero.
    Stats {
        /// Pairs in the order of [`JobState::ALL`].
        counts: Vec<(JobState, u64)>,
    },
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

/// Wraps what one node sends to another, so that a node of another version says so instead of guessing.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Versioned<T> {
    /// [`WIRE_VERSION`] of the sender.
    pub version: u32,
    /// What is sent.
    pub body: T,
}

impl<T> Versioned<T> {
    /// Wraps with this node's version.
    pub const fn new(body: T) -> Self {
        Self {
            version: WIRE_VERSION,
            body,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submit(job: &str, url: &str, node: u64) -> Change {
        Change::Submit {
            job: JobId(job.into()),
            kind: "fetch".into(),
            payload: serde_json::json!({ "url": url }),
            submitted_on: node,
        }
    }

    #[test]
    fn the_digest_covers_what_the_client_said_and_nothing_else() {
        assert_eq!(submit("a", "u", 1).digest(), submit("b", "u", 2).digest());
        assert_ne!(submit("a", "u", 1).digest(), submit("a", "v", 1).digest());
    }

    /// The format between nodes of different builds: a change here needs a new [`WIRE_VERSION`].
    #[test]
    fn the_wire_format_stays() {
        let command = Command {
            request: RequestId("r".into()),
            at: UnixMillis(7),
            change: submit("a", "u", 1),
        };
        expect_test::expect![[r#"{"version":1,"body":{"request":"r","at":7,"change":{"change":"submit","job":"a","kind":"fetch","payload":{"url":"u"},"submitted_on":1}}}"#]]
        .assert_eq(&serde_json::to_string(&Versioned::new(command)).unwrap());
    }
}
