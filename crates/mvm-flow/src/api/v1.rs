//! Our own routes: what executions there are, what they did, and what they are told to do.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{body, error::ApiError, named::Named};
use crate::{
    ask::Started,
    engine::Engine,
    id::{ExecutionId, ModuleHash, UnixMillis},
    journal::{self, Journal, Module, Shown},
    record::{Record, What},
};

/// Executions of one page.
const PAGE_MAX: usize = 500;
const PAGE: usize = 50;

type App<J> = State<Arc<Engine<J>>>;

pub(super) async fn modules<J: Journal>(
    State(engine): App<J>,
) -> Result<Json<Vec<Module>>, ApiError> {
    Ok(Json(engine.journal().modules().await?))
}

pub(super) async fn module<J: Journal>(
    State(engine): App<J>,
    hash: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(hash) = hash.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let bytes = engine.journal().module_bytes(&ModuleHash(hash)).await?;
    Ok(([(header::CONTENT_TYPE, "application/wasm")], bytes).into_response())
}

/// What to start.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    /// The module.
    pub module: String,
    /// Its version; the one that was deployed last, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The workflow.
    pub workflow: String,
    /// Its input.
    #[serde(default)]
    pub input: Value,
}

/// What was started.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct StartedReply {
    /// Its id.
    pub id: ExecutionId,
}

/// Answers at once; the response is to be had at `/response`.
pub(super) async fn start<J: Journal>(
    State(engine): App<J>,
    body: Body,
) -> Result<Response, ApiError> {
    let start: StartRequest = body::json(body).await?;
    let version = match start.version {
        Some(version) => version,
        None => engine.newest(&start.module).await?,
    };
    let input = start.input.to_string();
    let id = engine
        .start(&start.module, &version, &start.workflow, input)
        .await?;
    Ok((StatusCode::CREATED, Json(StartedReply { id })).into_response())
}

/// Which executions to list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    state: Option<journal::State>,
    module: Option<String>,
    before: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn list<J: Journal>(
    State(engine): App<J>,
    query: Result<Query<List>, QueryRejection>,
) -> Result<Json<Vec<Shown>>, ApiError> {
    let Query(list) = query.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let before = list.before.map(|id| id.parse()).transpose()?;
    let page = journal::Page {
        state: list.state,
        module: list.module,
        before,
        limit: list.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX),
    };
    Ok(Json(engine.journal().list(page).await?))
}

pub(super) async fn show<J: Journal>(
    State(engine): App<J>,
    Named(id): Named,
) -> Result<Json<Shown>, ApiError> {
    Ok(Json(engine.journal().show(id).await?))
}

/// One record of a journal, with the number of its first frame.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Entry {
    /// Where it begins.
    pub frame: u64,
    /// The record.
    #[serde(flatten)]
    pub record: Record,
}

pub(super) async fn journal<J: Journal>(
    State(engine): App<J>,
    Named(id): Named,
) -> Result<Json<Vec<Entry>>, ApiError> {
    let records = engine.records(id).await?;
    let entry = |(frame, record)| Entry { frame, record };
    Ok(Json(records.into_iter().map(entry).collect()))
}

/// A line that a workflow logged.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LogLine {
    /// When.
    pub at: UnixMillis,
    /// At which level.
    pub level: String,
    /// The line.
    pub text: String,
}

pub(super) async fn logs<J: Journal>(
    State(engine): App<J>,
    Named(id): Named,
) -> Result<Json<Vec<LogLine>>, ApiError> {
    let records = engine.records(id).await?;
    let line = |(_, record)| match record {
        Record::Answered {
            what: Some(What::Log { level, text }),
            at,
            ..
        } => Some(LogLine { at, level, text }),
        _ => None,
    };
    Ok(Json(records.into_iter().filter_map(line).collect()))
}

/// What a workflow responded with.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ResponseReply {
    /// The workflow.
    pub id: ExecutionId,
    /// Its response; `null` also if it ended without one.
    pub response: Value,
}

/// Waits for the response. The same as the answer of the public interface to a start.
pub(super) async fn response<J: Journal>(
    State(engine): App<J>,
    Named(id): Named,
) -> Result<Json<ResponseReply>, ApiError> {
    let response = match engine.response(id).await? {
        Started::Response(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        Started::Silent => Value::Null,
        Started::Ended { reason } => return Err(ApiError::new(StatusCode::CONFLICT, reason)),
    };
    Ok(Json(ResponseReply { id, response }))
}

/// Why to cancel.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

pub(super) async fn cancel<J: Journal>(
    State(engine): App<J>,
    Named(id): Named,
    body: Body,
) -> Result<Json<Shown>, ApiError> {
    let cancel: Cancel = body::json_or_default(body).await?;
    engine.cancel(id, cancel.reason).await?;
    Ok(Json(engine.journal().show(id).await?))
}

pub(super) async fn pause<J: Journal>(
    State(engine): App<J>,
    Named(id): Named,
) -> Result<Json<Shown>, ApiError> {
    engine.journal().pause(id).await?;
    Ok(Json(engine.journal().show(id).await?))
}

pub(super) async fn resume<J: Journal>(
    State(engine): App<J>,
    Named(id): Named,
) -> Result<Json<Shown>, ApiError> {
    engine.journal().resume(id).await?;
    Ok(Json(engine.journal().show(id).await?))
}

/// From where to go on.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// The record at this frame, and all after it, are forgotten. If not given: from the last request that had no good answer;
    /// if there is none, from the line of the panic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

pub(super) async fn retry<J: Journal>(
    State(engine): App<J>,
    Named(id): Named,
    body: Body,
) -> Result<Json<Shown>, ApiError> {
    let retry: Retry = body::json_or_default(body).await?;
    engine.retry(id, retry.from).await?;
    Ok(Json(engine.journal().show(id).await?))
}
