//! The interface of the queue, version 1: everything under `/api/v1`.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use mvm_queue::{
    Answer, Change, Claim, Cursor, Effect, FETCH_KIND, FLOW_KIND, FencingToken, Filter, JobId,
    JobSpec, Order, PAGE_MAX, Query, Refusal, Report, RequestId, UnixMillis, validate_offer,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    App,
    asking::{
        NamedJob, mismatch, number, of_request, parse_state, propose, read, request_id, transition,
    },
    body, form,
    problem::Problem,
    queue::{check_kind, check_url},
    view::{ChunkView, ClaimView, JobView},
};
use crate::{
    flow::{self, Payload},
    id,
    store::Store,
    worker::{PROCESS_KIND, Process},
};

/// Jobs on a page of the list unless the client asks for another number.
pub const LIST_LIMIT_DEFAULT: u32 = 100;

/// Jobs on a page of the list at most.
pub const LIST_LIMIT_MAX: u32 = PAGE_MAX;

/// Log chunks on a page.
pub(super) const LOG_CHUNKS_MAX: u32 = 64;

type Shared<S> = State<Arc<App<S>>>;
type Answered = Result<Response, Problem>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Offer {
    worker: String,
    #[serde(default = "one")]
    slots: u32,
    #[serde(default)]
    labels: BTreeSet<String>,
    #[serde(default)]
    kinds: BTreeSet<String>,
}

const fn one() -> u32 {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    token: FencingToken,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Finish {
    token: FencingToken,
    report: Report,
}

/// `POST /api/v1/jobs`
pub(super) async fn submit_job<S: Store>(
    State(app): Shared<S>,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    let spec: JobSpec = body::json(&headers, body).await?;
    submit(&app, &headers, spec).await
}

/// Submits a job. The request's name becomes the job's idempotency key, unless it has one.
pub(super) async fn submit<S: Store>(
    app: &App<S>,
    headers: &HeaderMap,
    mut spec: JobSpec,
) -> Answered {
    let request = request_id(app, headers)?;
    check_spec(&spec)?;
    // The store remembers requests for a while, and keys for as long as their jobs.
    spec.idempotency_key
        .get_or_insert_with(|| request.0.clone());
    if spec.kind == FLOW_KIND {
        flow::pin(&*app.store, &mut spec, &app.host.flow_limits)
            .await
            .map_err(Problem::bad_request)?;
    }
    let job = app.ids.job_of(&spec, id::now());
    spec.validate().map_err(Problem::invalid)?;
    let change = Change::Submit {
        job,
        submitted_on: app.node,
        spec: Box::new(spec),
        tick: None,
    };
    let effect = propose(app, &request, change).await?;
    let Effect::Submitted {
        job,
        existing,
        state,
        waits_for,
    } = effect
    else {
        return Err(mismatch(&effect));
    };
    let status = match existing {
        true => StatusCode::OK,
        false => StatusCode::CREATED,
    };
    let location = [(header::LOCATION, format!("/api/v1/jobs/{job}"))];
    let told = Json(json!({ "id": job, "state": state, "waits_for": waits_for }));
    Ok(of_request((status, location, told), &request))
}

/// Checks what the node's own workers would refuse.
pub(super) fn check_spec(spec: &JobSpec) -> Result<(), Problem> {
    check_kind(&spec.kind)?;
    if spec.kind == FETCH_KIND {
        check_url(spec.payload.get("url").and_then(Value::as_str))?;
    }
    if spec.kind == FLOW_KIND {
        Payload::of(spec).map_err(Problem::bad_request)?;
    }
    if spec.kind == PROCESS_KIND {
        Process::parse(&spec.payload).map_err(Problem::bad_request)?;
    }
    Ok(())
}

/// `POST /api/v1/claims`
pub(super) async fn claim<S: Store>(
    State(app): Shared<S>,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    let Offer {
        worker,
        slots,
        labels,
        kinds,
    } = body::json(&headers, body).await?;
    let (claims, request) = take(&app, &headers, worker, slots, labels, kinds).await?;
    let claims: Vec<_> = claims.iter().map(ClaimView::from).collect();
    Ok(of_request(Json(json!({ "claims": claims })), &request))
}

/// Claims jobs for a worker.
pub(super) async fn take<S: Store>(
    app: &App<S>,
    headers: &HeaderMap,
    worker: String,
    slots: u32,
    labels: BTreeSet<String>,
    kinds: BTreeSet<String>,
) -> Result<(Vec<Claim>, RequestId), Problem> {
    if worker.chars().any(char::is_control) {
        return Err(Problem::bad_request(
            "the worker's name has control characters",
        ));
    }
    kinds.iter().try_for_each(|kind| check_kind(kind))?;
    validate_offer(&worker, slots, &labels, &kinds).map_err(Problem::invalid)?;
    let request = request_id(app, headers)?;
    let change = Change::Claim {
        node: app.node,
        worker,
        slots,
        labels,
        kinds,
    };
    match propose(app, &request, change).await? {
        Effect::Claimed { claims } => Ok((claims, request)),
        other => Err(mismatch(&other)),
    }
}

/// `POST /api/v1/jobs/{id}/start`
pub(super) async fn start<S: Store>(
    State(app): Shared<S>,
    NamedJob(job): NamedJob,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    let Held { token } = body::json(&headers, body).await?;
    let change = Change::Start {
        job: job.clone(),
        token,
    };
    transition(&app, &headers, &job, change).await
}

/// `POST /api/v1/jobs/{id}/renew`
pub(super) async fn renew<S: Store>(
    State(app): Shared<S>,
    NamedJob(job): NamedJob,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    let Held { token } = body::json(&headers, body).await?;
    let request = request_id(&app, &headers)?;
    let change = Change::Renew { job, token };
    match propose(&app, &request, change).await? {
        Effect::Renewed {
            renewals,
            cancel,
            pause,
        } => {
            let told = json!({ "renewals": renewals, "cancel": cancel, "pause": pause });
            Ok(of_request(Json(told), &request))
        }
        other => Err(mismatch(&other)),
    }
}

/// `POST /api/v1/jobs/{id}/finish`
pub(super) async fn finish<S: Store>(
    State(app): Shared<S>,
    NamedJob(job): NamedJob,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    let Finish { token, report } = body::json(&headers, body).await?;
    report.validate().map_err(Problem::invalid)?;
    let change = Change::Finish {
        job: job.clone(),
        token,
        report,
    };
    transition(&app, &headers, &job, change).await
}

/// `POST /api/v1/jobs/{id}/cancel`
pub(super) async fn cancel<S: Store>(
    State(app): Shared<S>,
    NamedJob(job): NamedJob,
    headers: HeaderMap,
) -> Answered {
    let change = Change::Cancel {
        job: job.clone(),
        reason: None,
    };
    transition(&app, &headers, &job, change).await
}

/// `POST /api/v1/jobs/{id}/retry`
pub(super) async fn retry<S: Store>(
    State(app): Shared<S>,
    NamedJob(job): NamedJob,
    headers: HeaderMap,
) -> Answered {
    let change = Change::Retry {
        job: job.clone(),
        keep_frames: None,
    };
    transition(&app, &headers, &job, change).await
}

/// `GET /api/v1/jobs/{id}`
pub(super) async fn job<S: Store>(
    State(app): Shared<S>,
    NamedJob(job): NamedJob,
    RawQuery(query): RawQuery,
) -> Answered {
    let [consistency] = form::fields(query.unwrap_or_default().as_bytes(), ["consistency"])?;
    let (job, wrap) = one_job(&app, consistency.as_deref(), &job).await?;
    Ok(Json(wrap(json!({ "job": job }))).into_response())
}

/// Reads a job that must exist.
async fn one_job<S: Store>(
    app: &App<S>,
    consistency: Option<&str>,
    job: &JobId,
) -> Result<(Value, impl Fn(Value) -> Value), Problem> {
    let query = Query::Job { job: job.clone() };
    let (answer, wrap) = read(app, consistency, query).await?;
    match answer {
        Answer::Job { job: Some(job) } => Ok((json!(JobView::from(&*job)), wrap)),
        Answer::Job { job: None } => {
            Err(Problem::refused(&Refusal::UnknownJob { job: job.clone() }))
        }
        other => Err(mismatch(&other)),
    }
}

/// `GET /api/v1/jobs`
pub(super) async fn jobs<S: Store>(State(app): Shared<S>, RawQuery(query): RawQuery) -> Answered {
    let query = query.unwrap_or_default();
    let [
        limit,
        after,
        order,
        state,
        label,
        submitted_on,
        claimed_on,
        created_from_ms,
        created_before_ms,
        consistency,
    ] = form::fields(
        query.as_bytes(),
        [
            "limit",
            "after",
            "order",
            "state",
            "label",
            "submitted_on",
            "claimed_on",
            "created_from_ms",
            "created_before_ms",
            "consistency",
        ],
    )?;
    let filter = Filter {
        state: state.map(|word| parse_state(&word)).transpose()?,
        label,
        submitted_on: maybe("submitted_on", submitted_on)?,
        claimed_on: maybe("claimed_on", claimed_on)?,
        created_from_ms: maybe("created_from_ms", created_from_ms)?.map(UnixMillis),
        created_before_ms: maybe("created_before_ms", created_before_ms)?.map(UnixMillis),
    };
    let query = Query::List {
        after: maybe("after", after)?.map(Cursor),
        limit: list_limit(limit)?,
        order: match order.as_deref() {
            None | Some("oldest_first") => Order::OldestFirst,
            Some("newest_first") => Order::NewestFirst,
            Some(word) => {
                return Err(Problem::bad_request(format!("there is no order {word:?}"))
                    .hint("use oldest_first (the default) or newest_first"));
            }
        },
        filter,
    };
    let (answer, wrap) = read(&app, consistency.as_deref(), query).await?;
    match answer {
        Answer::Jobs { jobs, next } => {
            let jobs: Vec<_> = jobs.iter().map(JobView::from).collect();
            Ok(Json(wrap(json!({ "jobs": jobs, "next": next }))).into_response())
        }
        other => Err(mismatch(&other)),
    }
}

fn list_limit(limit: Option<String>) -> Result<u32, Problem> {
    let Some(text) = limit else {
        return Ok(LIST_LIMIT_DEFAULT);
    };
    let limit = number::<u32>("limit", &text).ok();
    limit
        .filter(|limit| (1..=LIST_LIMIT_MAX).contains(limit))
        .ok_or_else(|| {
            Problem::bad_request(format!(
                "limit {text:?} is not between 1 and {LIST_LIMIT_MAX}"
            ))
        })
}

fn maybe<T: std::str::FromStr>(name: &str, text: Option<String>) -> Result<Option<T>, Problem> {
    text.map(|text| number(name, &text)).transpose()
}

/// `GET /api/v1/jobs/{id}/attempts`
pub(super) async fn attempts<S: Store>(
    State(app): Shared<S>,
    NamedJob(job): NamedJob,
    RawQuery(query): RawQuery,
) -> Answered {
    let [consistency] = form::fields(query.unwrap_or_default().as_bytes(), ["consistency"])?;
    let query = Query::Attempts { job: job.clone() };
    let (answer, wrap) = read(&app, consistency.as_deref(), query).await?;
    match answer {
        Answer::Attempts { attempts } => {
            if attempts.is_empty() {
                // Nothing of a job that there is, or no such job.
                drop(one_job(&app, consistency.as_deref(), &job).await?);
            }
            Ok(Json(wrap(json!({ "attempts": attempts }))).into_response())
        }
        other => Err(mismatch(&other)),
    }
}

/// `GET /api/v1/jobs/{id}/log`
pub(super) async fn log<S: Store>(
    State(app): Shared<S>,
    NamedJob(job): NamedJob,
    RawQuery(query): RawQuery,
) -> Answered {
    let query = query.unwrap_or_default();
    let [attempt, from, consistency] =
        form::fields(query.as_bytes(), ["attempt", "from", "consistency"])?;
    let attempt = attempt.ok_or_else(|| {
        Problem::bad_request("the attempt is missing")
            .hint("GET /api/v1/jobs/{id}/attempts lists them; attempt is the token")
    })?;
    let query = Query::Log {
        job: job.clone(),
        token: FencingToken(number("attempt", &attempt)?),
        from: maybe("from", from)?.unwrap_or(0),
        limit: LOG_CHUNKS_MAX,
    };
    let (answer, wrap) = read(&app, consistency.as_deref(), query).await?;
    match answer {
        Answer::Log { chunks } => {
            if chunks.is_empty() {
                // Nothing of a job that there is, or no such job.
                drop(one_job(&app, consistency.as_deref(), &job).await?);
            }
            let chunks: Vec<_> = chunks.iter().map(ChunkView::from).collect();
            Ok(Json(wrap(json!({ "chunks": chunks }))).into_response())
        }
        other => Err(mismatch(&other)),
    }
}

/// `GET /api/v1/stats`
pub(super) async fn stats<S: Store>(
    State(app): Shared<S>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Problem> {
    let [consistency] = form::fields(query.unwrap_or_default().as_bytes(), ["consistency"])?;
    let (answer, wrap) = read(&app, consistency.as_deref(), Query::Stats).await?;
    match answer {
        Answer::Stats { counts } => {
            let total: u64 = counts.iter().map(|(_, count)| count).sum();
            let counts: Map<String, Value> = counts
                .into_iter()
                .map(|(state, count)| (state.to_string(), count.into()))
                .collect();
            Ok(Json(wrap(json!({ "counts": counts, "total": total }))))
        }
        other => Err(mismatch(&other)),
    }
}
