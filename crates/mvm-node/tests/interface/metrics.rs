//! `GET /metrics` and `GET /ready`: what is counted when things happen, and that others can read it.

use std::{fmt::Write as _, net::SocketAddr, sync::Arc};

use expect_test::expect_file;
use mvm_node::{
    consensus::Unavailable,
    http::App,
    store::{MemoryStore, Outage},
};
use mvm_queue::{Change, Command, Expiry, FencingToken, JobId, RequestId, UnixMillis};
use serde_json::{Value, json};

use crate::{
    exposition::Exposition,
    support::{Answer, exchange, get, new_job, post_json, request},
};

struct Server {
    address: SocketAddr,
    store: Arc<MemoryStore>,
    /// Dropping it ends the server.
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let store = Arc::new(MemoryStore::new());
        let router = App::new(Arc::clone(&store), 1, "0123456789abcdef").router();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            address,
            store,
            _runtime: runtime,
        }
    }

    #[track_caller]
    fn scrape(&self) -> Exposition {
        let answer = self.get("/metrics");
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("text/plain; version=0.0.4; charset=utf-8"))
        );
        let text = answer.text();
        Exposition::prometheus(&text).unwrap_or_else(|problem| panic!("{problem}\n{text}"))
    }

    fn get(&self, path: &str) -> Answer {
        get(self.address, path).unwrap()
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Value {
        let answer = post_json(self.address, path, body).unwrap();
        assert!(answer.status < 300, "{path}: {}", answer.text());
        answer.json()
    }

    /// Submits a job, claims it and returns its id.
    fn held(&self) -> String {
        let job = self.post("/api/v1/jobs", &json!({"kind": "build", "payload": null}));
        self.post("/api/v1/claims", &json!({"worker": "w"}));
        job["id"].as_str().unwrap().to_owned()
    }

    fn finish(&self, job: &str, report: &Value) {
        let path = format!("/api/v1/jobs/{job}");
        self.post(&format!("{path}/start"), &json!({"token": 1}));
        self.post(
            &format!("{path}/finish"),
            &json!({"token": 1, "report": report}),
        );
    }

    /// What the leader of a cluster would do.
    fn expire(&self, job: &str, cause: Expiry) {
        self.apply(Change::Expire {
            job: JobId(job.into()),
            token: FencingToken(1),
            cause,
        });
    }

    fn apply(&self, change: Change) {
        let request = RequestId(format!("{change:?}"));
        let at = UnixMillis(0);
        self.store.apply(&Command {
            request,
            at,
            change,
        });
    }
}

/// A job for each way to end, and one of another node.
fn live(server: &Server) {
    let failed = json!({"report": "failed", "error": "e", "permanent": true});
    for report in [
        json!({"report": "succeeded", "result": null}),
        failed,
        json!({"report": "timed_out"}),
        json!({"report": "lost"}),
        json!({"report": "cancelled"}),
    ] {
        let job = server.held();
        server.finish(&job, &report);
        // The lost one is pending again.
        let _ = post_json(
            server.address,
            &format!("/api/v1/jobs/{job}/cancel"),
            &json!({}),
        );
    }
    let job = server.held();
    server.expire(&job, Expiry::Lease { renewals: 0 });
    server.post(&format!("/api/v1/jobs/{job}/cancel"), &json!({}));
    server.apply(Change::Submit {
        job: JobId("of-another".into()),
        submitted_on: 2,
        spec: Box::new(mvm_queue::JobSpec::new("build", Value::Null)),
        tick: None,
    });
    server.post("/api/v1/claims", &json!({"worker": "w"}));
}

#[test]
fn a_jobs_life_is_counted() {
    let server = Server::start();
    let before = server.scrape();
    for outcome in ["succeeded", "failed", "timed_out", "lost", "cancelled"] {
        let count = before.sum("mvm_ci_job_attempts_total", &[("outcome", outcome)]);
        assert_eq!(count, 0.0, "{outcome} is there from the beginning");
    }
    live(&server);
    let after = server.scrape();
    #[track_caller]
    fn check(after: &Exposition, name: &str, labels: &[(&str, &str)], expected: f64) {
        assert_eq!(after.sum(name, labels), expected, "{name} {labels:?}");
    }
    check(&after, "mvm_ci_jobs_submitted_total", &[], 7.0);
    check(&after, "mvm_ci_job_claims_total", &[], 7.0);
    check(&after, "mvm_ci_job_steals_total", &[], 1.0);
    let attempts = "mvm_ci_job_attempts_total";
    check(&after, attempts, &[("outcome", "succeeded")], 1.0);
    check(&after, attempts, &[("outcome", "failed")], 1.0);
    check(&after, attempts, &[("outcome", "timed_out")], 1.0);
    check(&after, attempts, &[("outcome", "lost")], 2.0);
    check(&after, attempts, &[("outcome", "cancelled")], 1.0);
    check(
        &after,
        "mvm_ci_lease_expiries_total",
        &[("cause", "lease")],
        1.0,
    );
    // The id of the job of another node tells no time.
    check(&after, "mvm_ci_job_claim_latency_seconds_count", &[], 6.0);
    let ended = "mvm_ci_job_completion_latency_seconds_count";
    check(&after, ended, &[("state", "completed")], 1.0);
    check(&after, ended, &[("state", "failed")], 2.0);
    check(&after, ended, &[("state", "cancelled")], 3.0);
    check(&after, "mvm_ci_queue_jobs", &[("state", "claimed")], 1.0);
    check(&after, "mvm_ci_queue_jobs", &[("state", "cancelled")], 3.0);
    let route = [
        ("method", "POST"),
        ("route", "/api/v1/jobs/{id}/start"),
        ("status", "200"),
    ];
    check(&after, "mvm_ci_http_requests_total", &route, 5.0);
    let durations = "mvm_ci_http_request_duration_seconds_count";
    check(&after, durations, &route[..2], 5.0);
    check(&after, "mvm_ci_build_info", &[], 1.0);
    assert!(after.sum("process_resident_memory_bytes", &[]) > 0.0);
    assert!(after.sum("process_open_fds", &[]) > 0.0);
}

#[test]
fn proposals_are_counted_by_what_became_of_them() {
    let server = Server::start();
    let count = |result: &str| {
        let name = "mvm_ci_proposal_duration_seconds_count";
        server.scrape().sum(name, &[("result", result)])
    };
    let submit = |url: &str| new_job(server.address, url, "key").unwrap().status;
    assert_eq!(submit("http://x/"), 201);
    assert_eq!((count("committed"), count("rejected")), (1.0, 0.0));
    assert_eq!(submit("http://y/"), 422);
    assert_eq!((count("committed"), count("rejected")), (1.0, 1.0));
    server.store.set_outage(Some(Outage::AnswersLost));
    assert_eq!(submit("http://x/"), 504);
    assert_eq!(count("unknown"), 1.0);
    let cause = Unavailable::NoLeader;
    server.store.set_outage(Some(Outage::Unavailable(cause)));
    assert_eq!(submit("http://x/"), 503);
    assert_eq!(count("unavailable"), 1.0);
    let scrape = server.scrape();
    assert_eq!(scrape.sum("mvm_ci_raft_leader", &[]), 0.0);
    assert_eq!(
        scrape.sum("mvm_ci_queue_jobs", &[("state", "pending")]),
        1.0
    );
    let cause = Unavailable::Forming;
    server.store.set_outage(Some(Outage::Unavailable(cause)));
    let scrape = server.scrape();
    assert_eq!(scrape.sum("mvm_ci_raft_joined", &[]), 0.0);
    assert!(!scrape.families.contains_key("mvm_ci_raft_term"));
}

#[test]
fn labels_are_not_for_clients_to_choose() {
    let server = Server::start();
    for (method, path) in [
        ("GET", "/a\"b{}\\"),
        ("GET", "/api/v1/jobs/some-id"),
        ("BREW", "/health"),
        ("GET", "/nowhere"),
    ] {
        exchange(server.address, &request(method, path, &[], b"")).unwrap();
    }
    let scrape = server.scrape();
    let requests = |labels: &[(&str, &str)]| scrape.sum("mvm_ci_http_requests_total", labels);
    assert_eq!(requests(&[("route", "unmatched"), ("status", "404")]), 2.0);
    assert_eq!(requests(&[("route", "/api/v1/jobs/{id}")]), 1.0);
    assert_eq!(requests(&[("method", "other"), ("status", "405")]), 1.0);
    assert_eq!(requests(&[]), 4.0, "and nothing else");
}

#[test]
fn openmetrics_is_served_to_those_who_ask() {
    let server = Server::start();
    live(&server);
    let accept = ("accept", "application/openmetrics-text; version=1.0.0");
    let answer = exchange(server.address, &request("GET", "/metrics", &[accept], b"")).unwrap();
    assert_eq!(
        answer.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    let text = answer.text();
    let metrics = Exposition::openmetrics(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(metrics.families["mvm_ci_job_claims"].kind, "counter");
    assert_eq!(metrics.sum("mvm_ci_job_claims_total", &[]), 7.0);
}

/// `docs/metrics.md` has a table of what is served. `UPDATE_EXPECT=1` writes it anew.
#[test]
fn the_page_lists_what_is_served() {
    const PAGE: &str = include_str!("../../../../docs/metrics.md");
    const BEGIN: &str = "<!-- table: written by crates/mvm-node/tests/interface/metrics.rs -->\n";
    const END: &str = "<!-- end of the table -->\n";
    let server = Server::start();
    live(&server);
    let mut table = "\n| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for (name, family) in &server.scrape().families {
        let labels = family.samples.keys().next().map(|(_, labels)| labels);
        let labels: Vec<&str> = labels
            .into_iter()
            .flat_map(|labels| labels.keys())
            .map(String::as_str)
            .filter(|label| *label != "le")
            .collect();
        let (kind, help) = (&family.kind, &family.help);
        writeln!(
            table,
            "| `{name}` | {kind} | {} | {help} |",
            labels.join(", ")
        )
        .unwrap();
    }
    let (before, rest) = PAGE.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let page = format!("{before}{BEGIN}{table}\n{END}{after}");
    expect_file!["../../../../docs/metrics.md"].assert_eq(&page);
}

#[test]
fn ready_says_what_would_be_served() {
    let server = Server::start();
    let check = |outage: Option<Unavailable>, linearizable: u16, local: u16| {
        server.store.set_outage(outage.map(Outage::Unavailable));
        let answers = [
            "/ready",
            "/ready?consistency=linearizable",
            "/ready?consistency=local",
        ]
        .map(|path| server.get(path));
        let statuses = answers.each_ref().map(|answer| answer.status);
        assert_eq!(statuses, [linearizable, linearizable, local]);
        for answer in answers.iter().filter(|answer| answer.status == 503) {
            assert!(answer.header("retry-after").is_some());
            assert!(answer.json()["detail"].is_string());
        }
    };
    check(None, 200, 200);
    check(Some(Unavailable::NoLeader), 503, 200);
    check(Some(Unavailable::NoQuorum { since_ms: 900 }), 503, 200);
    check(Some(Unavailable::Forming), 503, 503);
    check(Some(Unavailable::ShuttingDown), 503, 503);
    check(None, 200, 200);
    assert_eq!(server.get("/ready?consistency=eventual").status, 400);
    assert_eq!(server.get("/ready?verbose=1").status, 400);
}

/// The reader of the tests above must be able to fail.
#[test]
fn bad_expositions_are_noticed() {
    #[track_caller]
    fn check(text: &str, problem: &str) {
        let found = Exposition::prometheus(text).map(drop).unwrap_err();
        assert!(found.contains(problem), "{found:?} is not {problem:?}");
    }
    let histogram = |rest: &str| format!("# HELP h x\n# TYPE h histogram\n{rest}");
    check("# HELP a x\n# TYPE a gauge\na 1", "does not end");
    check("a 1\n", "not a sample of the family");
    check("# TYPE a gauge\na 1\n", "without help");
    check("# HELP a x\na 1\n", "not a sample");
    check("# HELP a x\n# TYPE a counter\na 1\n", "_total");
    check("# HELP a x\n# TYPE a gauge\na 1\na 2\n", "duplicate");
    check("# HELP a x\n# TYPE a gauge\n# HELP a x\n", "second time");
    check("# HELP a x\n# TYPE a gauge\nb 1\n", "not a sample");
    check(
        "# HELP a x\n# TYPE a gauge\na{b=\"c\"x} 1\n",
        "labels do not end",
    );
    check("# HELP a x\n# TYPE a gauge\na{b=\"\\c\"} 1\n", "escape");
    check("# HELP a x\n# TYPE a gauge\na{B=\"c\"} 1\n", "name \"B\"");
    check("# HELP a x\n# TYPE a gauge\na one\n", "value \"one\"");
    check(
        "# HELP a_total x\n# TYPE a_total counter\na_total -1\n",
        "not a count",
    );
    check(
        &histogram("h_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n"),
        "not cumulative",
    );
    check(
        &histogram("h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 2\n"),
        "+Inf is not the count",
    );
    check(&histogram("h_bucket{le=\"+Inf\"} 1\nh_count 1\n"), "no sum");
    assert!(Exposition::openmetrics("# HELP a x\n# TYPE a gauge\na 1\n").is_err());
}
