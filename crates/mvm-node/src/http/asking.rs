//! From a request to the store and back: what every route of the queue has in common.

use axum::{
    Json,
    extract::{FromRequestParts, Path},
    http::{HeaderMap, HeaderName, HeaderValue, request::Parts},
    response::{IntoResponse, Response},
};
use mvm_queue::{
    Answer, Change, Command, Effect, JobId, JobState, Query, Refusal, RequestId, WORD_BYTES_MAX,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    App,
    problem::{Problem, REQUEST_ID_HEADER},
};
use crate::{
    consensus::{Barrier, Proposal, Reading},
    id,
    store::{Deadline, Store},
};

const IDEMPOTENCY_KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");
pub(super) const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

/// What every read says besides its answer.
#[derive(Serialize)]
struct Read<T> {
    #[serde(flatten)]
    answer: T,
    consistency: &'static str,
    log_index: u64,
}

/// What the path names.
pub(super) struct Named<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(named)) => Ok(Self(named)),
            Err(rejection) => Err(Problem::bad_request(rejection.body_text())),
        }
    }
}

/// The job that the path names. One that no job can be is not asked for.
pub(super) struct NamedJob(pub(super) JobId);

impl<S: Send + Sync> FromRequestParts<S> for NamedJob {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Named(id) = Named::<String>::from_request_parts(parts, state).await?;
        let possible = id.len() <= WORD_BYTES_MAX && !id.contains(char::is_control);
        let job = JobId(id);
        match possible {
            true => Ok(Self(job)),
            false => Err(Problem::refused(&Refusal::UnknownJob { job })),
        }
    }
}

/// The request's name: the client's idempotency key, else its request id, else a new one.
pub(super) fn request_id<S: Store>(
    app: &App<S>,
    headers: &HeaderMap,
) -> Result<RequestId, Problem> {
    let id = given_id(headers).unwrap_or_else(|| Ok(new_id(app)));
    id.map(RequestId)
}

/// A name for a request that has none.
pub(super) fn new_id<S>(app: &App<S>) -> String {
    app.ids.request(id::now())
}

/// The name that the client gave.
pub(super) fn given_id(headers: &HeaderMap) -> Option<Result<String, Problem>> {
    let names = [IDEMPOTENCY_KEY_HEADER, REQUEST_ID_HEADER];
    let (name, value) = names
        .iter()
        .find_map(|name| headers.get(name).map(|value| (name, value)))?;
    let visible = value
        .to_str()
        .ok()
        .filter(|key| key.bytes().all(|byte| byte.is_ascii_graphic()));
    let fits = visible.filter(|key| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()));
    Some(fits.map(str::to_owned).ok_or_else(|| {
        Problem::bad_request(format!(
            "the {name} must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters"
        ))
    }))
}

/// Proposes a change; what is not success names the request.
pub(super) async fn propose<S: Store>(
    app: &App<S>,
    request: &RequestId,
    change: Change,
) -> Result<Effect, Problem> {
    let command = Command {
        request: request.clone(),
        at: id::now(),
        change,
    };
    let proposing = app.store.propose(command, Deadline::starting_now());
    let problem = match app.store.metrics().store.proposal(proposing).await {
        Proposal::Committed { effect } => return Ok(effect),
        Proposal::Rejected { refusal } => Problem::refused(&refusal),
        Proposal::Unavailable { cause } => Problem::unavailable(&cause),
        Proposal::Unknown => Problem::unknown(),
        Proposal::Broken { detail } => {
            tracing::error!(
                request = request.0,
                detail,
                "a command failed on every replica"
            );
            Problem::broken(detail)
        }
    };
    Err(problem.of_request(request))
}

/// Names the request in an answer.
pub(super) fn of_request(answer: impl IntoResponse, request: &RequestId) -> Response {
    let mut response = answer.into_response();
    // Checked to be a header value when it came in.
    if let Ok(id) = HeaderValue::from_str(&request.0) {
        response.headers_mut().insert(REQUEST_ID_HEADER, id);
    }
    response
}

/// Asks for a change of one job, and answers with the state that it leaves the job in.
pub(super) async fn transition<S: Store>(
    app: &App<S>,
    headers: &HeaderMap,
    job: &JobId,
    change: Change,
) -> Result<Response, Problem> {
    let request = request_id(app, headers)?;
    let state = match propose(app, &request, change).await? {
        Effect::Started => JobState::InProgress,
        Effect::Retried => JobState::Pending,
        Effect::Ended { state, .. }
        | Effect::Cancelled { state, .. }
        | Effect::Paused { state }
        | Effect::Parked { state, .. } => state,
        other => return Err(mismatch(&other)),
    };
    let told = Json(json!({ "id": job, "state": state }));
    Ok(of_request(told, &request))
}

/// Reads, and returns with the answer how to wrap it.
pub(super) async fn read<S: Store>(
    app: &App<S>,
    consistency: Option<&str>,
    query: Query,
) -> Result<(Answer, impl Fn(Value) -> Value), Problem> {
    let barrier = barrier(consistency)?;
    let reading = app.store.read(barrier, query, Deadline::starting_now());
    match reading.await {
        Reading::Done { answer, log_index } => {
            let consistency = barrier.as_str();
            Ok((answer, move |answer| {
                json!(Read {
                    answer,
                    consistency,
                    log_index
                })
            }))
        }
        Reading::Unavailable { cause } => Err(Problem::unavailable(&cause)),
        Reading::Broken { detail } => {
            tracing::error!(detail, "a read failed");
            Err(Problem::broken(detail))
        }
    }
}

/// What a client asks for by `consistency`.
pub(super) fn barrier(consistency: Option<&str>) -> Result<Barrier, Problem> {
    match consistency {
        None | Some("linearizable") => Ok(Barrier::Linearizable),
        Some("local") => Ok(Barrier::Local),
        Some(word) => Err(
            Problem::bad_request(format!("there is no consistency {word:?}"))
                .hint("use linearizable (the default) or local"),
        ),
    }
}

/// The store did something else than it was told.
pub(super) fn mismatch(answer: &impl std::fmt::Debug) -> Problem {
    // Its first word says which one; the rest may hold secrets of jobs.
    let text = format!("{answer:?}");
    let name = text
        .split(|character: char| !character.is_alphanumeric())
        .next();
    let name = name.unwrap_or_default();
    Problem::broken(format!("the store answered another question: {name}"))
}

pub(super) fn parse_state(word: &str) -> Result<JobState, Problem> {
    JobState::parse(word).ok_or_else(|| {
        let known = JobState::ALL.map(JobState::as_str).join(", ");
        Problem::bad_request(format!("there is no state {word:?}"))
            .hint(format!("states are {known}"))
    })
}

pub(super) fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| {
        Problem::bad_request(format!("{name} {text:?} is not a number this route takes"))
    })
}
