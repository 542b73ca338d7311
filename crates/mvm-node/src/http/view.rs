//! How a job, a claim and output look to clients.

use std::borrow::Cow;

use mvm_queue::{
    Claim, FencingToken, Job, JobId, JobSpec, JobState, LogChunk, Stream, UnixMillis, WaitsFor,
};
use serde::Serialize;

use super::redact;

/// A job with all that was asked for but the values of its secrets, as every route shows it.
#[derive(Debug, Serialize)]
pub(super) struct JobView<'a> {
    id: &'a JobId,
    #[serde(flatten)]
    spec: Cow<'a, JobSpec>,
    state: JobState,
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<WaitsFor>,
    /// When that ends, if it waits for a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    wakes_at_ms: Option<UnixMillis>,
    created_at_ms: UnixMillis,
    updated_at_ms: UnixMillis,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at_ms: Option<UnixMillis>,
    submitted_on: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<&'a str>,
    claimed_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed_on: Option<u64>,
    /// Claims so far; the latest one's token.
    attempts: FencingToken,
    #[serde(skip_serializing_if = "is_zero")]
    failures: u32,
    #[serde(skip_serializing_if = "is_zero")]
    losses: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cancel_requested: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a serde_json::Value>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl<'a> From<&'a Job> for JobView<'a> {
    fn from(job: &'a Job) -> Self {
        Self {
            id: &job.id,
            spec: redact::shown(&job.spec),
            state: job.state,
            waits_for: job.waits_for,
            wakes_at_ms: job.wakes_at_ms(),
            created_at_ms: job.created_at_ms,
            updated_at_ms: job.updated_at_ms,
            finished_at_ms: job.finished_at_ms,
            submitted_on: job.submitted_on,
            schedule: job.schedule.as_deref(),
            claimed_by: job.claimed_by.as_deref(),
            claimed_on: job.claimed_on,
            attempts: job.token,
            failures: job.failures,
            losses: job.losses,
            cancel_requested: job.cancel_requested,
            paused: job.paused.as_deref(),
            error: job.error.as_deref(),
            result: job.result.as_ref(),
        }
    }
}

/// A claim as its worker gets it, with its secrets.
#[derive(Debug, Serialize)]
pub(super) struct ClaimView<'a> {
    id: &'a JobId,
    token: FencingToken,
    submitted_on: u64,
    #[serde(flatten)]
    spec: &'a JobSpec,
}

impl<'a> From<&'a Claim> for ClaimView<'a> {
    fn from(claim: &'a Claim) -> Self {
        Self {
            id: &claim.job,
            token: claim.token,
            submitted_on: claim.submitted_on,
            spec: &claim.spec,
        }
    }
}

/// A piece of output.
#[derive(Debug, Serialize)]
pub(super) struct ChunkView {
    number: u32,
    stream: Stream,
    at_ms: UnixMillis,
    text: String,
}

impl From<&LogChunk> for ChunkView {
    fn from(chunk: &LogChunk) -> Self {
        Self {
            number: chunk.number,
            stream: chunk.stream,
            at_ms: chunk.at_ms,
            text: String::from_utf8_lossy(&chunk.bytes()).into_owned(),
        }
    }
}
