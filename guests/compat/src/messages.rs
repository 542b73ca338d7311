//! Workflows that receive messages.

use std::time::Duration;

use flawless::workflow::{Input, Response};
use flawless::{message, receive, workflow};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[message("apple")]
pub(crate) struct Apple {
    pub(crate) weight: u32,
}

#[message("pear")]
pub(crate) struct Pear {
    pub(crate) weight: u32,
}

#[message("stop")]
struct Stop;

#[derive(Serialize, Deserialize)]
struct Wait {
    timeout_ms: u64,
}

#[derive(Serialize)]
struct Fruit {
    kind: &'static str,
    weight: u32,
}

/// Receives a pear, past any apples; then whatever comes first. Responds with both, or `null` where nothing came in time.
#[workflow("waits")]
fn waits(input: Input<Wait>, response: Response) {
    let timeout = Duration::from_millis(input.timeout_ms);
    let first = receive! {
        pear: Pear => Some(Fruit { kind: "pear", weight: pear.weight }),
        +timeout timeout => None
    };
    let second = receive! {
        apple: Apple => Some(Fruit { kind: "apple", weight: apple.weight }),
        pear: Pear => Some(Fruit { kind: "pear", weight: pear.weight }),
        +timeout timeout => None
    };
    let _ = response.send(json!({ "first": first, "second": second }));
}

/// Logs what it receives until it is told to stop. It has no response, so whoever starts it knows its id at once.
#[workflow("listens")]
fn listens() {
    let mut count = 0;
    loop {
        let going_on = receive! {
            apple: Apple => { log::info!("an apple of {}", apple.weight); true },
            pear: Pear => { log::info!("a pear of {}", pear.weight); true },
            _stop: Stop => false,
        };
        if !going_on {
            break;
        }
        count += 1;
    }
    log::info!("stopped after {count}");
}
