//! What is counted of the HTTP interface.

use std::{borrow::Cow, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use super::waits;

/// Method, route and status; only what the router knows.
type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];

/// Requests to the HTTP interface.
#[derive(Debug)]
pub(crate) struct HttpMetrics {
    requests: Family<Labels<3>, Counter>,
    durations: Family<Labels<2>, Histogram>,
}

impl HttpMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(waits),
        };
        registry.register(
            "http_requests",
            "Requests answered by this node, by the template of their route; those of other nodes are under /internal",
            metrics.requests.clone(),
        );
        registry.register(
            "http_request_duration_seconds",
            "Time from a request's head to the head of its answer",
            metrics.durations.clone(),
        );
        metrics
    }

    /// Counts an answered request. `route` is a template, never what the client wrote.
    pub(crate) fn answered(
        &self,
        method: &'static str,
        route: &str,
        status: u16,
        duration: Duration,
    ) {
        let method = ("method", Cow::Borrowed(method));
        let route = ("route", Cow::Owned(route.to_owned()));
        let status = ("status", Cow::Owned(status.to_string()));
        self.durations
            .get_or_create_owned(&[method.clone(), route.clone()])
            .observe(duration.as_secs_f64());
        self.requests
            .get_or_create_owned(&[method, route, status])
            .inc();
    }
}
