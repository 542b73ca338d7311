//! One HTTP exchange over a connection that is open, as scenarios and tests have it with nodes.

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, body::Bytes};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

/// A node is as untrusted as any guest.
const BODY_BYTES_MAX: usize = 8 << 20;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// The machine's name.
    pub host: &'a str,
    /// `GET` or `POST`.
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// The body.
    pub body: Option<Content>,
    /// The request's id.
    pub key: Option<&'a str>,
}

/// A body with its content type.
#[derive(Clone, Debug)]
pub struct Content {
    kind: String,
    bytes: Bytes,
}

impl Content {
    /// A form with one file in it.
    pub fn form(field: &str, file: &[u8]) -> Self {
        // None of our files has it.
        let boundary = "mvm-ci-0b6f5f0e2d6c4f5a";
        let head =
            format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{field}\"\r\n\r\n");
        let end = format!("\r\n--{boundary}--\r\n");
        Self {
            kind: format!("multipart/form-data; boundary={boundary}"),
            bytes: [head.as_bytes(), file, end.as_bytes()].concat().into(),
        }
    }
}

impl From<Value> for Content {
    fn from(value: Value) -> Self {
        Self {
            kind: "application/json".into(),
            bytes: value.to_string().into(),
        }
    }
}

/// Sends a request and returns status and body; a body that is no JSON is null. The error says what became of the connection.
///
/// There is no bound on time; dropping the future closes the connection.
pub async fn exchange<S>(stream: S, call: Call<'_>) -> Result<(u16, Value), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let mut request = Request::builder()
        .method(call.method)
        .uri(call.path)
        .header("host", call.host);
    if let Some(key) = call.key {
        request = request.header("idempotency-key", key);
    }
    let mut body = Bytes::new();
    if let Some(content) = call.body {
        request = request.header("content-type", content.kind);
        body = content.bytes;
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
        // Pages for people are not JSON; the status is all that is wanted of them.
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
