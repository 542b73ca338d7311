//! The routes that the public clients of flawless 1.0.0-beta.3 speak. They read the body and not the status.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{body, error::ApiError, named::Named, upload};
use crate::{ask::Started, engine::Engine, journal::Journal};

pub(super) async fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Answers with the module's name and version, as its exports say them.
pub(super) async fn deploy<J: Journal>(
    State(engine): State<Arc<Engine<J>>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let bytes = upload::module(request).await?;
    let module = engine.deploy(bytes).await?;
    Ok(Json(json!({ "ok": module })))
}

#[derive(Deserialize)]
pub(super) struct Start {
    module: String,
    version: String,
    workflow: String,
    /// JSON text.
    #[serde(default = "null")]
    input: String,
}

fn null() -> String {
    "null".into()
}

/// Answers once there is a response: at once for a workflow that takes no `Response`.
pub(super) async fn start<J: Journal>(
    State(engine): State<Arc<Engine<J>>>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let start: Start = body::json(body).await?;
    let (id, started) = engine
        .call(&start.module, &start.version, &start.workflow, start.input)
        .await?;
    match started {
        // The clients have no other word for a response of nothing.
        Started::Response(text) if text == "null" => Ok(ok(id.to_string(), None)),
        Started::Response(text) => Ok(ok(id.to_string(), Some(text))),
        Started::Silent => Ok(ok(id.to_string(), None)),
        Started::Ended { reason } => Err(ApiError::bad_request(reason)),
    }
}

fn ok(id: String, response: Option<String>) -> Json<Value> {
    Json(json!({ "ok": { "id": id, "response": response } }))
}

/// A message, as it is sent.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SendRequest {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// JSON text.
    pub data: String,
}

pub(super) async fn send<J: Journal>(
    State(engine): State<Arc<Engine<J>>>,
    Named(id): Named,
    body: Body,
) -> Result<Json<&'static str>, ApiError> {
    let message: SendRequest = body::json(body).await?;
    engine.send(id, message.kind, message.data).await?;
    Ok(Json("ok"))
}
