//! Workflows that an engine must survive.

use std::hint::black_box;

use flawless::workflow;
use flawless::workflow::{Input, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Serialize, Deserialize)]
struct Panics {
    text: String,
    /// Whether to respond with `null` before.
    #[serde(default)]
    respond: bool,
}

/// Panics with the given text.
#[workflow("panics")]
fn panics(input: Input<Panics>, response: Response) {
    if input.respond {
        let _ = response.send(Value::Null);
    }
    panic!("{}", input.text);
}

/// Ends without the response that it owes.
#[workflow("silent")]
fn silent(_response: Response) {}

/// Never ends, and gives no command.
#[workflow("spins")]
fn spins() {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Takes memory, and writes to it, until there is no more.
#[workflow("hoards")]
fn hoards() {
    let mut hoard = Vec::new();
    loop {
        hoard.push(black_box(vec![1_u8; 1 << 20]));
    }
}

#[derive(Serialize, Deserialize)]
struct Floods {
    #[serde(default = "a_hundred_million")]
    bytes: usize,
}

fn a_hundred_million() -> usize {
    100_000_000
}

/// Logs one line of that length. It takes about four times that much memory, because the SDK copies it.
#[workflow("floods")]
fn floods(input: Input<Floods>) {
    log::info!("{}", "x".repeat(input.bytes));
}
