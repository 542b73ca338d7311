//! The routes that tell how the node and its cluster are.

use std::sync::Arc;

use axum::{Json, extract::State, response::IntoResponse};
use serde_json::{Value, json};

use super::{App, problem::Problem};
use crate::store::Store;

/// `GET /health`: the process lives and its runtime turns. Says nothing about the cluster.
pub(super) async fn health<S: Store>(State(app): State<Arc<App<S>>>) -> Json<Value> {
    Json(json!({ "status": "live", "node": app.node }))
}

/// `GET /ready`: a linearizable request to this node would be served now.
pub(super) async fn ready<S: Store>(
    State(app): State<Arc<App<S>>>,
) -> Result<impl IntoResponse, Problem> {
    let status = app.store.status().await;
    match &status.unavailable {
        None => Ok(Json(
            json!({ "status": "ready", "node": app.node, "leader": status.leader }),
        )),
        Some(cause) => Err(Problem::unavailable(cause)),
    }
}

/// `GET /cluster`: what this node knows, also when it is cut off.
pub(super) async fn cluster<S: Store>(State(app): State<Arc<App<S>>>) -> Json<Value> {
    let status = app.store.status().await;
    Json(json!({
        "node": status.node,
        "leader": status.leader,
        "term": status.term,
        "last_log_index": status.last_log_index,
        "applied_index": status.applied_index,
        "quorum": status.unavailable.is_none(),
        "reason": status.unavailable.as_ref().map(ToString::to_string),
        "members": status.members,
    }))
}
