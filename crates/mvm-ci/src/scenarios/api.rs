//! A node's HTTP interface as a scenario uses it: from the host, through the agent, so that it answers
//! whatever the lab's network does.

use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, body::Bytes};
use hyper_util::rt::TokioIo;
use mvm_lab::node::Node;
use serde_json::{Value, json};

/// The port nodes serve on.
pub(super) const PORT: u16 = 3020;
/// Longer than any deadline the node promises: a longer wait is a hang, and the node's fault.
const CALL_ALLOWED: Duration = Duration::from_secs(10);
/// A node is as untrusted as any guest.
const BODY_BYTES_MAX: usize = 8 << 20;

/// What a node answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
    pub(super) took: Duration,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("could not {method} {path} on {node}: {cause}")]
pub(super) struct CallError {
    node: String,
    method: &'static str,
    path: String,
    cause: String,
}

/// A change asked of a node, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Submitted {
    /// 201: durable on a majority.
    Accepted,
    /// 503: not applied, and never will be.
    Refused,
    /// 504: the outcome is not known.
    Unknown,
}

pub(super) async fn get(node: &Node, path: &str) -> Result<Answer, CallError> {
    call(node, "GET", path, None).await
}

/// Submits a job for `url` under the idempotency key `url`.
pub(super) async fn submit(node: &Node, url: &str) -> Result<(Submitted, Answer), CallError> {
    let answer = call(node, "POST", "/new-job", Some((json!({ "url": url }), url))).await?;
    let submitted = match answer.status {
        200 | 201 => Submitted::Accepted,
        503 => Submitted::Refused,
        504 => Submitted::Unknown,
        status => {
            let cause = format!("it answered {status}: {}", answer.body);
            return Err(CallError {
                node: node.name().to_owned(),
                method: "POST",
                path: "/new-job".to_owned(),
                cause,
            });
        }
    };
    Ok((submitted, answer))
}

async fn call(
    node: &Node,
    method: &'static str,
    path: &str,
    json: Option<(Value, &str)>,
) -> Result<Answer, CallError> {
    let failed = |cause: String| CallError {
        node: node.name().to_owned(),
        method,
        path: path.to_owned(),
        cause,
    };
    let started = Instant::now();
    let answering = exchange(node, method, path, json);
    let (status, body) = tokio::time::timeout(CALL_ALLOWED, answering)
        .await
        .map_err(|_| failed(format!("no answer within {CALL_ALLOWED:?}")))?
        .map_err(failed)?;
    Ok(Answer {
        status,
        body,
        took: started.elapsed(),
    })
}

async fn exchange(
    node: &Node,
    method: &str,
    path: &str,
    json: Option<(Value, &str)>,
) -> Result<(u16, Value), String> {
    let stream = node.dial(PORT).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", node.name());
    let mut body = Bytes::new();
    if let Some((content, key)) = json {
        request = request
            .header("content-type", "application/json")
            .header("idempotency-key", key);
        body = content.to_string().into();
    }
    let request = request
        .body(Full::new(body))
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX)
            .collect()
            .await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        // Pages for people are not JSON; the status is all a scenario wants of them.
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    };
    tokio::select! {
        answer = exchange => answer,
        ended = connection => Err(match ended {
            Ok(()) => "the connection was closed".to_owned(),
            Err(error) => error.to_string(),
        }),
    }
}
