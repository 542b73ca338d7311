//! What a client can ask of a node, and what it can be told.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A node's number, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u64);

/// A job's id, as the node that took it made it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub String);

/// The fencing token of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub i64);

/// A moment on the history's only clock: microseconds since it began.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct At(pub u64);

impl At {
    /// The moment after so much time.
    #[must_use]
    pub fn after(self, duration: Duration) -> At {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        At(self.0.saturating_add(us))
    }

    /// The time since an earlier moment; none if that is later.
    pub fn since(self, earlier: At) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl From<Duration> for At {
    fn from(duration: Duration) -> At {
        At(0).after(duration)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "node {}", self.0)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "job {}", self.0)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Display for At {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.3}", self.since(At(0)).as_secs_f64())
    }
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Action {
    /// Submit a job under an idempotency key.
    Submit {
        /// The same key is the same job.
        key: String,
        /// What the interface takes, without the key.
        spec: Value,
    },
    /// Take jobs.
    Claim {
        /// Who asks. Each claim of a workload has a name of its own, so that attempts tell which claim made them.
        worker: String,
        /// How many.
        slots: u32,
        /// Of which kinds.
        kinds: Vec<String>,
    },
    /// Begin a job.
    Start {
        /// Which.
        job: JobId,
        /// The claim's token.
        token: Token,
    },
    /// Keep a job.
    Renew {
        /// Which.
        job: JobId,
        /// The claim's token.
        token: Token,
    },
    /// End a job.
    Finish {
        /// Which.
        job: JobId,
        /// The claim's token.
        token: Token,
        /// How it went.
        ended: Ended,
    },
    /// Stop a job.
    Cancel {
        /// Which.
        job: JobId,
    },
    /// List all jobs.
    List {
        /// How fresh the list must be.
        consistency: Consistency,
    },
    /// List a job's attempts, linearizably.
    Attempts {
        /// Which.
        job: JobId,
    },
}

/// How a worker says that a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Done.
    Succeeded,
    /// Not done; worth another attempt.
    Failed,
    /// Given back.
    Lost,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// It reflects everything that was acknowledged before it began.
    Linearizable,
    /// What the asked node has.
    Local,
}

/// A job that a worker was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Which.
    pub job: JobId,
    /// The claim's token.
    pub token: Token,
}

/// A job as a node lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSeen {
    /// Which.
    pub id: JobId,
    /// Its idempotency key.
    pub key: String,
    /// Its state, as the interface spells it.
    pub state: String,
    /// The token of its latest claim; 0 if there was none.
    pub token: Token,
    /// Who had it last.
    pub claimed_by: Option<String>,
}

/// An attempt as a node tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptSeen {
    /// Its token.
    pub token: Token,
    /// Who made it.
    pub worker: String,
    /// How it ended, as the interface spells it.
    pub outcome: Option<String>,
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub enum Told {
    /// The job is durable on a majority.
    Submitted {
        /// Its id.
        job: JobId,
    },
    /// The jobs are the worker's.
    Claimed {
        /// Which; there may be none.
        claims: Vec<Claim>,
    },
    /// The job was begun, ended or told to stop.
    Moved {
        /// The state it is in now, as the interface spells it.
        state: String,
    },
    /// The job is still the worker's.
    Renewed,
    /// All jobs.
    Listed {
        /// In the list's order.
        jobs: Vec<JobSeen>,
    },
    /// A job's attempts.
    Tried {
        /// In the list's order.
        attempts: Vec<AttemptSeen>,
    },
    /// 503: not applied, and never will be.
    Refused {
        /// What the node said.
        detail: String,
    },
    /// 504, or no answer: applied once or never.
    Unknown {
        /// What the node said, or what became of the connection.
        detail: String,
    },
    /// 4xx: looked at and not accepted.
    Rejected {
        /// The status.
        status: u16,
        /// What the node said.
        detail: String,
    },
    /// What no node may answer: 500, or a success that is not understood.
    Broken {
        /// What it was.
        detail: String,
    },
}

/// What an answer promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Applied, durably.
    Acknowledged,
    /// Never applied.
    Refused,
    /// Applied once or never.
    Unknown,
    /// Looked at, and not applied.
    Rejected,
}

impl Told {
    /// Returns what the answer promises.
    pub fn class(&self) -> Class {
        match self {
            Told::Submitted { .. }
            | Told::Claimed { .. }
            | Told::Moved { .. }
            | Told::Renewed
            | Told::Listed { .. }
            | Told::Tried { .. } => Class::Acknowledged,
            Told::Refused { .. } => Class::Refused,
            Told::Unknown { .. } | Told::Broken { .. } => Class::Unknown,
            Told::Rejected { .. } => Class::Rejected,
        }
    }
}

impl Action {
    /// Whether it changes something.
    pub fn is_write(&self) -> bool {
        !matches!(self, Action::List { .. } | Action::Attempts { .. })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Submit { key, .. } => write!(formatter, "submit {key}"),
            Action::Claim { worker, .. } => write!(formatter, "claim as {worker}"),
            Action::Start { job, token } => write!(formatter, "start {job} by token {token}"),
            Action::Renew { job, token } => write!(formatter, "renew {job} by token {token}"),
            Action::Finish { job, token, ended } => {
                write!(formatter, "finish {job} by token {token}: {ended:?}")
            }
            Action::Cancel { job } => write!(formatter, "cancel {job}"),
            Action::List { consistency } => write!(formatter, "list, {consistency:?}"),
            Action::Attempts { job } => write!(formatter, "attempts of {job}"),
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Told::Submitted { job } => write!(formatter, "acknowledged as {job}"),
            Told::Claimed { claims } => {
                formatter.write_str("granted")?;
                for claim in claims {
                    write!(formatter, " {} by token {}", claim.job, claim.token)?;
                }
                Ok(())
            }
            Told::Moved { state } => write!(formatter, "acknowledged: {state}"),
            Told::Renewed => formatter.write_str("acknowledged"),
            Told::Listed { jobs } => write!(formatter, "{} jobs", jobs.len()),
            Told::Tried { attempts } => write!(formatter, "{} attempts", attempts.len()),
            Told::Refused { detail } => write!(formatter, "refused (503): {detail}"),
            Told::Unknown { detail } => write!(formatter, "unknown: {detail}"),
            Told::Rejected { status, detail } => write!(formatter, "rejected ({status}): {detail}"),
            Told::Broken { detail } => write!(formatter, "broken: {detail}"),
        }
    }
}
