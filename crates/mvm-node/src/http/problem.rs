//! What goes wrong, as `application/problem+json` (RFC 9457) with a hint and the request's id.

use std::borrow::Cow;

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use mvm_queue::{Invalid, JobState, Refusal, RequestId};
use serde::Serialize;

use crate::{consensus::Unavailable, store};

/// Carries the id under which a request may be repeated.
pub(super) const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static(store::REQUEST_ID_HEADER);

/// After so many seconds a refused request is worth repeating: an election is over then.
const RETRY_AFTER_SECONDS: &str = "1";

/// An answer other than success.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    r#type: &'static str,
    title: &'static str,
    #[serde(serialize_with = "status_number")]
    status: StatusCode,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip)]
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn status_number<S: serde::Serializer>(
    status: &StatusCode,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    fn new(
        status: StatusCode,
        r#type: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            r#type,
            title,
            status,
            detail: detail.into(),
            hint: None,
            request_id: None,
            header: None,
        }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "urn:mvm-ci:bad-request",
            "the request is not understood",
            detail,
        )
    }

    pub(super) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "urn:mvm-ci:too-large",
            "the body is too large",
            detail,
        )
    }

    pub(super) fn too_slow(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "urn:mvm-ci:too-slow",
            "the body came too slowly",
            detail,
        )
    }

    pub(super) fn media_type(detail: impl Into<String>) -> Self {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Self::new(
            status,
            "urn:mvm-ci:media-type",
            "the content type is not taken here",
            detail,
        )
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "urn:mvm-ci:not-found",
            "not found",
            detail,
        )
    }

    pub(super) fn method_not_allowed(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "urn:mvm-ci:method",
            "the method is not taken here",
            detail,
        )
    }

    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "urn:mvm-ci:forbidden",
            "this route is for nodes of the cluster",
            detail,
        )
    }

    /// As many streams of events are open as may be.
    pub(super) fn too_many_streams(streams_max: usize) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "urn:mvm-ci:too-many-streams",
            "too many streams of events are open",
            format!("this node serves {streams_max} streams at a time"),
        )
        .hint("ask another node, or again when some have ended")
    }

    /// Nobody knows who sent the request.
    pub(super) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "urn:mvm-ci:unauthorized",
            "this route needs a token",
            detail,
        )
    }

    /// Who sent it may not do this.
    pub(super) fn out_of_scope(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "urn:mvm-ci:out-of-scope",
            "the token does not allow this",
            detail,
        )
    }

    pub(super) fn too_many(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "urn:mvm-ci:too-many-requests",
            "too many requests",
            detail,
        )
    }

    /// What came is understood, and the queue does not accept it.
    pub(super) fn invalid(invalid: Invalid) -> Self {
        Self::bad_request(invalid.to_string())
    }

    /// A worker's change came without the token of its claim.
    pub(super) fn token_missing(target: JobState) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "urn:mvm-ci:token-missing",
            "a worker holds the job",
            format!("only the worker that holds a job makes it {target}, and the request carries no token"),
        )
        .hint("send the token that POST /queue/claim returned")
    }

    /// The store applied the request as a refusal.
    pub(super) fn refused(refusal: &Refusal) -> Self {
        let told = |status, r#type, title, hint: &'static str| {
            Self::new(status, r#type, title, refusal.to_string()).hint(hint)
        };
        let conflict = |r#type, title, hint| told(StatusCode::CONFLICT, r#type, title, hint);
        let unprocessable =
            |r#type, title, hint| told(StatusCode::UNPROCESSABLE_ENTITY, r#type, title, hint);
        match refusal {
            Refusal::UnknownJob { .. } => told(
                StatusCode::NOT_FOUND,
                "urn:mvm-ci:unknown-job",
                "there is no such job",
                "GET /api/v1/jobs shows the jobs there are",
            ),
            Refusal::UnknownSchedule { .. } => told(
                StatusCode::NOT_FOUND,
                "urn:mvm-ci:unknown-schedule",
                "there is no such schedule",
                "GET /api/v1/schedules shows the schedules there are",
            ),
            Refusal::IllegalTransition { .. } => conflict(
                "urn:mvm-ci:illegal-transition",
                "the job cannot take this state",
                "GET /api/v1/jobs/{id} shows where it stands",
            ),
            Refusal::TokenStale { .. } => conflict(
                "urn:mvm-ci:token-stale",
                "the job was claimed anew",
                "stop working on the job; another worker has it",
            ),
            Refusal::LeaseEnded { .. } => conflict(
                "urn:mvm-ci:lease-ended",
                "the lease has ended",
                "stop working on the job; renew leases in time",
            ),
            Refusal::LogGap { .. } => conflict(
                "urn:mvm-ci:log-gap",
                "a log chunk is missing",
                "send the chunk that is expected",
            ),
            Refusal::KeyReused => unprocessable(
                "urn:mvm-ci:key-reused",
                "the idempotency key belongs to another request",
                "use a new key for a new request, and the same one only to repeat a request unchanged",
            ),
            Refusal::UnknownDependency { .. } => unprocessable(
                "urn:mvm-ci:unknown-dependency",
                "a dependency does not exist",
                "submit the jobs that others wait for first",
            ),
            Refusal::TooManyLabelSets => told(
                StatusCode::TOO_MANY_REQUESTS,
                "urn:mvm-ci:too-many-label-sets",
                "too many different sets of labels are in use",
                "use fewer different sets of labels and kinds",
            ),
            Refusal::TooManySchedules => told(
                StatusCode::TOO_MANY_REQUESTS,
                "urn:mvm-ci:too-many-schedules",
                "there are too many schedules",
                "remove one first",
            ),
            Refusal::NotAWorkflow { .. } => conflict(
                "urn:mvm-ci:not-a-workflow",
                "the job is not a workflow",
                "only jobs of the kind flow have a journal and an inbox",
            ),
            Refusal::JournalGap { .. } => conflict(
                "urn:mvm-ci:journal-gap",
                "the frames are not the next ones of the journal",
                "read the journal again; an append whose answer was lost may be in it",
            ),
            Refusal::JournalFull => conflict(
                "urn:mvm-ci:journal-full",
                "the journal is full",
                "let long workflows go on in new ones",
            ),
            Refusal::Finished { .. } => conflict(
                "urn:mvm-ci:finished",
                "the job has finished",
                "GET /api/v1/jobs/{id} shows how it ended",
            ),
            Refusal::InboxFull => conflict(
                "urn:mvm-ci:inbox-full",
                "the inbox is full",
                "send again when the workflow has received some messages",
            ),
            Refusal::CannotPause { .. } => conflict(
                "urn:mvm-ci:cannot-pause",
                "the job cannot be paused",
                "pending jobs can be paused, and workflows until they have ended",
            ),
            Refusal::NotPaused => conflict(
                "urn:mvm-ci:not-paused",
                "the job is not paused",
                "GET /api/v1/jobs/{id} shows what it waits for",
            ),
            Refusal::VersionTaken { .. } => conflict(
                "urn:mvm-ci:version-taken",
                "another module has this name and version",
                "a deployed version never changes; deploy under a new one",
            ),
            Refusal::ModuleIncomplete { .. } => conflict(
                "urn:mvm-ci:module-incomplete",
                "chunks of the module are missing",
                "upload the module again",
            ),
            Refusal::TooManyModules => conflict(
                "urn:mvm-ci:too-many-modules",
                "there are too many modules",
                "go on with versions that are deployed",
            ),
            Refusal::IdTaken { .. }
            | Refusal::RenewedSince
            | Refusal::NotDue { .. }
            | Refusal::TickTaken { .. } => conflict(
                "urn:mvm-ci:overtaken",
                "something else came first",
                "look again, and repeat if it is still wanted",
            ),
        }
    }

    /// Nothing was handed to the store.
    pub(super) fn unavailable(cause: &Unavailable) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let problem = Self::new(
            status,
            "urn:mvm-ci:not-applied",
            "the cluster cannot serve this now",
            cause.to_string(),
        );
        match cause {
            Unavailable::Forming => problem.hint("GET /ready turns 200 when the node has joined"),
            Unavailable::Waiting { .. } => problem.hint(
                "ask another node; a cluster is founded when all its nodes are up, and a node whose disk was lost \
                 joins when a majority of the others is; docs/operations.md tells more",
            ),
            Unavailable::ShuttingDown => problem.hint("ask another node"),
            Unavailable::NoLeader
            | Unavailable::NoQuorum { .. }
            | Unavailable::LeaderUnreachable { .. }
            | Unavailable::NotLeader { .. } => problem.hint(
                "nothing was changed and nothing will be; repeat, or ask a node on the majority's side; \
                 reads accept consistency=local",
            ),
        }
    }

    /// The request was handed to the store, and nobody knows what becomes of it.
    pub(super) fn unknown() -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "urn:mvm-ci:outcome-unknown",
            "the outcome is not known",
            "the request was handed to the cluster and no answer came in time; it may still be applied, once",
        )
        .hint("repeat it with the request_id as Idempotency-Key: it will not be applied twice")
    }

    /// The leader's disk did not take a backup.
    pub(super) fn backup_failed(node: u64, detail: &str) -> Self {
        Self::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "urn:mvm-ci:backup-failed",
            "the backup could not be written",
            format!("node {node}, which leads, could not write it: {detail}"),
        )
        .hint(
            "see that its data directory has room for the database twice and that state_machine/backups in it \
             can be written, then ask again; the queue goes on, and older backups are as they were",
        )
    }

    /// A backup was asked for, and nobody knows what becomes of it.
    pub(super) fn backup_unknown(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "urn:mvm-ci:outcome-unknown",
            "the outcome is not known",
            detail,
        )
        .hint("ask again: within a minute there is only one; GET /api/v1/backups shows it")
    }

    /// This node's disk does not give what it has.
    pub(super) fn unreadable(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "urn:mvm-ci:unreadable",
            "this node cannot read its disk",
            detail,
        )
        .hint("see that state_machine/backups in its data directory can be read; other nodes have the same backups")
    }

    /// A defect of ours.
    pub(super) fn broken(detail: impl Into<String>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "urn:mvm-ci:defect", "the node failed", detail)
            .hint("this is a defect; please report it")
    }

    pub(super) fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the one header that a problem may need.
    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    pub(super) fn of_request(mut self, request: &RequestId) -> Self {
        self.request_id = Some(request.0.clone());
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.extend(self.header.map(|header| *header));
        if matches!(
            self.status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        ) {
            let seconds = HeaderValue::from_static(RETRY_AFTER_SECONDS);
            headers.entry(header::RETRY_AFTER).or_insert(seconds);
        }
        // Request ids are checked to be header values when they come in.
        if let Some(id) = self
            .request_id
            .as_deref()
            .and_then(|id| HeaderValue::from_str(id).ok())
        {
            headers.insert(REQUEST_ID_HEADER, id);
        }
        response
    }
}
