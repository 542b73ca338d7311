//! Jobs of kind `fetch`: gets a URL, and tells status, size and hash of what it got. The body is not kept.

use std::time::Duration;

use mvm_flow::http::{client, in_full};
use mvm_queue::{JobSpec, Report};
use reqwest::{Client, Response, StatusCode, redirect::Policy};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

/// How long a server may take to be reached, and to send the next bytes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How long all of it may take where the job does not say.
const TIMEOUT: Duration = Duration::from_secs(3_600);
const REDIRECTS_MAX: usize = 10;
const USER_AGENT: &str = concat!("mvm-ci/", env!("CARGO_PKG_VERSION"));

/// A fetch under way. Dropping it ends it.
pub(super) struct Fetch {
    report: watch::Receiver<Option<Report>>,
    cancelled: watch::Sender<bool>,
}

impl Fetch {
    /// Begins to fetch what a job names; the error is for people.
    pub(super) fn begin(job: &JobSpec) -> Result<Self, String> {
        let url = job.payload.get("url").and_then(Value::as_str);
        let url = url.ok_or("a fetch job needs a url in its payload")?;
        let url = url.to_owned();
        let timeout = job.timeout_ms.map_or(TIMEOUT, Duration::from_millis);
        let builder = || {
            Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(READ_TIMEOUT)
                .redirect(Policy::limited(REDIRECTS_MAX))
                .user_agent(USER_AGENT)
        };
        let client = client(builder)
            .map_err(|error| format!("could not prepare to fetch: {}", in_full(&error)))?;
        let (tell, report) = watch::channel(None);
        let (cancelled, mut cancel) = watch::channel(false);
        tokio::spawn(async move {
            let ended = tokio::select! {
                report = tokio::time::timeout(timeout, fetch(&client, &url)) => {
                    report.unwrap_or(Report::TimedOut)
                }
                // Also where whoever waited is gone.
                _ = cancel.changed() => Report::Cancelled,
            };
            tell.send_replace(Some(ended));
        });
        Ok(Self { report, cancelled })
    }

    /// Waits for its end, which it tells again and again. Cancel safe.
    pub(super) async fn ended(&mut self) -> Report {
        match self.report.wait_for(Option::is_some).await {
            Ok(report) => report.clone().unwrap_or(Report::Lost),
            // It ended without a word: a defect of ours, which another worker may not meet.
            Err(_) => Report::Lost,
        }
    }

    /// Ends it, if it has not ended.
    pub(super) fn cancel(&self) {
        self.cancelled.send_replace(true);
    }
}

async fn fetch(client: &Client, url: &str) -> Report {
    let failed = |error: &reqwest::Error, permanent| {
        Report::failed(&format!("could not fetch: {}", in_full(error)), permanent)
    };
    let response = match client.get(url).send().await {
        Ok(response) => response,
        // A bad URL or an endless redirect is as bad the next time.
        Err(error) => return failed(&error, error.is_builder() || error.is_redirect()),
    };
    let status = response.status();
    match read(response).await {
        Ok(result) if status.is_success() => Report::Succeeded { result },
        Ok(result) => {
            let (bytes, hash) = (&result["bytes"], result["sha256"].as_str());
            let hash = hash.unwrap_or_default();
            let text = format!("the server answered {status} with {bytes} bytes of SHA-256 {hash}");
            Report::failed(&text, !is_passing(status))
        }
        Err(error) => failed(&error, false),
    }
}

/// Reads the body to its end.
async fn read(mut response: Response) -> Result<Value, reqwest::Error> {
    let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
    while let Some(chunk) = response.chunk().await? {
        bytes += chunk.len() as u64;
        hash.update(&chunk);
    }
    let hex: String = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let media_type = response.headers().get(reqwest::header::CONTENT_TYPE);
    Ok(json!({
        "status": response.status().as_u16(),
        "url": response.url().as_str(),
        "content_type": media_type.and_then(|value| value.to_str().ok()),
        "bytes": bytes,
        "sha256": hex,
    }))
}

/// Whether the server may answer otherwise the next time.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error()
        || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status)
}

#[cfg(test)]
mod tests {
    use axum::{Router, http::StatusCode, response::Redirect, routing::get};
    use expect_test::{Expect, expect};

    use super::*;

    /// A server with one page, and some that are none; returns its address.
    async fn server() -> String {
        let never = || async {
            std::future::pending::<()>().await;
        };
        let routes = Router::new()
            .route("/page", get(|| async { "hello\n" }))
            .route("/moved", get(|| async { Redirect::to("/page") }))
            .route("/round", get(|| async { Redirect::to("/round") }))
            .route("/busy", get(|| async { StatusCode::SERVICE_UNAVAILABLE }))
            .route("/never", get(never));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async { axum::serve(listener, routes).await });
        format!("http://{address}")
    }

    async fn check(server: &str, path: &str, timeout_ms: Option<u64>, expected: Expect) {
        let mut job = JobSpec::new("fetch", json!({ "url": format!("{server}{path}") }));
        job.timeout_ms = timeout_ms;
        let mut fetch = Fetch::begin(&job).unwrap();
        let report = fetch.ended().await;
        let text = serde_json::to_string(&report).unwrap();
        expected.assert_eq(&text.replace(server, "SERVER"));
    }

    #[tokio::test]
    async fn what_comes_of_fetches() {
        let server = server().await;
        let found = expect![[
            r#"{"report":"succeeded","result":{"bytes":6,"content_type":"text/plain; charset=utf-8","sha256":"5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03","status":200,"url":"SERVER/page"}}"#
        ]];
        check(&server, "/page", None, found).await;
        check(&server, "/moved", None, expect![[r#"{"report":"succeeded","result":{"bytes":6,"content_type":"text/plain; charset=utf-8","sha256":"5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03","status":200,"url":"SERVER/page"}}"#]]).await;
        check(&server, "/round", None, expect![[r#"{"report":"failed","error":"could not fetch: error following redirect for url (SERVER/round): too many redirects","permanent":true}"#]]).await;
        check(&server, "/nothing", None, expect![[r#"{"report":"failed","error":"the server answered 404 Not Found with 0 bytes of SHA-256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","permanent":true}"#]]).await;
        check(&server, "/busy", None, expect![[r#"{"report":"failed","error":"the server answered 503 Service Unavailable with 0 bytes of SHA-256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","permanent":false}"#]]).await;
        check(
            &server,
            "/never",
            Some(50),
            expect![[r#"{"report":"timed_out"}"#]],
        )
        .await;
        check("http://127.0.0.1:1", "/", None, expect![[r#"{"report":"failed","error":"could not fetch: error sending request for url (SERVER/): client error (Connect): tcp connect error: Connection refused (os error 111)","permanent":false}"#]]).await;
    }

    #[tokio::test]
    async fn a_fetch_can_be_cancelled() {
        let server = server().await;
        let job = JobSpec::new("fetch", json!({ "url": format!("{server}/never") }));
        let mut fetch = Fetch::begin(&job).unwrap();
        fetch.cancel();
        assert_eq!(fetch.ended().await, Report::Cancelled);
    }
}
