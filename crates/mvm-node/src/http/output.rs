//! `GET /api/v1/jobs/{id}/attempts/{attempt}/{stream}`: what an attempt wrote, beyond what the log keeps.
//!
//! It is on the disk of the node where the attempt ran; others send the client there.

use std::sync::Arc;

use axum::{
    extract::{OriginalUri, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use mvm_exec::Stream;
use mvm_queue::{Answer, FencingToken, JobId, Query};
use tokio::fs::File;

use super::{
    App,
    asking::{self, Named, mismatch, number},
    download::download,
    problem::Problem,
};
use crate::store::Store;

pub(super) async fn output<S: Store>(
    State(app): State<Arc<App<S>>>,
    Named((job, attempt, stream)): Named<(String, String, String)>,
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt;
    use mvm_queue::{Change, Command, JobSpec, RequestId, UnixMillis};
    use serde_json::json;
    use tower_service::Service;

    use super::*;
    use crate::{
        http::{Guard, Host},
        store::MemoryStore,
        worker::Outputs,
    };

    /// A store with job A, whose first attempt is on node 1, and job B, whose first is on node 2.
    fn store() -> MemoryStore {
        let store = MemoryStore::new();
        for (node, job) in [(1, "A"), (2, "B")] {
            let submit = Change::Submit {
                job: JobId(job.to_owned()),
                submitted_on: node,
                spec: Box::new(JobSpec::new("process", json!({}))),
                tick: None,
            };
            let claim = Change::Claim {
                node,
                worker: "w".to_owned(),
                slots: 1,
                labels: Default::default(),
                kinds: Default::default(),
            };
            for (what, change) in [("submit", submit), ("claim", claim)] {
                store.apply(&Command {
                    request: RequestId(format!("{what}-{job}")),
                    at: UnixMillis(0),
                    change,
                });
            }
        }
        store
    }

    #[tokio::test]
    async fn output_is_here_or_there_or_nowhere() {
        let data_dir = tempfile::tempdir().unwrap();
        let folder = data_dir.path().join("outputs/A/1");
        std::fs::create_dir_all(&folder).unwrap();
        let mut file = std::fs::File::create(folder.join("stdout")).unwrap();
        let whole = "x".repeat(200_000);
        file.write_all(whole.as_bytes()).unwrap();
        let host = Host {
            outputs: Arc::new(Outputs::new(data_dir.path())),
            addresses: [(2, "other:3020".to_owned())].into(),
            ..Host::default()
        };
        let secret = "0123456789abcdef";
        let app = App::on_host(Arc::new(store()), 1, secret, Guard::default(), host);
        let mut router = app.router();
        for (path, status, expected) in [
            ("A/attempts/1/stdout", 200, whole.as_str()),
            ("A/attempts/1/stderr", 404, ""),
            ("A/attempts/2/stdout", 404, ""),
            ("B/attempts/1/stderr", 307, ""),
            ("C/attempts/1/stdout", 404, ""),
            ("A/attempts/x/stdout", 400, ""),
            ("A/attempts/1/log", 400, ""),
            ("..%2fA/attempts/1/stdout", 404, ""),
        ] {
            let path = format!("/api/v1/jobs/{path}");
            let request = Request::get(&path).body(Body::empty()).unwrap();
            let answer = router.call(request).await.unwrap();
            assert_eq!(answer.status(), status, "{path}");
            let location = answer.headers().get(header::LOCATION).cloned();
            let there = location.map(|location| location.to_str().unwrap().to_owned());
            assert_eq!(
                there,
                (status == 307).then(|| format!("http://other:3020{path}"))
            );
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(expected.is_empty() || body == expected, "{path}");
        }
    }
}
