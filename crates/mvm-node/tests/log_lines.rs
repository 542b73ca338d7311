//! What a node writes to its log: requests by their names, jobs that move, and no secrets.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
};

use mvm_node::{
    consensus::Unavailable,
    http::App,
    store::{MemoryStore, Outage},
};
use serde_json::{Value, json};
use support::{Answer, exchange, request};

/// In payloads, results, errors and secrets of these tests.
const CONFIDENTIAL: &str = "confidential";

/// All lines of this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The one that is written to.
    fn get() -> &'static Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        LOG.get_or_init(|| {
            let log = Self::default();
            let writer = log.clone();
            tracing_subscriber::fmt()
                .json()
                .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
                .with_writer(move || writer.clone())
                .init();
            log
        })
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines that say `message` on behalf of a request.
    fn lines(&self, message: &str, request: &str) -> Vec<Value> {
        let text = self.text();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines
            .filter(|line: &Value| {
                let of_request =
                    line["fields"]["request"] == request || line["span"]["id"] == request;
                line["fields"]["message"] == message && of_request
            })
            .collect()
    }
}

fn serve() -> (tokio::runtime::Runtime, Arc<MemoryStore>, SocketAddr) {
    Log::get();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = Arc::new(MemoryStore::new());
    let router = App::new(Arc::clone(&store), 1, CONFIDENTIAL).router();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move { axum::serve(listener, router).await });
    (runtime, store, address)
}

fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Answer {
    let mut headers = headers.to_vec();
    headers.push(("content-type", "application/json"));
    let bytes = request(method, path, &headers, body.to_string().as_bytes());
    exchange(address, &bytes).unwrap()
}

#[test]
fn a_request_has_one_name_in_the_answer_and_in_the_log() {
    let (_runtime, store, address) = serve();
    let body = json!({"kind": "build", "payload": {"password": CONFIDENTIAL}});
    let submit = |headers: &[(&str, &str)]| send(address, "POST", "/api/v1/jobs", headers, &body);
    let named = |answer: &Answer| answer.header("x-mvm-request-id").unwrap().to_owned();

    let by_key = submit(&[("idempotency-key", "by-key"), ("x-mvm-request-id", "other")]);
    assert_eq!((by_key.status, &*named(&by_key)), (201, "by-key"));
    let by_id = submit(&[("x-mvm-request-id", "by-id")]);
    assert_eq!((by_id.status, &*named(&by_id)), (201, "by-id"));
    let again = submit(&[("x-mvm-request-id", "by-id")]);
    assert_eq!(
        again.json()["id"],
        by_id.json()["id"],
        "and is not done twice"
    );
    let bad = submit(&[("x-mvm-request-id", "not a name")]);
    assert_eq!(bad.status, 400);
    assert!(bad.text().contains("x-mvm-request-id must be"));
    let unnamed = submit(&[]);
    assert_eq!(named(&unnamed).len(), 26, "a new id");
    let missing = send(
        address,
        "GET",
        "/api/v1/jobs/x",
        &[("x-mvm-request-id", "r1")],
        &body,
    );
    assert_eq!((missing.status, &*named(&missing)), (404, "r1"));

    for request in ["by-key", "by-id", &named(&unnamed)] {
        let submitted = &Log::get().lines("job submitted", request)[0];
        assert_eq!(submitted["level"], "INFO");
        let answered = &Log::get().lines("answered", request)[0];
        assert_eq!(
            (&answered["span"]["route"], &answered["fields"]["status"]),
            (&json!("/api/v1/jobs"), &json!(201))
        );
        assert!(answered["fields"]["duration_ms"].is_number());
        assert_eq!(answered["level"], "DEBUG");
    }
    let cause = Unavailable::NoLeader;
    store.set_outage(Some(Outage::Unavailable(cause)));
    assert_eq!(submit(&[("idempotency-key", "refused")]).status, 503);
    assert_eq!(Log::get().lines("answered", "refused")[0]["level"], "INFO");
}

#[test]
fn jobs_that_move_have_a_line_and_secrets_have_none() {
    let (_runtime, _store, address) = serve();
    let secret = ("x-mvm-secret", CONFIDENTIAL);
    let post = |path: &str, key: &str, body: Value| {
        let key = ("idempotency-key", key);
        let answer = send(address, "POST", path, &[key, secret], &body);
        assert!(answer.status < 300, "{answer:?}");
        answer.json()
    };
    let payload = json!({"kind": "build", "payload": CONFIDENTIAL});
    let job = post("/api/v1/jobs", "life-1", payload)["id"].clone();
    post("/api/v1/claims", "life-2", json!({"worker": "w"}));
    let path = format!("/api/v1/jobs/{}", job.as_str().unwrap());
    post(&format!("{path}/start"), "life-3", json!({"token": 1}));
    let report = json!({"report": "failed", "error": CONFIDENTIAL, "permanent": true});
    let finish = json!({"token": 1, "report": report});
    post(&format!("{path}/finish"), "life-4", finish);
    post(&format!("{path}/retry"), "life-5", json!({}));
    post(&format!("{path}/cancel"), "life-6", json!({}));
    let query = format!("{path}?consistency={CONFIDENTIAL}");
    send(address, "GET", &query, &[secret], &json!({}));
    send(address, "POST", "/internal/v1/lead", &[secret], &json!({}));

    for (message, request) in [
        ("job submitted", "life-1"),
        ("job claimed", "life-2"),
        ("job started", "life-3"),
        ("attempt ended", "life-4"),
        ("job retried by hand", "life-5"),
        ("job cancelled, or its worker asked to stop", "life-6"),
    ] {
        let lines = Log::get().lines(message, request);
        assert_eq!(lines.len(), 1, "{message}: {}", Log::get().text());
        assert_eq!(lines[0]["fields"]["job"], job, "{message}");
        assert_eq!(lines[0]["fields"]["node"], 1, "{message}");
    }
    let claimed = &Log::get().lines("job claimed", "life-2")[0]["fields"];
    assert_eq!(
        (&claimed["token"], &claimed["claimed_on"]),
        (&json!("1"), &json!(1))
    );
    let ended = &Log::get().lines("attempt ended", "life-4")[0]["fields"];
    assert_eq!(
        (&ended["outcome"], &ended["state"]),
        (&json!("failed"), &json!("failed"))
    );
    assert!(!Log::get().text().contains(CONFIDENTIAL));
}
