//! Backups: make one on every node, list those of this node, fetch one.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{StatusCode, header},
    response::IntoResponse,
};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use serde_json::json;
use tokio::io::ReadBuf;

use super::{App, problem::Problem};
use crate::store::{BackupContents, BackupMade, BackupsUnread, Store};

const CONTENT_TYPE: &str = "application/vnd.sqlite3";

/// Read from the disk and sent at once.
const CHUNK_BYTES: usize = 64 * 1024;

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
        BackupMade::Failed { detail } => Err(Problem::broken(detail)),
    }
}

/// `GET /api/v1/backups`
pub(super) async fn list<S: Store>(
    State(app): State<Arc<App<S>>>,
) -> Result<impl IntoResponse, Problem> {
    let backups = app.store.backups().await.map_err(unread)?;
    Ok(Json(json!({ "node": app.node, "backups": backups })))
}

/// `GET /api/v1/backups/{id}`
pub(super) async fn fetch<S: Store>(
    State(app): State<Arc<App<S>>>,
    Path(name): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    let opened = app.store.open_backup(&name).await;
    let contents = opened.map_err(unread)?.ok_or_else(|| {
        Problem::not_found(format!("this node has no backup {name}"))
            .hint("GET /api/v1/backups lists those it has")
    })?;
    let body = Body::new(Download {
        left: contents.bytes,
        contents,
    });
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], body))
}

fn unread(error: BackupsUnread) -> Problem {
    match error {
        BackupsUnread::Unavailable(cause) => Problem::unavailable(&cause),
        BackupsUnread::Disk(error) => Problem::broken(error.to_string()),
    }
}

/// A backup on its way to a client.
struct Download {
    contents: BackupContents,
    left: u64,
}

impl hyper::body::Body for Download {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let size = usize::try_from(self.left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        let mut chunk = vec![0; size];
        let mut buffer = ReadBuf::new(&mut chunk);
        let read = ready!(
            self.contents
                .reader
                .as_mut()
                .poll_read(context, &mut buffer)
        );
        let filled = buffer.filled().len();
        chunk.truncate(filled);
        Poll::Ready(Some(match read {
            Err(error) => Err(error),
            Ok(()) if filled == 0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(()) => {
                self.left -= filled as u64;
                Ok(Frame::data(chunk.into()))
            }
        }))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
