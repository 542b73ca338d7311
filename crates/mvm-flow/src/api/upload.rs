//! Uploads of modules: one multipart field `module`, in memory, since no module is larger than [`MODULE_BYTES_MAX`].

use std::time::Duration;

use axum::{
    body::Body,
    extract::Request,
    http::{StatusCode, header},
};
use futures_util::{StreamExt, stream};
use multer::Multipart;

use super::{body::DISCARDED_BYTES_MAX, error::ApiError};
use crate::module::MODULE_BYTES_MAX;

const FIELD: &str = "module";
/// How long an upload may take.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Reads the module of a request.
pub(super) async fn module(request: Request) -> Result<Vec<u8>, ApiError> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let content_type = content_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let boundary = multer::parse_boundary(content_type).map_err(|_| {
        ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send the module as the multipart field `module`; with curl: -F module=@FILE.wasm",
        )
    })?;
    let reading = read(request.into_body(), boundary);
    tokio::time::timeout(TIMEOUT, reading)
        .await
        .unwrap_or_else(|_| {
            Err(ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                format!("the upload was not complete after {} s", TIMEOUT.as_secs()),
            ))
        })
}

async fn read(body: Body, boundary: String) -> Result<Vec<u8>, ApiError> {
    let broken = |error: multer::Error| {
        ApiError::bad_request(format!("the upload is no multipart form: {error}"))
    };
    // Beyond so much, the form simply ends.
    let bounded = stream::unfold(
        (body.into_data_stream(), 0_usize),
        |(mut body, seen)| async move {
            if seen > DISCARDED_BYTES_MAX {
                return None;
            }
            let chunk = body.next().await?;
            let seen = seen + chunk.as_ref().map_or(0, bytes::Bytes::len);
            Some((chunk, (body, seen)))
        },
    );
    let mut form = Multipart::new(Box::pin(bounded), boundary);
    let mut module: Option<Vec<u8>> = None;
    let mut size = 0;
    while let Some(mut field) = form.next_field().await.map_err(broken)? {
        let name = field.name().unwrap_or_default().to_owned();
        if name != FIELD {
            return Err(ApiError::bad_request(format!(
                "the form has a field {:?}; all it may have is one field `module`",
                name.chars().take(80).collect::<String>()
            )));
        }
        if module.is_some() {
            return Err(ApiError::bad_request(
                "the form has two modules; deploy them one after another",
            ));
        }
        let mut bytes = Vec::new();
        // To the end, also of what is too large: whoever still writes would not read the answer.
        while let Some(chunk) = field.chunk().await.map_err(broken)? {
            size += chunk.len();
            if size <= MODULE_BYTES_MAX {
                bytes.extend_from_slice(&chunk);
            }
        }
        module = Some(bytes);
    }
    if size > MODULE_BYTES_MAX {
        return Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the module has {size} bytes; at most {MODULE_BYTES_MAX} are allowed"),
        ));
    }
    module.ok_or_else(|| ApiError::bad_request("the form has no field `module`"))
}
