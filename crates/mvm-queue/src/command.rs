//! The words spoken to the store: commands that change it. What they did is in [`crate::effect`], queries are in
//! [`crate::query`].
//!
//! They cross from node to node as JSON inside [`Versioned`], so their JSON form is a format of its own.

use std::{borrow::Cow, collections::BTreeSet, num::NonZeroU64};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    bytes::{as_base64, list_as_base64},
    cron::Missed,
    effect::Effect,
    id::{FencingToken, JobId, RequestId, UnixMillis},
    job::{AttemptOutcome, JobSpec},
    queue::Outcome,
};

/// The version of the format that nodes speak among themselves. 1 knew submit, claim and move, 2 knew no workflows, 3 one
/// change a command, and 4 one command a request.
pub const WIRE_VERSION: u32 = 5;

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

/// A change to the queue, complete: whoever applies it, whenever and however often, does the same.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The request it serves.
    pub request: RequestId,
    /// When the node that took the request read its clock. Recorded; decides nothing.
    pub at: UnixMillis,
    /// What to do.
    pub change: Change,
}

impl Command {
    /// The commands that a command of [`Change::All`] consists of, each with a request of its own; of another the command
    /// itself.
    pub fn parts(&self) -> Vec<Cow<'_, Self>> {
        if !matches!(self.change, Change::All { .. }) {
            return vec![Cow::Borrowed(self)];
        }
        let part = |(place, change): (usize, &Change)| {
            Cow::Owned(Self {
                request: RequestId(format!("{}/{place}", self.request.0)),
                at: self.at,
                change: change.clone(),
            })
        };
        self.change
            .each()
            .into_iter()
            .enumerate()
            .map(part)
            .collect()
    }

    /// The same, as far as they were tried, with what became of each.
    pub fn outcomes<'a>(&'a self, outcome: &'a Outcome) -> Vec<(Cow<'a, Self>, &'a Outcome)> {
        match outcome {
            Ok(Effect::All { outcomes }) => self.parts().into_iter().zip(outcomes).collect(),
            other => vec![(Cow::Borrowed(self), other)],
        }
    }
}

/// What a [`Command`] does.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// Adds a job, unless its idempotency key has one.
    Submit {
        /// The id the job gets.
        job: JobId,
        /// The node that took it.
        submitted_on: u64,
        /// What is asked for.
        spec: Box<JobSpec>,
        /// The tick that it is for, if a schedule submits it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tick: Option<Tick>,
    },
    /// Gives ready jobs to a worker: the highest priority first, then those its node took, then the oldest.
    Claim {
        /// The worker's node.
        node: u64,
        /// The worker's name.
        worker: String,
        /// How many at most.
        slots: u32,
        /// The labels it offers.
        labels: BTreeSet<String>,
        /// The kinds it can do; empty means any.
        kinds: BTreeSet<String>,
    },
    /// Says that the work begins.
    Start {
        /// Which job.
        job: JobId,
        /// The token of the claim.
        token: FencingToken,
    },
    /// Renews a lease.
    Renew {
        /// Which job.
        job: JobId,
        /// The token of the claim.
        token: FencingToken,
    },
    /// Adds to the log of the attempt. A chunk that is there already is left alone.
    Log {
        /// Which job.
        job: JobId,
        /// The token of the claim.
        token: FencingToken,
        /// The chunk's number, from 0 in each attempt.
        number: u32,
        /// Where it comes from.
        stream: Stream,
        /// The output.
        #[serde(with = "as_base64")]
        bytes: Vec<u8>,
    },
    /// Ends the attempt, by its worker.
    Finish {
        /// Which job.
        job: JobId,
        /// The token of the claim.
        token: FencingToken,
        /// How it ended.
        report: Report,
    },
    /// Cancels a pending job at once; asks the worker of a held one to stop.
    Cancel {
        /// Which job.
        job: JobId,
        /// Why; kept as the job's error.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Gives a failed or dead job all its attempts again.
    Retry {
        /// Which job.
        job: JobId,
        /// Cuts the journal of a workflow to so many frames.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keep_frames: Option<NonZeroU64>,
    },
    /// Lets a pending job rest until it is resumed; asks the worker of a workflow to give it back for that.
    Pause {
        /// Which job.
        job: JobId,
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Ends the rest of a job.
    Resume {
        /// Which job.
        job: JobId,
    },
    /// Ends an attempt, by the leader.
    Expire {
        /// Which job.
        job: JobId,
        /// The token of the claim that is to end.
        token: FencingToken,
        /// Why.
        cause: Expiry,
    },
    /// Ends the pause after a failure, by the leader.
    Ready {
        /// Which job.
        job: JobId,
        /// The token of the attempt that failed.
        token: FencingToken,
    },
    /// Ends the wait of jobs whose time has come, by the leader.
    Due {
        /// The leader's wall clock.
        now_ms: UnixMillis,
        /// At most so many jobs.
        steps: u32,
    },
    /// Tells the ends of jobs to those that wait for them, by the leader.
    Settle {
        /// At most so many pairs of jobs.
        steps: u32,
    },
    /// Adds or replaces a schedule.
    SetSchedule {
        /// Its name.
        name: String,
        /// When it fires, in UTC.
        cron: String,
        /// What of ticks that passed while nobody could fire them.
        missed: Missed,
        /// The job of each tick.
        spec: Box<JobSpec>,
        /// The first tick.
        next_ms: UnixMillis,
    },
    /// Leaves out a tick, by the leader.
    SkipTick {
        /// The tick.
        tick: Tick,
    },
    /// Removes a schedule; jobs it has submitted stay.
    RemoveSchedule {
        /// Its name.
        name: String,
    },
    /// Removes finished jobs, those that ended first before others, and what was uploaded in vain.
    Prune {
        /// Those beyond so many go.
        keep: u64,
        /// Those that ended before go.
        before_ms: Option<UnixMillis>,
        /// Chunks of no module go whose upload ended before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        chunks_before_ms: Option<UnixMillis>,
        /// At most so many removals.
        steps: u32,
    },
    /// Adds frames to the journal of a workflow, by its worker.
    Append {
        /// Which job.
        job: JobId,
        /// The token of the claim.
        token: FencingToken,
        /// The number of the first frame: how many the journal has.
        first: u64,
        /// The frames.
        #[serde(with = "list_as_base64")]
        frames: Vec<Vec<u8>>,
        /// The numbers of messages which these frames record as received. They leave the inbox.
        consumed: Vec<u64>,
        /// The frame at which the workflow's response begins. The first one that is told is kept.
        response: Option<u64>,
    },
    /// Puts a message into the inbox of a workflow.
    Send {
        /// Which job.
        job: JobId,
        /// What sort of message it is.
        #[serde(rename = "type")]
        kind: String,
        /// The message.
        data: Value,
    },
    /// Gives a workflow back that waits, by its worker. The attempt leaves no trace.
    Park {
        /// Which job.
        job: JobId,
        /// The token of the claim.
        token: FencingToken,
        /// Until this time, by the leader's wall clock.
        until_ms: Option<UnixMillis>,
        /// Until there is a message with a larger number.
        seen: Option<u64>,
        /// What it lacks, for people; the job's error until it goes on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Does one after the other, in one entry of the log, until one is refused.
    All {
        /// What to do.
        changes: Vec<Change>,
    },
    /// Uploads a piece of a module. That of a deployed module is left alone.
    PutChunk {
        /// The BLAKE3 hash of the module, in hexadecimal.
        hash: String,
        /// Its number, from 0.
        number: u32,
        /// The piece.
        #[serde(with = "as_base64")]
        bytes: Vec<u8>,
    },
    /// Makes an uploaded module visible, for ever under this name and version.
    Deploy {
        /// Its name.
        name: String,
        /// Its version.
        version: String,
        /// The BLAKE3 hash of its bytes, in hexadecimal.
        hash: String,
        /// How long it is.
        bytes: u64,
        /// Of how many chunks.
        chunks: u32,
    },
}

/// One tick of a schedule.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tick {
    /// Which schedule.
    pub schedule: String,
    /// Which version of it.
    pub revision: i64,
    /// Which tick; it must be the one that the schedule waits for.
    pub tick_ms: UnixMillis,
    /// The tick that it waits for from then on.
    pub next_ms: UnixMillis,
}

/// Where output comes from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a worker says that its attempt ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "report", rename_all = "snake_case", deny_unknown_fields)]
pub enum Report {
    /// The work is done. The attempt must have been started.
    Succeeded {
        /// What came of it.
        result: Value,
    },
    /// The work said no, or could not begin.
    Failed {
        /// What went wrong.
        error: String,
        /// Whether a further attempt is useless.
        permanent: bool,
    },
    /// The worker ended it after its timeout. The attempt must have been started.
    TimedOut,
    /// The worker gives the job back unfinished; counts as a lost attempt.
    Lost,
    /// The worker stopped it, on request or by its own decision.
    Cancelled,
}

impl Report {
    /// How the attempt ended.
    pub const fn outcome(&self) -> AttemptOutcome {
        match self {
            Self::Succeeded { .. } => AttemptOutcome::Succeeded,
            Self::Failed { .. } => AttemptOutcome::Failed,
            Self::TimedOut => AttemptOutcome::TimedOut,
            Self::Lost => AttemptOutcome::Lost,
            Self::Cancelled => AttemptOutcome::Cancelled,
        }
    }

    pub(crate) const fn permanent(&self) -> bool {
        matches!(
            self,
            Self::Failed {
                permanent: true,
                ..
            }
        )
    }

    pub(crate) fn error(&self) -> Option<&str> {
        match self {
            Self::Failed { error, .. } => Some(error),
            Self::TimedOut => Some("the attempt ran into its timeout"),
            Self::Lost => Some("the worker gave the job back"),
            Self::Cancelled => Some("the worker stopped the job"),
            Self::Succeeded { .. } => None,
        }
    }

    pub(crate) const fn result(&self) -> Option<&Value> {
        match self {
            Self::Succeeded { result } => Some(result),
            Self::Failed { .. } | Self::TimedOut | Self::Lost | Self::Cancelled => None,
        }
    }
}

/// Why the leader ends an attempt.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "cause", rename_all = "snake_case", deny_unknown_fields)]
pub enum Expiry {
    /// It applied no renewal for the lease time. The attempt is lost.
    Lease {
        /// The renewals that it has seen; one more, and nothing happens.
        renewals: u64,
    },
    /// The attempt was in progress for its timeout and the worker did not end it.
    Timeout,
    /// The worker did not stop within the time for it.
    Cancel,
}

impl Expiry {
    /// How the attempt ended.
    pub const fn outcome(self) -> AttemptOutcome {
        match self {
            Self::Lease { .. } => AttemptOutcome::Lost,
            Self::Timeout => AttemptOutcome::TimedOut,
            Self::Cancel => AttemptOutcome::Cancelled,
        }
    }

    pub(crate) const fn error(self) -> &'static str {
        match self {
            Self::Lease { .. } => "the worker was not heard from for the time of its lease",
            Self::Timeout => "the attempt ran into its timeout",
            Self::Cancel => "the worker did not stop in time",
        }
    }
}

impl Change {
    /// The changes that it consists of; itself, mostly.
    fn each(&self) -> Vec<&Self> {
        match self {
            Self::All { changes } => changes.iter().flat_map(Self::each).collect(),
            other => vec![other],
        }
    }

    /// A digest of what the client asked for, by which a reused request id is noticed.
    ///
    /// What the node added (the new job's id, its own number) is left out: a repeat that arrives at another node
    /// is still the same request.
    pub fn digest(&self) -> String {
        let asked = match self {
            Self::Submit { spec, tick, .. } => serde_json::json!(["submit", spec, tick]),
            // The first tick is computed by the node.
            Self::SetSchedule {
                name,
                cron,
                missed,
                spec,
                ..
            } => serde_json::json!(["set_schedule", name, cron, missed, spec]),
            other => serde_json::json!(other),
        };
        blake3::hash(asked.to_string().as_bytes())
            .to_hex()
            .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submit(job: &str, url: &str, node: u64) -> Change {
        Change::Submit {
            job: JobId(job.into()),
            submitted_on: node,
            spec: Box::new(JobSpec::new("fetch", serde_json::json!({ "url": url }))),
            tick: None,
        }
    }

    /// A repeat that was sent before the upgrade is still the same request.
    #[test]
    fn what_was_added_to_a_command_leaves_its_digest() {
        let job = JobId("a".into());
        let cancel: Change = serde_json::from_str(r#"{"change":"cancel","job":"a"}"#).unwrap();
        assert_eq!(
            serde_json::to_string(&cancel).unwrap(),
            r#"{"change":"cancel","job":"a"}"#
        );
        let reason = None;
        assert_eq!(cancel, Change::Cancel { job, reason });
    }

    #[test]
    fn the_digest_covers_what_the_client_said_and_nothing_else() {
        assert_eq!(submit("a", "u", 1).digest(), submit("b", "u", 2).digest());
        assert_ne!(submit("a", "u", 1).digest(), submit("a", "v", 1).digest());
    }

    /// The format between nodes of different builds: a change here needs a new [`WIRE_VERSION`].
    #[test]
    fn the_wire_format_stays() {
        let check = |change: Change, expected: expect_test::Expect| {
            let command = Command {
                request: RequestId("r".into()),
                at: UnixMillis(7),
                change,
            };
            let text = serde_json::to_string(&Versioned::new(command.clone())).unwrap();
            expected.assert_eq(&text);
            let back: Versioned<Command> = serde_json::from_str(&text).unwrap();
            assert_eq!(back.body, command);
        };
        check(
            submit("a", "u", 1),
            expect_test::expect![[
                r#"{"version":5,"body":{"request":"r","at":7,"change":{"change":"submit","job":"a","submitted_on":1,"spec":{"kind":"fetch","payload":{"url":"u"}}}}}"#
            ]],
        );
        check(
            Change::Log {
                job: JobId("a".into()),
                token: FencingToken(1),
                number: 0,
                stream: Stream::Stderr,
                bytes: vec![0, 255],
            },
            expect_test::expect![[
                r#"{"version":5,"body":{"request":"r","at":7,"change":{"change":"log","job":"a","token":1,"number":0,"stream":"stderr","bytes":"AP8="}}}"#
            ]],
        );
        check(
            Change::Expire {
                job: JobId("a".into()),
                token: FencingToken(1),
                cause: Expiry::Lease { renewals: 3 },
            },
            expect_test::expect![[
                r#"{"version":5,"body":{"request":"r","at":7,"change":{"change":"expire","job":"a","token":1,"cause":{"cause":"lease","renewals":3}}}}"#
            ]],
        );
        check(
            Change::Append {
                job: JobId("a".into()),
                token: FencingToken(1),
                first: 2,
                frames: vec![vec![0, 255], vec![1]],
                consumed: vec![4],
                response: None,
            },
            expect_test::expect![[
                r#"{"version":5,"body":{"request":"r","at":7,"change":{"change":"append","job":"a","token":1,"first":2,"frames":["AP8=","AQ=="],"consumed":[4],"response":null}}}"#
            ]],
        );
        check(
            Change::Send {
                job: JobId("a".into()),
                kind: "approval".into(),
                data: serde_json::json!(true),
            },
            expect_test::expect![[
                r#"{"version":5,"body":{"request":"r","at":7,"change":{"change":"send","job":"a","type":"approval","data":true}}}"#
            ]],
        );
        check(
            Change::All {
                changes: vec![
                    Change::Start {
                        job: JobId("a".into()),
                        token: FencingToken(1),
                    },
                    Change::Settle { steps: 1 },
                ],
            },
            expect_test::expect![[
                r#"{"version":5,"body":{"request":"r","at":7,"change":{"change":"all","changes":[{"change":"start","job":"a","token":1},{"change":"settle","steps":1}]}}}"#
            ]],
        );
    }
}
