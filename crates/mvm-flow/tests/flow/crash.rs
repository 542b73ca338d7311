//! The public crash test, and its twin: A, B held open, C; the engine dies during B.

use std::{path::Path, sync::Arc};

use mvm_flow::{
    SqliteJournal,
    id::ExecutionId,
    journal::{Append, Journal, Start},
    module::describe,
};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::{Counting, Flow, guest};

async fn crash(idempotent: bool) -> (Counting, String) {
    let directory = tempdir().unwrap();
    let server = Counting::start().await;
    server.hold(Some("/b"));
    let flow = Flow::start(directory.path()).await;
    flow.deploy("compat").await;
    let input = json!({ "url": server.url, "idempotent": idempotent });
    let id = flow.begin("crash", input).await;
    server.until("/b", 1).await;
    flow.kill().await;
    server.hold(None);
    let flow = Flow::start(directory.path()).await;
    flow.until_state(&id, "completed").await;
    let response = flow.get(&format!("/api/v1/workflows/{id}/response")).await;
    let b = response["response"]["b"].as_str().unwrap().to_owned();
    (server, b)
}

#[tokio::test]
async fn an_idempotent_request_is_sent_again() {
    let (server, b) = crash(true).await;
    assert_eq!((server.count("/a"), server.count("/c")), (1, 1));
    assert!(server.count("/b") >= 2, "{:?}", server.counts());
    assert_eq!(b, "200");
}

#[tokio::test]
async fn another_one_is_sent_at_most_once() {
    let (server, b) = crash(false).await;
    assert_eq!(
        (server.count("/a"), server.count("/b"), server.count("/c")),
        (1, 1, 1)
    );
    assert_eq!(b, "RequestInterrupted");
}

/// The frame of the response in a journal of `crash`.
const RESPONSE: usize = 11;

/// A journal as it is when the engine died after so many frames of an execution.
async fn died_after(directory: &Path, id: ExecutionId, input: &Value, frames: &[Vec<u8>]) {
    let journal = SqliteJournal::open(directory).unwrap();
    let bytes: Arc<[u8]> = guest("compat").into();
    let module = describe(&bytes).unwrap();
    journal.deploy(&module, bytes).await.unwrap();
    let start = Start {
        id,
        module: module.name.clone(),
        version: module.version.clone(),
        hash: module.hash.clone(),
        workflow: "crash".into(),
        input: input.to_string(),
        parent: None,
    };
    journal.start(start).await.unwrap();
    let claims = journal.claim(1, &Arc::default()).await.unwrap();
    let append = Append {
        frames: frames.to_vec(),
        response: (frames.len() > RESPONSE).then_some(RESPONSE as u64),
        ..Append::default()
    };
    journal.append(&claims[0], append).await.unwrap();
}

#[tokio::test]
async fn a_death_at_any_point_of_the_journal_ends_in_the_same_state() {
    let directory = tempdir().unwrap();
    let first = Counting::start().await;
    let input = json!({ "url": first.url, "idempotent": true });
    let flow = Flow::start(directory.path()).await;
    flow.deploy("compat").await;
    let id = flow.begin("crash", input.clone()).await;
    flow.until_state(&id, "completed").await;
    let entries = flow.get(&format!("/api/v1/workflows/{id}/journal")).await;
    flow.kill().await;
    let id: ExecutionId = id.parse().unwrap();
    let frames = {
        let journal = SqliteJournal::open(directory.path()).unwrap();
        journal.frames(id, 0).await.unwrap()
    };
    // One frame for each record, all being small.
    assert_eq!(frames.len(), entries.as_array().unwrap().len());
    // began, taken, (asked, answered) for a, b, c and the report, a line of the log, the response.
    assert_eq!(frames.len(), 12, "{entries:#}");

    for died in 0..=frames.len() {
        let directory = tempdir().unwrap();
        died_after(directory.path(), id, &input, &frames[..died]).await;
        let before = first.counts();
        let flow = Flow::start(directory.path()).await;
        let id = id.to_string();
        flow.until_state(&id, "completed").await;
        let response = flow.get(&format!("/api/v1/workflows/{id}/response")).await;
        let sent = |path: &str| first.count(path) - before.get(path).copied().unwrap_or(0);
        let recorded = |what: &str, path: &str| {
            let is = |entry: &&Value| {
                entry["record"] == what
                    && entry["what"]["url"]
                        .as_str()
                        .is_some_and(|url| url.ends_with(path))
            };
            let entries = entries.as_array().unwrap();
            entries[..died].iter().position(|entry| is(&entry))
        };
        for (path, idempotent) in [("/a", false), ("/b", true), ("/c", false)] {
            let asked = recorded("asked", path);
            let answered = asked.is_some_and(|place| place + 1 < died);
            let times = match (asked.is_some(), answered, idempotent) {
                (_, true, _) | (true, false, false) => 0,
                (false, false, _) | (true, false, true) => 1,
            };
            assert_eq!(sent(path), times, "{path} after a death at {died}");
            let told = response["response"][&path[1..]].as_str().unwrap();
            let interrupted = asked.is_some() && !answered && !idempotent;
            assert_eq!(
                told,
                if interrupted {
                    "RequestInterrupted"
                } else {
                    "200"
                },
                "{path} after a death at {died}"
            );
        }
    }
}
