//! What every request has, whatever its route: a name, a span, a line in the log, a count.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method},
    middleware::Next,
    response::Response,
};
use tracing::{Instrument as _, debug, info, info_span};

use super::{
    App,
    asking::{given_id, new_id},
    problem::REQUEST_ID_HEADER,
};
use crate::{request, store::Store};

/// The route of what has none.
const UNMATCHED: &str = "unmatched";

/// Names the request, and tells what became of it.
pub(super) async fn observe<S: Store>(
    State(app): State<Arc<App<S>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let start = Instant::now();
    let method = word(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or(UNMATCHED, MatchedPath::as_str)
        .to_owned();
    let id = match given_id(request.headers()) {
        Some(Ok(id)) => id,
        // The handler turns a bad one away if it matters.
        Some(Err(_)) => new_id(&app),
        None => {
            let id = new_id(&app);
            if let Ok(value) = HeaderValue::from_str(&id) {
                request.headers_mut().insert(REQUEST_ID_HEADER, value);
            }
            id
        }
    };
    let span = info_span!("request", id, method, route);
    let mut response = request::within(id.clone(), next.run(request))
        .instrument(span.clone())
        .await;
    let (status, duration) = (response.status().as_u16(), start.elapsed());
    if let Ok(value) = HeaderValue::from_str(&id) {
        let headers = response.headers_mut();
        headers.entry(REQUEST_ID_HEADER).or_insert(value);
    }
    span.in_scope(|| access_line(status, duration));
    let metrics = &app.store.metrics().http;
    metrics.answered(method, &route, status, duration);
    response
}

/// What went well is for those who look closely; what did not is for everybody.
fn access_line(status: u16, duration: Duration) {
    let duration_ms = duration.as_secs_f64() * 1_000.0;
    if status >= 500 {
        info!(status, duration_ms, "answered");
    } else {
        debug!(status, duration_ms, "answered");
    }
}

/// A client may send any word as a method; a label is one of few.
fn word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
