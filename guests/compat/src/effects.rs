//! Workflows whose effects a server outside counts.

use flawless::idempotent::Idempotence;
use flawless::workflow;
use flawless::workflow::{Input, Response};
use flawless_http::{Error, get};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What became of a request: the status, or the kind of error.
pub(crate) fn outcome(result: &Result<flawless_http::Response, Error>) -> String {
    match result {
        Ok(response) => response.status_code().to_string(),
        Err(Error::Status(code, _)) => code.to_string(),
        Err(Error::Transport(error)) => format!("{:?}", error.kind()),
    }
}

fn ask(url: String, idempotent: bool) -> Result<flawless_http::Response, Error> {
    let request = get(url);
    if idempotent {
        request.idempotent().send()
    } else {
        request.send()
    }
}

#[derive(Serialize, Deserialize)]
struct Steps {
    url: String,
    steps: u32,
    #[serde(default)]
    idempotent: bool,
}

/// Asks for `{url}/step/1` and so on; responds with how many succeeded, and what became of the others.
#[workflow("steps")]
fn steps(input: Input<Steps>, response: Response) {
    let mut failed: Vec<Value> = Vec::new();
    for step in 1..=input.steps {
        let result = ask(format!("{}/step/{step}", input.url), input.idempotent);
        if result.is_err() {
            failed.push(json!({ "step": step, "outcome": outcome(&result) }));
        }
    }
    let succeeded = input.steps as usize - failed.len();
    let _ = response.send(json!({ "succeeded": succeeded, "failed": failed }));
}

#[derive(Serialize, Deserialize)]
struct Crash {
    url: String,
    /// Whether B is idempotent; A and C are not.
    #[serde(default)]
    idempotent: bool,
}

/// Asks for `{url}/a`, `{url}/b` and `{url}/c`, one after the other, and reports what became of them to
/// `{url}/report?a=..&b=..&c=..`, idempotently: the caller may have gone in a crash. Responds with the same.
#[workflow("crash")]
fn crash(input: Input<Crash>, response: Response) {
    let url = &input.url;
    let a = outcome(&ask(format!("{url}/a"), false));
    let b = outcome(&ask(format!("{url}/b"), input.idempotent));
    let c = outcome(&ask(format!("{url}/c"), false));
    log::info!("a {a}, b {b}, c {c}");
    let report = outcome(&ask(format!("{url}/report?a={a}&b={b}&c={c}"), true));
    let _ = response.send(json!({ "a": a, "b": b, "c": c, "report": report }));
}
