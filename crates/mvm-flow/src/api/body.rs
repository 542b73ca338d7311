//! Bodies of requests: bounded, and said where they are wrong.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream, HttpBody},
    http::StatusCode,
};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::journal::INPUT_BYTES_MAX;

/// The largest body with an input or a message: JSON writes some bytes as six, and it is a text within a text.
const JSON_BYTES_MAX: usize = 8 * INPUT_BYTES_MAX;
/// How long a body may take to arrive.
const TIMEOUT: Duration = Duration::from_secs(10);
/// So much of a body that is too large is read and thrown away: a client that is still writing when the connection closes would see
/// a reset instead of the answer.
pub(super) const DISCARDED_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Reads a JSON body. What it is called does not matter: the public clients call it rightly, and people with curl do not.
pub(super) async fn json<T: DeserializeOwned>(body: Body) -> Result<T, ApiError> {
    let bytes = tokio::time::timeout(TIMEOUT, collect(body.into_data_stream()))
        .await
        .map_err(|_| {
            ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                format!("the body was not complete after {} s", TIMEOUT.as_secs()),
            )
        })??;
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        ApiError::bad_request(format!(
            "the body is no UTF-8 from byte {} on",
            error.valid_up_to()
        ))
    })?;
    serde_json::from_str(text)
        .map_err(|error| ApiError::bad_request(format!("the body's JSON: {error}")))
}

/// The same, where no body, or `null`, means the default.
pub(super) async fn json_or_default<T: DeserializeOwned + Default>(
    body: Body,
) -> Result<T, ApiError> {
    if body.is_end_stream() {
        return Ok(T::default());
    }
    Ok(json::<Option<T>>(body).await?.unwrap_or_default())
}

async fn collect(mut body: BodyDataStream) -> Result<Vec<u8>, ApiError> {
    let mut bytes: Vec<u8> = Vec::new();
    while let Some(chunk) = body.next().await {
        let chunk: Bytes =
            chunk.map_err(|error| ApiError::bad_request(format!("the body broke off: {error}")))?;
        if bytes.len() + chunk.len() > JSON_BYTES_MAX {
            discard(&mut body).await;
            return Err(ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("bodies may have {JSON_BYTES_MAX} bytes; give large input by reference"),
            ));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Reads the rest of a body, and forgets it.
pub(super) async fn discard(body: &mut BodyDataStream) {
    let mut seen = 0;
    while seen < DISCARDED_BYTES_MAX
        && let Some(Ok(chunk)) = body.next().await
    {
        seen += chunk.len();
    }
}
