//! The routes that the seed of this project names: short forms of those in [`super::v1`].

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use mvm_queue::{Change, FETCH_KIND, FLOW_KIND, FencingToken, JobSpec, JobState, Report};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    App,
    asking::{self, NamedJob, of_request},
    body::{self, BODY_BYTES_MAX, Encoding},
    form,
    problem::Problem,
    v1,
    view::ClaimView,
};
use crate::store::Store;

pub(super) const URL_BYTES_MAX: usize = 2_048;
pub(super) const KIND_BYTES_MAX: usize = 64;

type Shared<S> = State<Arc<App<S>>>;
type Answered = Result<Response, Problem>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewJob {
    url: Option<String>,
    kind: Option<String>,
    module: Option<String>,
    workflow: Option<String>,
}

/// What runs for a job of kind `flow` that names nothing but a URL.
const CRAWLER: (&str, &str) = ("crawler", "crawl");

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
    kinds: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetStatus {
    state: String,
    token: Option<FencingToken>,
}

/// `POST /new-job`
pub(super) async fn new_job<S: Store>(
    State(app): Shared<S>,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    let encoding = body::encoding(&headers)?;
    let bytes = body::read(&headers, body, BODY_BYTES_MAX).await?;
    let new = match encoding {
        Encoding::Json => body::parse_json::<NewJob>(&bytes)?,
        Encoding::Form => {
            let [url, kind, module, workflow] =
                form::fields(&bytes, ["url", "kind", "module", "workflow"])?;
            NewJob {
                url,
                kind,
                module,
                workflow,
            }
        }
    };
    let url = check_url(new.url.as_deref())?;
    let input = json!({ "url": url });
    let spec = match new.kind.as_deref() {
        None | Some(FETCH_KIND) if new.module.is_none() && new.workflow.is_none() => {
            JobSpec::new(FETCH_KIND, input)
        }
        Some(FLOW_KIND) => {
            let (module, workflow) = CRAWLER;
            let module = new.module.as_deref().unwrap_or(module);
            let workflow = new.workflow.as_deref().unwrap_or(workflow);
            let payload = json!({ "module": module, "workflow": workflow, "input": input });
            JobSpec::new(FLOW_KIND, payload)
        }
        _ => {
            return Err(Problem::bad_request(format!(
                "a new job is of kind {FETCH_KIND}, or of kind {FLOW_KIND} with a module and a workflow"
            ))
            .hint("POST /api/v1/jobs takes jobs of any kind"));
        }
    };
    v1::submit(&app, &headers, spec).await
}

/// `POST /queue/publish`
pub(super) async fn publish<S: Store>(
    State(app): Shared<S>,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    let Publish { kind, payload } = body::json(&headers, body).await?;
    check_kind(&kind)?;
    v1::submit(&app, &headers, JobSpec::new(kind, payload)).await
}

/// `POST /queue/claim`
pub(super) async fn claim<S: Store>(
    State(app): Shared<S>,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    let Claim { worker, kinds } = body::json(&headers, body).await?;
    let (claims, request) = v1::take(&app, &headers, worker, 1, BTreeSet::new(), kinds).await?;
    Ok(match claims.first() {
        Some(claim) => {
            let job = json!({ "job": ClaimView::from(claim), "token": claim.token });
            of_request(Json(job), &request)
        }
        None => of_request(StatusCode::NO_CONTENT, &request),
    })
}

/// `POST /queue/status/{id}`
pub(super) async fn set_status<S: Store>(
    State(app): Shared<S>,
    NamedJob(job): NamedJob,
    headers: HeaderMap,
    body: Body,
) -> Answered {
    let SetStatus { state, token } = body::json(&headers, body).await?;
    let target = asking::parse_state(&state)?;
    let id = job;
    let finish = |report| {
        let token = token.ok_or_else(|| Problem::token_missing(target))?;
        Ok::<_, Problem>(Change::Finish {
            job: id.clone(),
            token,
            report,
        })
    };
    let change = match target {
        JobState::InProgress => Change::Start {
            job: id.clone(),
            token: token.ok_or_else(|| Problem::token_missing(target))?,
        },
        JobState::Completed => finish(Report::Succeeded {
            result: Value::Null,
        })?,
        JobState::Failed => finish(Report::failed("the worker said so", true))?,
        JobState::Cancelled if token.is_some() => finish(Report::Cancelled)?,
        JobState::Cancelled => Change::Cancel {
            job: id.clone(),
            reason: None,
        },
        JobState::Pending | JobState::Claimed | JobState::Dead => {
            return Err(Problem::bad_request(format!(
                "nobody moves a job to {target} by this route"
            ))
            .hint("use in_progress, completed, failed or cancelled"));
        }
    };
    asking::transition(&app, &headers, &id, change).await
}

/// `GET /queue/status/{id}`
pub(super) async fn status<S: Store>(app: Shared<S>, job: NamedJob, query: RawQuery) -> Answered {
    v1::job(app, job, query).await
}

/// `GET /queue/list`
pub(super) async fn list<S: Store>(app: Shared<S>, query: RawQuery) -> Answered {
    v1::jobs(app, query).await
}

/// `GET /queue/stats`
pub(super) async fn stats<S: Store>(app: Shared<S>, query: RawQuery) -> Answered {
    v1::stats(app, query).await.map(IntoResponse::into_response)
}

pub(super) fn check_url(url: Option<&str>) -> Result<&str, Problem> {
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

pub(super) fn check_kind(kind: &str) -> Result<(), Problem> {
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
