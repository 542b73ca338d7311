//! What workflows cost that sleep.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    engine::Engine,
    http::Http,
    print::{print, print_at_most},
    processes::memory,
};

const SLEEPERS: usize = 100_000;
const CLIENTS: usize = 64;
const DAY_MS: u64 = 86_400_000;
const RESIDENT_MAX_MIB: f64 = 1_024.0;
const POLL_PERIOD: Duration = Duration::from_millis(100);

pub(crate) async fn measure(engine: &Engine) {
    let (before, _) = memory(&engine.process);
    let start = Instant::now();
    let mut starting = JoinSet::new();
    for number in 0..CLIENTS {
        let share = SLEEPERS / CLIENTS + usize::from(number < SLEEPERS % CLIENTS);
        let mut http = Http::connect(engine.port).await.unwrap();
        starting.spawn(async move {
            let start = json!({
                "module": "compat", "workflow": "sleeps", "input": { "ms": DAY_MS },
            });
            for _ in 0..share {
                http.post("/api/v1/workflows", &start).await;
            }
        });
    }
    while let Some(started) = starting.join_next().await {
        started.unwrap();
    }
    all_sleep(engine).await;
    let rate = SLEEPERS as f64 / start.elapsed().as_secs_f64();
    let what = format!("{SLEEPERS} sleepers");
    print(&format!("{what}: started and asleep"), "1/s", rate);
    let (resident, own) = memory(&engine.process);
    print_at_most(
        &format!("{what}: resident set"),
        "MiB",
        resident,
        RESIDENT_MAX_MIB,
    );
    print(&format!("{what}: of that not mapped files"), "MiB", own);
    print(&format!("{what}: resident set before"), "MiB", before);
}

/// Waits until none is ready or running.
async fn all_sleep(engine: &Engine) {
    let mut http = Http::connect(engine.port).await.unwrap();
    for state in ["ready", "running"] {
        loop {
            let path = format!("/api/v1/workflows?state={state}&limit=1");
            let (status, body) = http.get(&path).await;
            assert!(status.is_success(), "{status}");
            let found: Vec<Value> = serde_json::from_slice(&body).unwrap();
            if found.is_empty() {
                break;
            }
            tokio::time::sleep(POLL_PERIOD).await;
        }
    }
}
