//! Workflows of one command each.

use std::time::Duration;

use flawless::rand::random;
use flawless::time::now;
use flawless::wasabi::{self, Output, Types};
use flawless::workflow;
use flawless::workflow::{Input, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Responds with its input.
#[workflow("echo")]
fn echo(input: Input<Value>, response: Response) {
    // Whether somebody still listens is the caller's affair.
    let _ = response.send(&*input);
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Nap {
    pub(crate) ms: u64,
}

/// Sleeps; responds with how long that took by the clock that workflows see.
#[workflow("sleeps")]
pub(crate) fn sleeps(input: Input<Nap>, response: Response) {
    let start = now();
    workflow::sleep(Duration::from_millis(input.ms));
    let elapsed = now().duration_since(start).unwrap_or_default();
    let _ = response.send(json!({ "ms": input.ms, "elapsed_ms": elapsed.as_millis() as u64 }));
}

#[derive(Serialize, Deserialize)]
struct Draws {
    count: u32,
}

/// Draws random numbers, one command each and nothing else; responds with their sum, which a replay must repeat.
#[workflow("draws")]
fn draws(input: Input<Draws>, response: Response) {
    let sum = (0..input.count).fold(0_i64, |sum, _| sum.wrapping_add(random()));
    let _ = response.send(json!({ "count": input.count, "sum": sum }));
}

#[derive(Serialize, Deserialize)]
struct Child {
    workflow: String,
    input: Value,
}

/// Starts any workflow of this module by name; responds with its number, which the SDK's own call keeps to itself.
#[workflow("starts")]
fn starts(input: Input<Child>, response: Response) {
    let command = wasabi::Input::StartWorkflow(input.workflow.clone(), input.input.to_string());
    match wasabi::submit(&command) {
        Ok(Output::Value(Types::I64(id))) => drop(response.send(json!({ "id": id }))),
        other => panic!("starting {} gave {other:?}", input.workflow),
    }
}
