//! Sends the requests of guests. What is done about interrupted ones is decided in [`crate::execution`].

use std::{error::Error as StdError, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{
    Client, ClientBuilder, Method, Response, Url,
    header::{HeaderMap, HeaderName, HeaderValue},
    redirect::Policy,
};

use crate::abi::{HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpTransportError};

/// As many as ureq follows, whose sorts of errors guests know.
const REDIRECTS_MAX: usize = 5;
/// The largest body of an answer, whatever the guest asks for; the vendor's library asks for as much.
const BODY_BYTES_MAX: u64 = 10_000_000;
/// The longest a request may take, whatever the guest asks for: an hour.
const TIMEOUT_MAX: Duration = Duration::from_secs(3_600);
const USER_AGENT: &str = concat!("mvm-ci/", env!("CARGO_PKG_VERSION"));

/// Sends requests.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client,
}

/// Makes a client; on a host that has no certificates of authorities, as small machines do not, one that trusts none: it can still speak
/// http.
pub fn client(builder: impl Fn() -> ClientBuilder) -> Result<Client, reqwest::Error> {
    builder().build().or_else(|error| {
        tracing::warn!(
            error = in_full(&error),
            "no server will be trusted by https"
        );
        builder().tls_certs_only([]).build()
    })
}

impl Http {
    /// Prepares to send requests.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = client(|| {
            Client::builder()
                .redirect(Policy::limited(REDIRECTS_MAX))
                .user_agent(USER_AGENT)
        })?;
        Ok(Self { client })
    }

    /// Sends a request, and takes the answer.
    pub async fn send(&self, request: &HttpRequest) -> Result<HttpResponse, HttpError> {
        let fails = |kind, message: String| {
            Err(HttpError::Transport(HttpTransportError {
                kind,
                message: Some(message),
                url: Some(request.url.clone()),
            }))
        };
        let url = match Url::parse(&request.url) {
            Ok(url) => url,
            Err(error) => return fails(HttpErrorKind::InvalidUrl, error.to_string()),
        };
        if !["http", "https"].contains(&url.scheme()) {
            return fails(
                HttpErrorKind::UnknownScheme,
                format!("{:?} is neither http nor https", url.scheme()),
            );
        }
        let Ok(method) = Method::from_bytes(request.method.as_bytes()) else {
            return fails(
                HttpErrorKind::Io,
                format!("{:?} is no method", request.method),
            );
        };
        let headers = match headers(&request.headers) {
            Ok(headers) => headers,
            Err(name) => {
                return fails(
                    HttpErrorKind::BadHeader,
                    format!("the header {name:?} cannot be sent"),
                );
            }
        };
        let body = match STANDARD.decode(&request.body) {
            Ok(body) => body,
            Err(error) => {
                return fails(HttpErrorKind::Io, format!("the body is no base64: {error}"));
            }
        };
        let mut sending = self.client.request(method, url).headers(headers);
        // A length of 0 is not said of what has no body.
        if !body.is_empty() {
            sending = sending.body(body);
        }
        let limit = request.config.response_body_limit.min(BODY_BYTES_MAX);
        let asking = async {
            let response = sending.send().await?;
            take(response, limit).await
        };
        let timeout = request.config.timeout.min(TIMEOUT_MAX);
        let response = match tokio::time::timeout(timeout, asking).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return fails(kind_of(&error), in_full(&error)),
            Err(_elapsed) => {
                return fails(HttpErrorKind::Io, format!("timed out after {timeout:?}"));
            }
        };
        if response.status_code >= 400 {
            return Err(HttpError::Status(response.status_code, response));
        }
        Ok(response)
    }
}

fn headers(given: &[(String, String)]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .ok()
            .zip(HeaderValue::from_str(value).ok());
        let (key, value) = parsed.ok_or_else(|| name.clone())?;
        headers.append(key, value);
    }
    Ok(headers)
}

/// Reads an answer, and no more than so many bytes of its body.
async fn take(mut response: Response, limit: u64) -> Result<HttpResponse, reqwest::Error> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut body = Vec::new();
    while body.len() < limit
        && let Some(chunk) = response.chunk().await?
    {
        let room = limit - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    let header = |(name, value): (&HeaderName, &HeaderValue)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    };
    Ok(HttpResponse {
        status_code: response.status().as_u16(),
        url: response.url().to_string(),
        headers: response.headers().iter().map(header).collect(),
        body: STANDARD.encode(body),
    })
}

fn kind_of(error: &reqwest::Error) -> HttpErrorKind {
    if error.is_redirect() {
        return HttpErrorKind::TooManyRedirects;
    }
    if error.is_builder() {
        return HttpErrorKind::InvalidUrl;
    }
    let text = in_full(error);
    if text.contains("dns error") {
        HttpErrorKind::Dns
    } else if error.is_connect() {
        HttpErrorKind::ConnectionFailed
    } else if text.contains("invalid HTTP status-code") {
        HttpErrorKind::BadStatus
    } else if text.contains("invalid HTTP header") {
        HttpErrorKind::BadHeader
    } else {
        HttpErrorKind::Io
    }
}

/// An error with what caused it; reqwest's own text leaves that out.
pub fn in_full(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
