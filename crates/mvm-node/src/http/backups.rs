//! Backups: make one on every node, list those of this node, fetch one.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde_json::json;

use super::{App, asking::Named, download::download, problem::Problem};
use crate::store::{BackupMade, BackupsUnread, Store};

const CONTENT_TYPE: &str = "application/vnd.sqlite3";

/// `POST /api/v1/backups`
pub(super) async fn make<S: Store>(
    State(app): State<Arc<App<S>>>,
) -> Result<impl IntoResponse, Problem> {
    match app.store.back_up().await {
        BackupMade::Done { made, is_new } => {
            let status = match is_new {
                true => StatusCode::CREATED,
                false => StatusCode::OK,
            };
            let location = [(header::LOCATION, format!("/api/v1/backups/{}", made.name))];
            Ok((status, location, Json(made)))
        }
        BackupMade::Unavailable { cause } => Err(Problem::unavailable(&cause)),
        BackupMade::Failed { node, detail } => Err(Problem::backup_failed(node, &detail)),
        BackupMade::Unknown { detail } => Err(Problem::backup_unknown(detail)),
    }
}

/// `GET /api/v1/backups`
pub(super) async fn list<S: Store>(
    State(app): State<Arc<App<S>>>,
) -> Result<impl IntoResponse, Problem> {
    let backups = app.store.backups().await.map_err(unread)?;
    Ok(Json(json!({ "node": app.node, "backups": backups })))
}

/// `GET /api/v1/backups/{backup}`
pub(super) async fn fetch<S: Store>(
    State(app): State<Arc<App<S>>>,
    Named(name): Named<String>,
) -> Result<impl IntoResponse, Problem> {
    let opened = app.store.open_backup(&name).await;
    let contents = opened.map_err(unread)?.ok_or_else(|| {
        Problem::not_found(format!("this node has no backup {name}"))
            .hint("GET /api/v1/backups lists those it has")
    })?;
    let body = download(contents.reader, contents.bytes);
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], body))
}

fn unread(error: BackupsUnread) -> Problem {
    match error {
        BackupsUnread::Unavailable(cause) => Problem::unavailable(&cause),
        BackupsUnread::Disk(error) => Problem::unreadable(error.to_string()),
    }
}
