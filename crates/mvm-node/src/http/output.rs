//! `GET /api/v1/jobs/{id}/attempts/{attempt}/{stream}`: what an attempt wrote, beyond what the log keeps.
//!
//! It is on the disk of the node where the attempt ran; others send the client there.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::{OriginalUri, Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use mvm_exec::Stream;
use mvm_queue::{Answer, FencingToken, JobId, Query};
use tokio::{fs::File, io::AsyncReadExt};

use super::{
    App,
    asking::{self, mismatch, number},
    problem::Problem,
};
use crate::store::Store;

/// What is read from the disk at once.
const PIECE_BYTES: usize = 64 * 1024;

pub(super) async fn output<S: Store>(
    State(app): State<Arc<App<S>>>,
    Path((job, attempt, stream)): Path<(String, String, String)>,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Problem> {
    let job = JobId(job);
    let token = FencingToken(number("attempt", &attempt)?);
    let stream = match stream.as_str() {
        "stdout" => Stream::Stdout,
        "stderr" => Stream::Stderr,
        other => {
            return Err(
                Problem::bad_request(format!("there is no stream {other:?}"))
                    .hint("use stdout or stderr"),
            );
        }
    };
    if let Some(file) = app.host.outputs.open(&job, token, stream) {
        let plain = [(header::CONTENT_TYPE, "application/octet-stream")];
        let pieces = stream::try_unfold(File::from_std(file), read_piece);
        return Ok((plain, Body::from_stream(pieces)).into_response());
    }
    match elsewhere(&app, job, token).await? {
        Some(address) => {
            let scheme = if app.host.speaks_tls { "https" } else { "http" };
            let location = format!("{scheme}://{address}{}", uri.path());
            Ok((StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response())
        }
        None => Err(Problem::not_found("no output of this attempt is kept on disk")
            .hint("GET /api/v1/jobs/{id}/log has what the log keeps; that is all unless it says otherwise")),
    }
}

async fn read_piece(mut file: File) -> std::io::Result<Option<(Bytes, File)>> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    let read = (&mut file)
        .take(PIECE_BYTES as u64)
        .read_to_end(&mut piece)
        .await?;
    Ok((read > 0).then(|| (piece.into(), file)))
}

/// The address of the other node on which an attempt ran.
async fn elsewhere<S: Store>(
    app: &App<S>,
    job: JobId,
    token: FencingToken,
) -> Result<Option<String>, Problem> {
    let (answer, _) = asking::read(app, Some("local"), Query::Attempts { job }).await?;
    let Answer::Attempts { attempts } = answer else {
        return Err(mismatch(&answer));
    };
    let attempt = attempts.iter().find(|attempt| attempt.token == token);
    let node = attempt
        .map(|attempt| attempt.node)
        .filter(|node| *node != app.node);
    Ok(node.and_then(|node| app.host.addresses.get(&node).cloned()))
}
