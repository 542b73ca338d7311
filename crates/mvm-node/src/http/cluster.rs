//! The routes that tell how the node and its cluster are.

use std::sync::Arc;

use axum::{
    Json,
    extract::{RawQuery, State},
    response::IntoResponse,
};
use mvm_queue::Query;
use serde_json::{Value, json};

use super::{App, asking, form, problem::Problem};
use crate::{
    consensus::{Barrier, Unavailable},
    store::Store,
};

/// `GET /health`: the process lives and its runtime turns. Says nothing about the cluster.
pub(super) async fn health<S: Store>(State(app): State<Arc<App<S>>>) -> Json<Value> {
    Json(json!({ "status": "live", "node": app.node }))
}

/// `GET /ready`: a request to this node would be served now; a linearizable one, unless `consistency=local` asks for less.
///
/// A node that is on its way out is not ready for either, before its port closes.
pub(super) async fn ready<S: Store>(
    State(app): State<Arc<App<S>>>,
    RawQuery(query): RawQuery,
) -> Result<impl IntoResponse, Problem> {
    let [consistency] = form::fields(query.unwrap_or_default().as_bytes(), ["consistency"])?;
    let barrier = asking::barrier(consistency.as_deref())?;
    if app.host.control.is_stopping() {
        return Err(Problem::unavailable(&Unavailable::ShuttingDown));
    }
    let leader = match barrier {
        Barrier::Linearizable => {
            let status = app.store.status().await;
            status.unavailable.map_or(Ok(status.leader), Err)
        }
        Barrier::Local => {
            let glance = app.store.glance().await;
            let leader = glance.raft.and_then(|raft| raft.leader);
            glance.closed.map_or(Ok(leader), Err)
        }
    };
    let leader = leader.map_err(|cause| Problem::unavailable(&cause))?;
    if barrier == Barrier::Local {
        // The database answers, too.
        drop(asking::read(&app, consistency.as_deref(), Query::Stats).await?);
    }
    Ok(Json(
        json!({ "status": "ready", "node": app.node, "leader": leader }),
    ))
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
