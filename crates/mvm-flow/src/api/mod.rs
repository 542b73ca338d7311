//! The HTTP interface of an engine: as the public clients of flawless speak it, and ours beside it.
//!
//! ```text
//!   /version  /api/module/deploy  /api/workflow/start  /api/workflow/send-msg/{id}     flawless
//!   /api/v1/modules  /api/v1/workflows  /api/v1/workflows/{id}/...                     v1
//!   /health  /metrics
//! ```
//!
//! Every error is `{"error": "..."}` and says what to do. This makes a [`Router`]; who listens is not its business.

mod body;
mod error;
mod flawless;
mod named;
mod upload;
mod v1;

use std::{fmt, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};

use self::error::ApiError;
pub use self::{
    flawless::SendRequest,
    v1::{Cancel, Entry, LogLine, ResponseReply, Retry, StartRequest, StartedReply},
};
use crate::{engine::Engine, journal::Journal};

/// What may be asked for without a token.
const OPEN: [&str; 2] = ["/health", "/version"];

/// What a client has to show.
#[derive(Clone)]
pub struct Token(blake3::Hash);

impl Token {
    /// The token of that text.
    pub fn new(text: &str) -> Self {
        Self(blake3::hash(text.as_bytes()))
    }

    /// Hashes are compared, in constant time.
    fn is(&self, text: &str) -> bool {
        blake3::hash(text.as_bytes()) == self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token")
    }
}

/// The interface of an engine, for those only who show the token, if there is one.
pub fn guarded<J: Journal>(engine: Arc<Engine<J>>, token: Option<Token>) -> Router {
    router(engine).layer(from_fn_with_state(token, guard))
}

/// The interface of an engine, for everybody.
pub fn router<J: Journal>(engine: Arc<Engine<J>>) -> Router {
    let routes = Router::new()
        .route("/version", get(flawless::version))
        .route("/api/module/deploy", post(flawless::deploy::<J>))
        .route("/api/workflow/start", post(flawless::start::<J>))
        .route("/api/workflow/send-msg/{id}", post(flawless::send::<J>))
        .route(
            "/api/v1/modules",
            get(v1::modules::<J>).post(flawless::deploy::<J>),
        )
        .route("/api/v1/modules/{hash}", get(v1::module::<J>))
        .route("/api/v1/workflows", get(v1::list::<J>).post(v1::start::<J>))
        .route("/api/v1/workflows/{id}", get(v1::show::<J>))
        .route("/api/v1/workflows/{id}/journal", get(v1::journal::<J>))
        .route("/api/v1/workflows/{id}/logs", get(v1::logs::<J>))
        .route("/api/v1/workflows/{id}/response", get(v1::response::<J>))
        .route("/api/v1/workflows/{id}/messages", post(flawless::send::<J>))
        .route("/api/v1/workflows/{id}/cancel", post(v1::cancel::<J>))
        .route("/api/v1/workflows/{id}/pause", post(v1::pause::<J>))
        .route("/api/v1/workflows/{id}/resume", post(v1::resume::<J>))
        .route("/api/v1/workflows/{id}/retry", post(v1::retry::<J>))
        .route("/metrics", get(metrics::<J>))
        .route("/health", get(|| async { "ok\n" }));
    routes
        .fallback(|| async { ApiError::not_found("there is no such route; see docs/workflows.md") })
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "the route does not take this method",
            )
        })
        .with_state(engine)
}

async fn guard(State(token): State<Option<Token>>, request: Request, next: Next) -> Response {
    let Some(token) = token.filter(|_| !OPEN.contains(&request.uri().path())) else {
        return next.run(request).await;
    };
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let shown = given.and_then(|value| value.split_once(' '));
    match shown {
        Some((scheme, text)) if scheme.eq_ignore_ascii_case("bearer") && token.is(text.trim()) => {
            next.run(request).await
        }
        Some(_) => ApiError::new(
            StatusCode::UNAUTHORIZED,
            "the token is not the one of this engine",
        )
        .into_response(),
        None => ApiError::new(
            StatusCode::UNAUTHORIZED,
            "this engine wants a token; send it as `Authorization: Bearer TOKEN`",
        )
        .into_response(),
    }
}

async fn metrics<J: Journal>(State(engine): State<Arc<Engine<J>>>) -> Result<Response, ApiError> {
    let text = engine.metrics().text().map_err(|error| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the metrics cannot be written: {error}"),
        )
    })?;
    Ok(([(header::CONTENT_TYPE, crate::metrics::CONTENT_TYPE)], text).into_response())
}
