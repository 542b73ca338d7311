//! A node's HTTP interface as a scenario uses it: from the host, through the agent, so that it answers
//! whatever the lab's network does.

use std::time::{Duration, Instant};

use mvm_lab::node::Node;
use serde_json::{Value, json};

use crate::exchange::{Call, Content, exchange};

/// The port nodes serve on.
pub(super) const PORT: u16 = 3020;
/// The port of their interface for workflows.
pub(super) const FLOW_PORT: u16 = 27288;
/// Longer than any deadline the node promises: a longer wait is a hang, and the node's fault.
const CALL_ALLOWED: Duration = Duration::from_secs(10);

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

/// Sends a request; JSON comes with the request's id.
pub(super) async fn call(
    node: &Node,
    method: &'static str,
    path: &str,
    json: Option<(Value, &str)>,
) -> Result<Answer, CallError> {
    let (body, key) = json.unzip();
    send(node, PORT, method, path, body.map(Content::from), key).await
}

/// Sends a request to the interface for workflows.
pub(super) async fn flow(
    node: &Node,
    method: &'static str,
    path: &str,
    body: Option<Content>,
) -> Result<Answer, CallError> {
    send(node, FLOW_PORT, method, path, body, None).await
}

async fn send(
    node: &Node,
    port: u16,
    method: &'static str,
    path: &str,
    body: Option<Content>,
    key: Option<&str>,
) -> Result<Answer, CallError> {
    let failed = |cause: String| CallError {
        node: node.name().to_owned(),
        method,
        path: path.to_owned(),
        cause,
    };
    let started = Instant::now();
    let call = Call {
        host: node.name(),
        method,
        path,
        body,
        key,
    };
    let answering = async {
        let stream = node.dial(port).await.map_err(|error| error.to_string())?;
        exchange(stream, call).await
    };
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
