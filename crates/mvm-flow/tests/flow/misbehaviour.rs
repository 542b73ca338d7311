//! Guests that do what they must not: they fail with a reason, and nobody else notices.

use std::path::Path;

use expect_test::expect;
use mvm_flow::{
    Settings, guest,
    limits::{Limits, ModuleLimits},
};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::{Flow, settings};

/// An engine whose limits are soon reached.
fn small() -> Settings {
    let guest = guest::Limits {
        memory_bytes: 64 * 1024 * 1024,
        instructions: 200_000_000,
    };
    Settings {
        limits: Limits::all(ModuleLimits {
            guest,
            ..ModuleLimits::default()
        }),
        ..settings()
    }
}

async fn check(workflow: &str, input: Value, reason: &str) {
    let directory = tempdir().unwrap();
    let flow = Flow::with(directory.path(), small()).await;
    flow.deploy("compat").await;
    let neighbour = flow.begin("sleeps", json!({ "ms": 300 })).await;
    let id = flow.begin(workflow, input).await;
    let shown = flow.until_state(&id, "failed").await;
    let found = shown["reason"].as_str().unwrap();
    assert!(found.contains(reason), "{found}");
    flow.until_state(&neighbour, "completed").await;
}

#[tokio::test]
async fn a_panic_is_told_with_its_place() {
    let reason = "workflow 'panics' panicked at 'a \"word\"', ";
    check("panics", json!({ "text": "a \"word\"" }), reason).await;
}

#[tokio::test]
async fn an_input_that_does_not_fit_is_told() {
    check(
        "sleeps",
        json!({ "ms": "long" }),
        "invalid type: string \"long\", expected u64",
    )
    .await;
}

#[tokio::test]
async fn a_loop_without_end_is_ended() {
    let reason = "it computed for 200000000 instructions without a command, which is the limit";
    check("spins", Value::Null, reason).await;
}

#[tokio::test]
async fn memory_without_end_is_not_given() {
    check("hoards", Value::Null, "MiB of memory; the limit is 64 MiB").await;
}

#[tokio::test]
async fn a_line_of_a_hundred_megabytes_is_refused() {
    check("floods", json!({}), "MiB of memory; the limit is 64 MiB").await;
}

#[tokio::test]
async fn a_long_line_is_taken() {
    let directory = tempdir().unwrap();
    let flow = Flow::start(directory.path()).await;
    flow.deploy("compat").await;
    let id = flow.begin("floods", json!({ "bytes": 300_000 })).await;
    flow.until_state(&id, "completed").await;
    let logs = flow.get(&format!("/api/v1/workflows/{id}/logs")).await;
    assert_eq!(logs[0]["text"].as_str().unwrap().len(), 300_000);
}

/// Small modules in text, each of which does one thing wrong; how it ends, in short.
async fn wat(flow: &Flow, name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests/negative");
    let bytes = wat::parse_file(path.join(format!("{name}.wat"))).unwrap();
    let deployed = flow.deploy_bytes(bytes).await;
    let module = &deployed["ok"];
    if module.is_null() {
        return format!("refused: {}", deployed["error"].as_str().unwrap());
    }
    let start =
        json!({ "module": module["name"], "workflow": module["workflows"][0], "input": null });
    let started = flow.post("/api/v1/workflows", start).await;
    let id = started["id"].as_str().unwrap();
    let shown = flow
        .until(id, |shown| shown["finished_at"].is_number())
        .await;
    let reason = shown["reason"].as_str().unwrap_or_default();
    format!("{}: {reason}", shown["state"].as_str().unwrap())
}

#[tokio::test]
async fn small_modules_that_do_one_thing_wrong() {
    let directory = tempdir().unwrap();
    let flow = Flow::with(directory.path(), small()).await;
    let mut found = String::new();
    let mut names: Vec<_> =
        std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests/negative"))
            .unwrap()
            .map(|entry| {
                entry
                    .unwrap()
                    .path()
                    .file_stem()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
    names.sort();
    for name in names {
        found += &format!("{name}\n    {}\n", wat(&flow, &name).await);
    }
    expect![[r##"
        alloc-out-of-bounds
            completed: 
        alloc-spins
            failed: it trapped: it computed for 200000000 instructions without a command, which is the limit
        alloc-submits
            failed: its allocator asked for something
        alloc-traps
            completed: 
        answer-out-of-bounds
            completed: 
        data-out-of-bounds
            failed: it trapped: out of bounds memory access
        deep-command
            completed: 
        empty-version
            refused: this cannot be deployed: the version "" is not allowed: 1 to 128 letters, digits and . _ - + are
        huge-command
            failed: it asked for 100 MiB of memory; the limit is 64 MiB
        huge-memory
            failed: it asked for 4096 MiB of memory; the limit is 64 MiB
        huge-table
            failed: it trapped: table minimum size of 1000000000 elements exceeds table limits
        init-traps
            failed: it trapped: wasm `unreachable` instruction executed
        no-alloc
            refused: this cannot be deployed: it lacks the export "wasabi::alloc"; build it with the crate `flawless` 1.0.0-beta.3
        no-memory
            refused: this cannot be deployed: it lacks the export "memory"; build it with the crate `flawless` 1.0.0-beta.3
        no-module-export
            refused: this cannot be deployed: it exports no module name; build it with the crate `flawless` 1.0.0-beta.3 and `flawless::module! { name = "...", version = "..." }`
        no-run
            refused: this cannot be deployed: the workflow "main" exports no "run" function
        not-json
            completed: 
        not-utf8
            completed: 
        recurses
            failed: it trapped: call stack exhausted
        slash-in-name
            refused: this cannot be deployed: the name "../elsewhere" is not allowed: 1 to 128 letters, digits and . _ - + are
        start-spins
            failed: it trapped: it computed for 200000000 instructions without a command, which is the limit
        submit-out-of-bounds
            completed: 
        two-module-exports
            refused: this cannot be deployed: it exports two module names, "two-module-exports%_#_%1.0.0" and "another%_#_%1.0.0"; one crate is one module
        unknown-command
            completed: 
        unknown-import
            refused: this cannot be deployed: it imports "env" "reboot", which workflows do not have; all they can use is `wasabi` `submit` (no WASI, no wasm-bindgen)
        wrong-init
            refused: this cannot be deployed: the export "#flawless#workflow#init#main" is not a function without parameters that returns an i32
        wrong-submit
            refused: this cannot be deployed: the export "wasabi submit (imported)" is not a function of four i32 that returns an i32
    "##]].assert_eq(&found);
    // With more memory, another limit is met.
    let directory = tempdir().unwrap();
    let large = Flow::start(directory.path()).await;
    assert_eq!(
        wat(&large, "huge-command").await,
        "failed: it handed over 100000003 bytes at once; at most 29360128 are allowed"
    );
    // The engine goes on.
    flow.deploy("compat").await;
    assert_eq!(flow.call("echo", json!(1)).await, 1);
}
