//! `GET /metrics`, for Prometheus.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::IntoResponse,
};
use mvm_queue::{Answer, JobState, Query};

use super::{App, problem::Problem};
use crate::{
    consensus::{Barrier, Reading},
    metrics::{Format, Scrape},
    store::{Deadline, Store},
};

/// The replica is asked for so long; an answer without the queue's depth is better than none.
const DEPTH_TIMEOUT: Duration = Duration::from_millis(500);

/// `GET /metrics`: needs no quorum and asks no other node.
pub(super) async fn metrics<S: Store>(
    State(app): State<Arc<App<S>>>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    let format = format(&headers);
    let scrape = Scrape {
        glance: app.store.glance().await,
        depth: depth(&*app.store).await,
    };
    let text = app
        .store
        .metrics()
        .text(format, &scrape)
        .map_err(|error| Problem::broken(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], text))
}

async fn depth<S: Store>(store: &S) -> Option<Vec<(JobState, u64)>> {
    let reading = store.read(Barrier::Local, Query::Stats, Deadline::starting_now());
    match tokio::time::timeout(DEPTH_TIMEOUT, reading).await {
        Ok(Reading::Done {
            answer: Answer::Stats { counts },
            ..
        }) => Some(counts),
        Ok(_) | Err(_) => None,
    }
}

/// OpenMetrics for those who name it, Prometheus's own text for all others.
fn format(headers: &HeaderMap) -> Format {
    let mut ranges = headers
        .get_all(header::ACCEPT)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next());
    if ranges.any(|range| {
        range
            .trim()
            .eq_ignore_ascii_case("application/openmetrics-text")
    }) {
        Format::OpenMetrics
    } else {
        Format::Prometheus
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[track_caller]
    fn check(accept: &'static str, expected: Format) {
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
        assert_eq!(format(&headers), expected);
    }

    #[test]
    fn openmetrics_is_for_those_who_ask() {
        assert_eq!(format(&HeaderMap::new()), Format::Prometheus);
        check("*/*", Format::Prometheus);
        check("text/plain;version=0.0.4", Format::Prometheus);
        check(
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3,*/*;q=0.1",
            Format::OpenMetrics,
        );
        check(
            "text/html, Application/OpenMetrics-Text",
            Format::OpenMetrics,
        );
    }
}
