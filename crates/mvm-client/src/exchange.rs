//! One request to one server, and what its answer means for the next step.

use std::{error::Error as _, time::Duration};

use reqwest::{
    Method, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};

use crate::{
    error::{Cause, Problem},
    options::{ServerUrl, Token},
};

/// An answer other than a list is smaller than this. The largest is a page of log: 1 MiB of output, escaped.
pub(crate) const ANSWER_BYTES_MAX: usize = 8 << 20;
/// So much is read of a problem.
const PROBLEM_BYTES_MAX: usize = 64 << 10;
/// A server that asks for more patience than this is asked again sooner.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// A request, for any server.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    /// Of the path.
    pub(crate) segments: Vec<&'a str>,
    pub(crate) query: Vec<(&'static str, String)>,
    /// JSON.
    pub(crate) body: Option<Vec<u8>>,
    /// Of a change.
    pub(crate) key: Option<String>,
    /// What an answer may be.
    pub(crate) bytes_max: usize,
    /// Of a stream that was read before.
    pub(crate) last_event: Option<String>,
}

impl<'a> Call<'a> {
    /// Reads something.
    pub(crate) fn get(segments: impl Into<Vec<&'a str>>) -> Self {
        Self {
            method: Method::GET,
            segments: segments.into(),
            query: Vec::new(),
            body: None,
            key: None,
            bytes_max: ANSWER_BYTES_MAX,
            last_event: None,
        }
    }

    /// Changes something, once for each `key`.
    pub(crate) fn change(
        method: Method,
        segments: impl Into<Vec<&'a str>>,
        body: Option<Vec<u8>>,
        key: String,
    ) -> Self {
        Self {
            method,
            body,
            key: Some(key),
            ..Self::get(segments)
        }
    }
}

/// What came of a request to a server.
#[derive(Debug)]
pub(crate) enum Tried<T> {
    /// Success.
    Answered(T),
    /// A final no.
    Refused(Problem),
    /// Not the interface.
    Violation(String),
    /// Another server, or this one later.
    GoOn { cause: Cause, retry_after: Duration },
}

impl<T> Tried<T> {
    pub(crate) const fn go_on(cause: Cause) -> Self {
        Self::GoOn {
            cause,
            retry_after: Duration::ZERO,
        }
    }
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
}

/// Sends a request and reads the whole answer, for at most `allowed`.
pub(crate) async fn exchange(
    http: &reqwest::Client,
    server: &ServerUrl,
    token: Option<&Token>,
    call: &Call<'_>,
    allowed: Duration,
) -> Tried<Reply> {
    let whole = async {
        match open(http, server, token, call).await {
            Tried::Answered(response) => {
                let status = response.status();
                match body(response, call.bytes_max).await {
                    Ok(Some(body)) => Tried::Answered(Reply { status, body }),
                    Ok(None) => Tried::Violation(format!(
                        "its answer has more than {} bytes",
                        call.bytes_max
                    )),
                    Err(cause) => Tried::go_on(cause),
                }
            }
            Tried::Refused(problem) => Tried::Refused(problem),
            Tried::Violation(detail) => Tried::Violation(detail),
            Tried::GoOn { cause, retry_after } => Tried::GoOn { cause, retry_after },
        }
    };
    match tokio::time::timeout(allowed, whole).await {
        Ok(tried) => tried,
        Err(_) => Tried::go_on(Cause::Slow { after: allowed }),
    }
}

/// Sends a request; answers with the response if it is a success, whose body is not read yet.
pub(crate) async fn open(
    http: &reqwest::Client,
    server: &ServerUrl,
    token: Option<&Token>,
    call: &Call<'_>,
) -> Tried<Response> {
    let url = server.at(&call.segments, &call.query);
    let mut request = http.request(call.method.clone(), url);
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, token.header().clone());
    }
    if let Some(key) = &call.key {
        request = request.header("idempotency-key", key);
    }
    if let Some(id) = &call.last_event {
        request = request.header("last-event-id", id);
    }
    if let Some(body) = &call.body {
        let json = HeaderValue::from_static("application/json");
        request = request.header(CONTENT_TYPE, json).body(body.clone());
    }
    match request.send().await {
        Ok(response) if response.status().is_success() => Tried::Answered(response),
        Ok(response) => not_success(response).await,
        Err(error) => Tried::go_on(cause(error)),
    }
}

async fn not_success<T>(response: Response) -> Tried<T> {
    let status = response.status();
    let asked_for = response.headers().get(RETRY_AFTER);
    let seconds = asked_for.and_then(|value| value.to_str().ok()?.parse().ok());
    let retry_after = Duration::from_secs(seconds.unwrap_or(0)).min(RETRY_AFTER_MAX);
    let read = body(response, PROBLEM_BYTES_MAX).await;
    let problem = Problem::read(status.as_u16(), &read.ok().flatten().unwrap_or_default());
    // One that is busy says when it will not be; without that, 429 is about the queue, which all share.
    let busy = status == StatusCode::TOO_MANY_REQUESTS && seconds.is_some();
    match status {
        status if busy || status == StatusCode::SERVICE_UNAVAILABLE => Tried::GoOn {
            cause: Cause::Unavailable(Box::new(problem)),
            retry_after,
        },
        StatusCode::GATEWAY_TIMEOUT | StatusCode::BAD_GATEWAY => Tried::GoOn {
            cause: Cause::Unknown(Box::new(problem)),
            retry_after,
        },
        status if status.is_client_error() || status.is_server_error() => Tried::Refused(problem),
        status => Tried::Violation(format!("its status is {status}")),
    }
}

/// Reads a body; nothing if it is larger than `bytes_max`, of which no more is kept.
async fn body(mut response: Response, bytes_max: usize) -> Result<Option<Vec<u8>>, Cause> {
    let mut collected = Vec::new();
    while let Some(bytes) = response.chunk().await.map_err(cause)? {
        if collected.len() + bytes.len() > bytes_max {
            return Ok(None);
        }
        collected.extend_from_slice(&bytes);
    }
    Ok(Some(collected))
}

/// What the error of the HTTP library means.
pub(crate) fn cause(error: reqwest::Error) -> Cause {
    let connecting = error.is_connect();
    let error = error.without_url();
    let mut why = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        if !why.contains(&text) {
            why = format!("{why}: {text}");
        }
        source = error.source();
    }
    match connecting {
        true => Cause::Connect { why },
        false => Cause::Lost { why },
    }
}
