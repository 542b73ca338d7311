//! What a replay costs.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::process::Command;

use crate::{
    engine::Engine,
    http::Http,
    print::{millis, print},
};

const ENTRIES: [u32; 2] = [1, 10_000];

pub(crate) async fn measure(engine: &Engine) {
    for entries in ENTRIES {
        let id = draw(engine, entries).await;
        let took = replay(engine, &id).await;
        print(&format!("replay, {entries} entries"), "ms", millis(took));
    }
}

/// Has a workflow draw random numbers, an entry each.
async fn draw(engine: &Engine, count: u32) -> String {
    let mut http = Http::connect(engine.port).await.unwrap();
    let start =
        json!({ "module": "compat", "workflow": "draws", "input": json!({ "count": count }) });
    let started = http.post("/api/v1/workflows", &start).await;
    let id = started["id"].as_str().unwrap().to_owned();
    let (status, _) = http.get(&format!("/api/v1/workflows/{id}/response")).await;
    assert!(status.is_success(), "{status}");
    id
}

async fn replay(engine: &Engine, id: &str) -> Duration {
    let start = Instant::now();
    let replayed = Command::new(env!("CARGO_BIN_EXE_mvm-ci"))
        .args(["flow", "replay", id, "--server"])
        .arg(format!("http://127.0.0.1:{}", engine.port))
        .stdout(Stdio::null())
        // It says how it ended there.
        .stderr(Stdio::null())
        .status();
    assert!(replayed.await.unwrap().success());
    start.elapsed()
}
