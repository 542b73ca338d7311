//! Reads request bodies: bounded in size and time, of a known content type, in UTF-8.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// The largest body of a client's request. A job's payload says where its input is; it is not the input.
///
/// It becomes one entry of the log, and must stay far below the size of hiqlite's log files, which
/// panics on an entry that does not fit into one.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// So much of a body that is too large is read and thrown away. A client that is still
/// writing when the connection closes would see a reset instead of the answer.
const DISCARDED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// How the client wrote its body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Encoding {
    /// `application/json`
    Json,
    /// `application/x-www-form-urlencoded`
    Form,
}

/// Reads the content type.
pub(super) fn encoding(headers: &HeaderMap) -> Result<Encoding, Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Err(Problem::media_type("the request has no content-type"));
    };
    let media_type = value
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    match media_type.to_ascii_lowercase().as_str() {
        "application/json" => Ok(Encoding::Json),
        "application/x-www-form-urlencoded" => Ok(Encoding::Form),
        _ => Err(Problem::media_type(format!("{value:?} is not taken"))),
    }
}

/// Reads a body of at most `bytes_max`.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
) -> Result<Bytes, Problem> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > DISCARDED_BYTES_MAX) {
        return Err(too_large(bytes_max));
    }
    match tokio::time::timeout(BODY_TIMEOUT, collect(body, bytes_max)).await {
        Ok(read) => read,
        Err(_) => Err(Problem::too_slow(format!(
            "it was not complete after {} s",
            BODY_TIMEOUT.as_secs()
        ))),
    }
}

async fn collect(mut body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    let mut collected = Vec::new();
    let mut seen = 0;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Problem::bad_request(format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        seen += data.len();
        if seen <= bytes_max {
            collected.extend_from_slice(&data);
        } else if seen > DISCARDED_BYTES_MAX {
            break;
        }
    }
    if seen > bytes_max {
        Err(too_large(bytes_max))
    } else {
        Ok(collected.into())
    }
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::too_large(format!("bodies may have {bytes_max} bytes"))
        .hint("store large input elsewhere and submit its URL")
}

/// Reads a JSON body that must be of type `T`.
pub(super) async fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Problem> {
    if encoding(headers)? != Encoding::Json {
        return Err(Problem::media_type("this route takes application/json")
            .hint("with curl: -H 'content-type: application/json'"));
    }
    parse_json(&read(headers, body, BODY_BYTES_MAX).await?)
}

/// Reads JSON, and says where it is wrong.
pub(super) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Problem::bad_request(format!(
            "the body is not valid UTF-8 from byte {} on",
            error.valid_up_to()
        ))
    })?;
    serde_json::from_str(text)
        .map_err(|error| Problem::bad_request(format!("the body's JSON: {error}")))
}
