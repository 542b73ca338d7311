//! One workflow that gives every command at least once, in a fixed order.

use std::time::{Duration, UNIX_EPOCH};

use flawless::idempotent::Idempotence;
use flawless::rand::random;
use flawless::secrets::get_secret;
use flawless::time::now;
use flawless::wasabi::{self, Level};
use flawless::workflow::{Input, Response};
use flawless::{receive, replay_debug, workflow};
use flawless_http::{get, post};
use serde::{Deserialize, Serialize};

use crate::effects::outcome;
use crate::messages::{Apple, Pear};
use crate::plain::{Nap, sleeps};

#[derive(Serialize, Deserialize)]
struct Everything {
    /// Asked by GET, and then by POST, idempotently, with a JSON body.
    url: String,
    /// A secret's name.
    secret: String,
    sleep_ms: u64,
    /// How long to wait for an apple.
    wait_ms: u64,
    /// Whether to wait for a pear then, for ever.
    #[serde(default)]
    pear: bool,
}

#[derive(Serialize)]
struct Seen {
    bool: bool,
    i32: i32,
    i64: i64,
    f32: f32,
    f64: f64,
    before_ms: u64,
    after_ms: u64,
    secret: Option<String>,
    get: String,
    body: Option<String>,
    post: String,
    apple: Option<u32>,
    pear: Option<u32>,
}

/// Gives every command; responds with all that it was told.
#[workflow("everything")]
fn everything(input: Input<Everything>, response: Response) {
    log_at_every_level();
    let before_ms = now_ms();
    workflow::sleep(Duration::from_millis(input.sleep_ms));
    let after_ms = now_ms();
    let got = get(&input.url)
        .set_header("Accept", "text/plain")
        .timeout(Duration::from_secs(10))
        .response_body_limit(1000)
        .send();
    let posted = post(&input.url)
        .body(serde_json::json!({ "before_ms": before_ms }))
        .idempotent()
        .send();
    workflow::start::<sleeps>(Nap { ms: 1 }).expect("its input serializes");
    let apple = receive! {
        apple: Apple => Some(apple.weight),
        +timeout Duration::from_millis(input.wait_ms) => None
    };
    let pear = input
        .pear
        .then(|| flawless::message::receive::<Pear>().weight);
    replay_debug!("apple {apple:?}, pear {pear:?}");
    let seen = Seen {
        bool: random(),
        i32: random(),
        i64: random(),
        f32: random(),
        f64: random(),
        before_ms,
        after_ms,
        secret: get_secret(&input.secret),
        get: outcome(&got),
        body: got.ok().and_then(|response| response.text().ok()),
        post: outcome(&posted),
        apple,
        pear,
    };
    if response.send(seen).is_err() {
        log::warn!("nobody waits for the response");
    }
}

/// The SDK's logger sends nothing below `info`, so the lower levels go past it.
fn log_at_every_level() {
    log::error!("an error");
    log::warn!("a warning");
    log::info!("an information, with \"quotes\", a\nnew line and 😀");
    for level in [
        Level::Debug("a detail".to_owned()),
        Level::Trace("a trace".to_owned()),
    ] {
        wasabi::submit(&wasabi::Input::Log(level)).expect("a log line is taken");
    }
}

fn now_ms() -> u64 {
    let since = now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
