//! The routes of the node's own worker. They concern the node that is asked, and it alone.

use std::sync::Arc;

use axum::{Json, body::Body, extract::State, http::HeaderMap};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{App, body, problem::Problem};
use crate::{store::Store, worker};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Drain {
    draining: bool,
}

/// `GET /api/v1/node`
pub(super) async fn node<S: Store>(State(app): State<Arc<App<S>>>) -> Json<Value> {
    Json(view(&app))
}

/// `POST /api/v1/node/drain`
pub(super) async fn drain<S: Store>(
    State(app): State<Arc<App<S>>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let Drain { draining } = body::json(&headers, body).await?;
    app.host.control.drain(draining);
    tracing::info!(draining, "a client changed whether this node takes jobs");
    Ok(Json(view(&app)))
}

fn view<S: Store>(app: &App<S>) -> Value {
    let control = &app.host.control;
    json!({
        "node": app.node,
        "slots": control.slots(),
        "busy": control.busy(),
        "draining": control.is_draining(),
        "labels": app.host.labels,
        "kinds": worker::kinds(),
    })
}
