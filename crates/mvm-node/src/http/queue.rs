//! The routes of the queue.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    App,
    body::{self, BODY_BYTES_MAX, Encoding},
    form,
    problem::{Problem, REQUEST_ID_HEADER},
};
use crate::{
    command::{
        Answer, Barrier, Change, Command, Cursor, Effect, Proposal, Query, Reading, RequestId,
    },
    id,
    job::{FETCH_KIND, FencingToken, JobId, JobState},
    store::{Deadline, Store},
};

/// Jobs on a page of the list unless the client asks for another number.
pub const LIST_LIMIT_DEFAULT: u32 = 100;

/// Jobs on a page of the list at most.
pub const LIST_LIMIT_MAX: u32 = 500;

const IDEMPOTENCY_KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;
const URL_BYTES_MAX: usize = 2_048;
const KIND_BYTES_MAX: usize = 64;
const KINDS_MAX: usize = 16;
const WORKER_BYTES_MAX: usize = 128;

type Shared<S> = State<Arc<App<S>>>;
type Answered = Result<Response, Problem>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewJob {
    url: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Publish {
    kind: String,
    #[serde(default)]
    payload: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    worker: String,
    #[serde(default)]
    kinds: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetStatus {
    state: String,
    token: Option<FencingToken>,
}

/// What every read says besides its answer.
#[derive(Serialize)]
struct Read<T> {
    #[serde(flatten)]
    answer: T,
    consistency: &'static str,
    log_index: u64,
}

/// `POST /new-job`
pub(super) async fn new_job<S: Store>(
    State(app): Shared<S>,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    let request = request_id(&app, &headers)?;
    let encoding = body::encoding(&headers)?;
    let bytes = body::read(&headers, body, BODY_BYTES_MAX).await?;
    let url = match encoding {
        Encoding::Json => body::parse_json::<NewJob>(&bytes)?.url,
        Encoding::Form => {
            let [url] = form::fields(&bytes, ["url"])?;
            url
        }
    };
    let url = check_url(url.as_deref())?;
    submit(&app, request, FETCH_KIND.into(), json!({ "url": url })).await
}

/// `POST /queue/publish`
pub(super) async fn publish<S: Store>(
    State(app): Shared<S>,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    let request = request_id(&app, &headers)?;
    let Publish { kind, payload } = body::json(&headers, body).await?;
    check_kind(&kind)?;
    if kind == FETCH_KIND {
        check_url(payload.get("url").and_then(Value::as_str))?;
    }
    submit(&app, request, kind, payload).await
}

async fn submit<S: Store>(
    app: &App<S>,
    request: RequestId,
    kind: String,
    payload: Value,
) -> Answered {
    let at = id::now();
    let change = Change::Submit {
        job: app.ids.job(at),
        kind,
        payload,
        submitted_on: app.node,
    };
    propose(
        app,
        Command {
            request,
            at,
            change,
        },
    )
    .await
}

/// `POST /queue/claim`
pub(super) async fn claim<S: Store>(
    State(app): Shared<S>,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    let request = request_id(&app, &headers)?;
    let Claim { worker, kinds } = body::json(&headers, body).await?;
    if worker.is_empty() || worker.len() > WORKER_BYTES_MAX || worker.chars().any(char::is_control)
    {
        let detail = format!(
            "worker must be a name of 1 to {WORKER_BYTES_MAX} bytes without control characters"
        );
        return Err(Problem::bad_request(detail));
    }
    if kinds.len() > KINDS_MAX {
        return Err(Problem::bad_request(format!(
            "kinds has {} entries; at most {KINDS_MAX} are taken",
            kinds.len()
        )));
    }
    kinds.iter().try_for_each(|kind| check_kind(kind))?;
    propose(
        &app,
        Command {
            request,
            at: id::now(),
            change: Change::Claim { worker, kinds },
        },
    )
    .await
}

/// `POST /queue/status/{id}`
pub(super) async fn set_status<S: Store>(
    State(app): Shared<S>,
    Path(job): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    let request = request_id(&app, &headers)?;
    let SetStatus { state, token } = body::json(&headers, body).await?;
    let change = Change::Move {
        job: JobId(job),
        target: parse_state(&state)?,
        token,
    };
    propose(
        &app,
        Command {
            request,
            at: id::now(),
            change,
        },
    )
    .await
}

/// `GET /queue/status/{id}`
pub(super) async fn status<S: Store>(
    State(app): Shared<S>,
    Path(job): Path<String>,
    RawQuery(query): RawQuery,
) -> Answered {
    let [consistency] = form::fields(query.unwrap_or_default().as_bytes(), ["consistency"])?;
    let job = JobId(job);
    let (answer, read) = read(
        &app,
        consistency.as_deref(),
        Query::Job { job: job.clone() },
    )
    .await?;
    match answer {
        Answer::Job { job: Some(job) } => Ok(Json(read(json!({ "job": job }))).into_response()),
        Answer::Job { job: None } => {
            Err(Problem::refused(&crate::job::Refusal::UnknownJob { job }))
        }
        other => Err(mismatch(&other)),
    }
}

/// `GET /queue/list`
pub(super) async fn list<S: Store>(State(app): Shared<S>, RawQuery(query): RawQuery) -> Answered {
    let query = query.unwrap_or_default();
    let [limit, after, state, consistency] =
        form::fields(query.as_bytes(), ["limit", "after", "state", "consistency"])?;
    let limit = match limit {
        None => LIST_LIMIT_DEFAULT,
        Some(text) => number::<u32>("limit", &text)
            .ok()
            .filter(|limit| (1..=LIST_LIMIT_MAX).contains(limit))
            .ok_or_else(|| {
                Problem::bad_request(format!(
                    "limit {text:?} is not between 1 and {LIST_LIMIT_MAX}"
                ))
            })?,
    };
    let after = after
        .map(|text| number("after", &text).map(Cursor))
        .transpose()?;
    let state = state.map(|word| parse_state(&word)).transpose()?;
    let (answer, read) = read(
        &app,
        consistency.as_deref(),
        Query::List {
            after,
            limit,
            state,
        },
    )
    .await?;
    match answer {
        Answer::Jobs { jobs, next } => {
            Ok(Json(read(json!({ "jobs": jobs, "next": next }))).into_response())
        }
        other => Err(mismatch(&other)),
    }
}

/// `GET /queue/stats`
pub(super) async fn stats<S: Store>(State(app): Shared<S>, RawQuery(query): RawQuery) -> Answered {
    let [consistency] = form::fields(query.unwrap_or_default().as_bytes(), ["consistency"])?;
    let (answer, read) = read(&app, consistency.as_deref(), Query::Stats).await?;
    match answer {
        Answer::Stats { counts } => {
            let total: u64 = counts.iter().map(|(_, count)| count).sum();
            let counts: Map<String, Value> = counts
                .into_iter()
                .map(|(state, count)| (state.to_string(), count.into()))
                .collect();
            Ok(Json(read(json!({ "counts": counts, "total": total }))).into_response())
        }
        other => Err(mismatch(&other)),
    }
}

/// Proposes a command and turns every outcome into an answer that names the request.
async fn propose<S: Store>(app: &App<S>, command: Command) -> Answered {
    let request = command.request.clone();
    let proposal = app.store.propose(command, Deadline::starting_now()).await;
    let problem = match proposal {
        Proposal::Committed { effect } => return Ok(committed(effect, &request)),
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
    Err(problem.of_request(&request))
}

fn committed(effect: Effect, request: &RequestId) -> Response {
    let mut response = match effect {
        Effect::Submitted { job } => {
            let location = format!("/queue/status/{}", job.id);
            (
                StatusCode::CREATED,
                [(header::LOCATION, location)],
                Json(job),
            )
                .into_response()
        }
        Effect::Claimed {
            claim: Some((job, token)),
        } => Json(json!({ "job": job, "token": token })).into_response(),
        Effect::Claimed { claim: None } => StatusCode::NO_CONTENT.into_response(),
        Effect::Moved { job } => Json(job).into_response(),
    };
    // Checked to be a header value when it came in.
    if let Ok(id) = HeaderValue::from_str(&request.0) {
        response.headers_mut().insert(REQUEST_ID_HEADER, id);
    }
    response
}

/// Reads, and returns with the answer how to wrap it.
async fn read<S: Store>(
    app: &App<S>,
    consistency: Option<&str>,
    query: Query,
) -> Result<(Answer, impl Fn(Value) -> Value), Problem> {
    let barrier = match consistency {
        None | Some("linearizable") => Barrier::Linearizable,
        Some("local") => Barrier::Local,
        Some(word) => {
            return Err(
                Problem::bad_request(format!("there is no consistency {word:?}"))
                    .hint("use linearizable (the default) or local"),
            );
        }
    };
    match app
        .store
        .read(barrier, query, Deadline::starting_now())
        .await
    {
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

fn mismatch(answer: &Answer) -> Problem {
    Problem::broken(format!("the store answered another question: {answer:?}"))
}

/// The client's idempotency key, or a new id.
fn request_id<S: Store>(app: &App<S>, headers: &HeaderMap) -> Result<RequestId, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY_HEADER) else {
        return Ok(RequestId(app.ids.request(id::now())));
    };
    let visible = value
        .to_str()
        .ok()
        .filter(|key| key.bytes().all(|byte| byte.is_ascii_graphic()));
    match visible.filter(|key| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len())) {
        Some(key) => Ok(RequestId(key.to_owned())),
        None => Err(Problem::bad_request(format!(
            "the idempotency-key must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters"
        ))),
    }
}

fn check_url(url: Option<&str>) -> Result<&str, Problem> {
    let bad = |detail: &str| {
        Err(Problem::bad_request(detail)
            .hint("send url=http://... as a form, or {\"url\": \"http://...\"} as JSON"))
    };
    let Some(url) = url.filter(|url| !url.is_empty()) else {
        return bad("the job has no url");
    };
    if url.len() > URL_BYTES_MAX {
        return bad(&format!(
            "the url has {} bytes; at most {URL_BYTES_MAX} are taken",
            url.len()
        ));
    }
    if url
        .chars()
        .any(|character| character.is_whitespace() || character.is_control())
    {
        return bad("the url contains white space or control characters");
    }
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    match rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default()) {
        None => bad("the url does not begin with http:// or https://"),
        Some("") => bad("the url names no host"),
        Some(_) => Ok(url),
    }
}

fn check_kind(kind: &str) -> Result<(), Problem> {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    if (1..=KIND_BYTES_MAX).contains(&kind.len()) && kind.bytes().all(plain) {
        return Ok(());
    }
    Err(
        Problem::bad_request(format!("{kind:?} is not a kind")).hint(format!(
            "kinds are 1 to {KIND_BYTES_MAX} of the characters a-z 0-9 . _ -"
        )),
    )
}

fn parse_state(word: &str) -> Result<JobState, Problem> {
    JobState::parse(word).ok_or_else(|| {
        let known = JobState::ALL.map(JobState::as_str).join(", ");
        Problem::bad_request(format!("there is no state {word:?}"))
            .hint(format!("states are {known}"))
    })
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| {
        Problem::bad_request(format!("{name} {text:?} is not a number this route takes"))
    })
}
