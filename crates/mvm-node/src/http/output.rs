//! `GET /api/v1/jobs/{id}/attempts/{attempt}/{stream}`: what an attempt wrote, beyond what the log keeps.
//!
//! It is on the disk of the node where the attempt ran; others send the client there.

use std::sync::Arc;

use axum::{
    extract::{OriginalUri, Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use mvm_exec::Stream;
use mvm_queue::{Answer, FencingToken, JobId, Query};
use tokio::fs::File;

use super::{
    App,
    asking::{self, mismatch, number},
    download::download,
    problem::Problem,
};
use crate::store::Store;

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
        let bytes = file.metadata().map_or(0, |metadata| metadata.len());
        let body = download(Box::pin(File::from_std(file)), bytes);
        return Ok((plain, body).into_response());
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
