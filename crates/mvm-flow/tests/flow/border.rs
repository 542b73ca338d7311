//! Whatever a guest hands to the host, its execution ends in a defined way, and the engine goes on.

use std::time::Duration;

use mvm_flow::abi::{Command, HttpConfig, HttpRequest, Line, Number};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::json;
use tempfile::tempdir;

use crate::support::{Flow, settings};

const CASES: u32 = 256;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[ -~]{0,20}"]
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0..30_u64).prop_map(Duration::from_millis),
        (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
    ]
}

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![
        any::<bool>().prop_map(Number::Bool),
        any::<i32>().prop_map(Number::I32),
        any::<i64>().prop_map(Number::I64),
        any::<f32>().prop_map(Number::F32),
        any::<f64>().prop_map(Number::F64),
    ]
}

/// Requests that reach nobody: no scheme that is known, no change of which by some bytes is one.
fn request() -> impl Strategy<Value = HttpRequest> {
    let config = (any::<bool>(), duration(), any::<u64>()).prop_map(
        |(idempotent, timeout, response_body_limit)| HttpConfig {
            idempotent,
            timeout,
            response_body_limit,
        },
    );
    let headers = prop::collection::vec((text(), text()), 0..3);
    (config, text(), text(), headers, text()).prop_map(|(config, method, rest, headers, body)| {
        HttpRequest {
            config,
            method,
            url: format!("gopher://{rest}"),
            headers,
            body,
        }
    })
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        Just(Command::GetInput),
        Just(Command::TimeNow),
        text().prop_map(|text| Command::Log(Line::Error(text))),
        text().prop_map(Command::SendResponse),
        text().prop_map(Command::GetSecret),
        text().prop_map(Command::ReplayDebug),
        number().prop_map(Command::Random),
        duration().prop_map(Command::Sleep),
        request().prop_map(Command::HttpRequest),
        (
            prop::option::of(duration()),
            prop::collection::vec(text(), 0..3)
        )
            .prop_map(|(timeout, types)| Command::RecvMessage(timeout, types)),
        (prop_oneof![Just("main".to_owned()), text()], text())
            .prop_map(|(workflow, input)| Command::StartWorkflow(workflow, input)),
    ]
}

/// Any bytes; a command; and a command of which some bytes are others.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let command = || command().prop_map(|command| serde_json::to_vec(&command).unwrap());
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    let mutated = (command(), changes).prop_map(|(mut bytes, changes)| {
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes
    });
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..200),
        2 => command(),
        3 => mutated,
    ]
}

async fn ends(flow: &Flow, bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let start = json!({ "module": "pass-through", "workflow": "main", "input": digits });
    let started = flow.post("/api/v1/workflows", start).await;
    let id = started["id"]
        .as_str()
        .unwrap_or_else(|| panic!("{started}"));
    let ended = |shown: &serde_json::Value| shown["finished_at"].is_number();
    let shown = flow
        .until(id, |shown| ended(shown) || shown["state"] == "waiting")
        .await;
    if !ended(&shown) {
        // For ever, or nearly. It may have ended since.
        flow.post(&format!("/api/v1/workflows/{id}/cancel"), json!({}))
            .await;
    }
    let shown = flow.until(id, ended).await;
    let state = shown["state"].as_str().unwrap().to_owned();
    assert!(
        state == "completed" || shown["reason"].is_string(),
        "{shown}"
    );
    state
}

#[test]
fn whatever_a_guest_hands_over_it_ends_and_the_engine_goes_on() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let directory = tempdir().unwrap();
    let module = wat::parse_str(include_str!("pass_through.wat")).unwrap();
    let flow = runtime.block_on(async {
        let flow = Flow::with(directory.path(), settings()).await;
        let deployed = flow.deploy_bytes(module).await;
        assert_eq!(deployed["ok"]["name"], "pass-through", "{deployed}");
        // It does pass on what it is given: this is in its journal.
        let log = serde_json::to_vec(&Command::Log(Line::Info("passed on".into()))).unwrap();
        assert_eq!(ends(&flow, &log).await, "completed");
        let list = flow.get("/api/v1/workflows").await;
        let logs = format!("/api/v1/workflows/{}/logs", list[0]["id"].as_str().unwrap());
        assert_eq!(flow.get(&logs).await[0]["text"], "passed on");
        flow
    });
    let mut runner = TestRunner::new(Config {
        cases: CASES,
        // One that hangs takes long to tell.
        max_shrink_time: 30_000,
        failure_persistence: None,
        ..Config::default()
    });
    let held = runner.run(&bytes(), |bytes| {
        let state = runtime.block_on(ends(&flow, &bytes));
        prop_assert!(["completed", "failed", "cancelled"].contains(&state.as_str()));
        Ok(())
    });
    held.unwrap();
    runtime.block_on(flow.stop());
}
