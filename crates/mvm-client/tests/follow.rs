//! Streams that are cut, repeated, wrong or endless: no line is lost or doubled, and no lie believed.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use mvm_client::{Client, ClientError, JobEvent, LogEvent, LogPlace, Options};
use mvm_queue::{FencingToken, JobId, JobState};
use support::{Act, Server, answer, client, events, impatient, unavailable};

fn chunk(attempt: i64, number: u32, text: &str) -> String {
    let data =
        format!(r#"{{"number": {number}, "stream": "stdout", "at_ms": 1, "text": "{text}"}}"#);
    format!(
        "id: {attempt}:{}\nevent: chunk\ndata: {data}\n\n",
        number + 1
    )
}

fn end(state: &str) -> String {
    format!("event: end\ndata: {{\"state\": \"{state}\"}}\n\n")
}

fn stream(parts: &[String]) -> Vec<u8> {
    events(&parts.concat())
}

/// Follows job J1 from the beginning of attempt 1.
async fn follow(client: &Client) -> Result<(String, JobState), ClientError> {
    let mut follow =
        client.follow_log(&JobId("J1".into()), LogPlace::beginning_of(FencingToken(1)));
    let mut seen = String::new();
    loop {
        match follow.next().await? {
            LogEvent::Chunk { attempt, chunk } => seen += &format!("{attempt}{} ", chunk.text),
            LogEvent::End { state } => return Ok((seen, state)),
        }
    }
}

#[tokio::test]
async fn a_cut_stream_goes_on_at_another_server_where_it_was() {
    let half = chunk(1, 2, "c");
    let first = Server::start([
        Act::Send(stream(&[
            ": hello\n\n".into(),
            chunk(1, 0, "a"),
            chunk(1, 1, "b"),
            half[..half.len() - 1].into(),
        ])),
        unavailable(),
    ])
    .await;
    let second = Server::start([
        Act::Send(stream(&[chunk(1, 1, "b"), chunk(1, 2, "c")])),
        Act::Send(stream(&[
            chunk(2, 0, "d"),
            "event: new\ndata: x\n\n".into(),
            end("completed"),
        ])),
    ])
    .await;
    let (seen, state) = follow(&client(&[&first, &second])).await.unwrap();
    assert_eq!((&*seen, state), ("1a 1b 1c 2d ", JobState::Completed));
    let asked: Vec<_> = [first.seen(), second.seen()]
        .concat()
        .iter()
        .map(|seen| format!("{} {:?}", seen.line(), seen.header("last-event-id")))
        .collect();
    let path = "GET /api/v1/jobs/J1/log/events";
    assert_eq!(
        asked,
        ["1:0", "1:3", "1:2", "1:3"].map(|place| format!("{path} Some({place:?})"))
    );
}

#[tokio::test]
async fn a_server_that_does_not_have_the_job_yet_is_asked_again() {
    let job = r#"{"job": {"id": "J1", "kind": "k", "payload": 1, "state": "claimed", "created_at_ms": 1,
        "updated_at_ms": 2, "submitted_on": 1, "claimed_by": "w", "attempts": 1}}"#;
    let behind = answer(404, "", r#"{"title": "there is no such job"}"#);
    let full = answer(
        429,
        "",
        r#"{"title": "too many streams of events are open"}"#,
    );
    let server = Server::start([
        full,
        behind,
        answer(200, "", job),
        Act::Send(stream(&[chunk(1, 0, "a"), end("dead")])),
    ])
    .await;
    let found = follow(&client(&[&server])).await.unwrap();
    assert_eq!(found, ("1a ".to_owned(), JobState::Dead));
}

#[tokio::test]
async fn a_silent_server_is_left() {
    let silent = Server::start([Act::SendAndHang(stream(&[chunk(1, 0, "a")]))]).await;
    let other = Server::start([Act::Send(stream(&[chunk(1, 1, "b"), end("completed")]))]).await;
    let options = Options {
        idle_timeout: Duration::from_millis(100),
        ..Options::new(vec![silent.url.clone(), other.url.clone()])
    };
    let found = follow(&Client::new(options).unwrap()).await.unwrap();
    assert_eq!(found, ("1a 1b ".to_owned(), JobState::Completed));
}

#[tokio::test]
async fn a_gap_is_asked_for_elsewhere_and_told_if_nobody_has_it() {
    let gap = || {
        Act::Send(stream(&[
            chunk(1, 0, "a"),
            chunk(1, 2, "c"),
            end("completed"),
        ]))
    };
    let first = Server::start([gap()]).await;
    let second = Server::start([Act::Send(stream(&[
        chunk(1, 1, "b"),
        chunk(1, 2, "c"),
        end("completed"),
    ]))])
    .await;
    let found = follow(&client(&[&first, &second])).await.unwrap();
    assert_eq!(found, ("1a 1b 1c ".to_owned(), JobState::Completed));
    let error = follow(&client(&[&first])).await.unwrap_err();
    assert!(
        error.to_string().contains("chunk 1 is missing before 2"),
        "{error}"
    );
}

#[tokio::test]
async fn a_stream_that_only_ever_ends_is_given_up() {
    let server = Server::start([Act::Send(stream(&[": hello\n\n".into()]))]).await;
    let error = follow(&Client::new(impatient(vec![server.url.clone()])).unwrap())
        .await
        .unwrap_err();
    assert!(
        matches!(error, ClientError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("ended the stream early"),
        "{error}"
    );
    assert!(server.lines().len() > 1);
}

#[tokio::test]
async fn lies_and_refusals_end_it() {
    let check = async |act: Act, expected: &str| {
        let server = Server::start([act]).await;
        let error = follow(&client(&[&server])).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(
        answer(404, "", r#"{"title": "there is no such job"}"#),
        "no such job",
    )
    .await;
    check(
        answer(200, "content-type: text/html\r\n", "x"),
        "no text/event-stream",
    )
    .await;
    check(
        Act::Send(stream(&[end("gone")])),
        "could not read its event",
    )
    .await;
    let no_id = chunk(1, 0, "a").replace("id: 1:1", "id: one");
    check(Act::Send(stream(&[no_id])), "chunk 0 has the id").await;
    let wrong_id = chunk(1, 0, "a").replace("1:1", "1:2");
    check(Act::Send(stream(&[wrong_id])), "chunk 0 has the id").await;
    let endless = Act::Flood(events("data: "), vec![b'x'; 1 << 16]);
    check(endless, "an event has more than").await;
}

#[tokio::test]
async fn a_job_is_followed_to_its_end() {
    let job = r#"{"id": "J1", "kind": "k", "payload": 1, "state": "claimed", "created_at_ms": 1, "updated_at_ms": 2,
        "submitted_on": 1, "claimed_by": "w", "attempts": 1}"#
        .replace('\n', "");
    let job = format!("event: job\ndata: {job}\n\n");
    let server = Server::start([
        Act::Send(stream(std::slice::from_ref(&job))),
        Act::Send(stream(&[job, end("completed")])),
    ])
    .await;
    let mut follow = client(&[&server]).follow_job(&JobId("J1".into()));
    for _ in 0..2 {
        let event = follow.next().await.unwrap();
        assert!(
            matches!(&event, JobEvent::Job(job) if job.state == JobState::Claimed),
            "{event:?}"
        );
    }
    let state = JobState::Completed;
    assert_eq!(follow.next().await.unwrap(), JobEvent::End { state });
    assert_eq!(server.lines(), ["GET /api/v1/jobs/J1/events"; 2]);
}
