//! Which server is asked when, what is repeated, and what is said when nobody answers.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::{collections::BTreeSet, time::Duration};

use mvm_client::{Cause, Client, ClientError, Consistency, JobsQuery, Offer, Options, Token};
use mvm_queue::{FencingToken, Filter, JobId, JobSpec, JobState, Report};
use serde_json::json;
use support::{Act, Server, answer, client, impatient, nobody, submitted, unavailable, unknown};

fn spec() -> JobSpec {
    JobSpec::new("build", json!({ "commit": "c633108" }))
}

fn keys(server: &Server) -> BTreeSet<String> {
    let seen = server.seen();
    let keys = seen.iter().map(|seen| seen.header("idempotency-key"));
    keys.map(|key| key.unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_server_that_is_down_or_refuses_is_passed_over_and_the_next_remembered() {
    let refuses = Server::start([unavailable()]).await;
    let serves = Server::start([submitted(201), submitted(200)]).await;
    let servers = vec![nobody().await, refuses.url.clone(), serves.url.clone()];
    let client = Client::new(Options::new(servers)).unwrap();
    let first = client.submit(&spec()).await.unwrap();
    assert_eq!(
        (first.id, first.state, first.existing),
        (JobId("J1".into()), JobState::Pending, false)
    );
    assert!(
        client.submit(&spec()).await.unwrap().existing,
        "200 means that there was one"
    );
    assert_eq!(
        refuses.lines(),
        ["POST /api/v1/jobs"],
        "asked once, not again"
    );
    assert_eq!(serves.lines().len(), 2);
    assert_eq!(
        serves.seen()[0].body,
        r#"{"kind":"build","payload":{"commit":"c633108"}}"#
    );
    assert_eq!(keys(&serves).len(), 2, "each change has its own key");
}

#[tokio::test]
async fn what_may_have_been_applied_is_repeated_under_its_key() {
    let half = b"HTTP/1.1 201 X\r\ncontent-length: 50\r\n\r\n{\"id\"".to_vec();
    let first = Server::start([Act::Cut, unknown(), Act::Send(half), Act::Hang]).await;
    let second = Server::start([Act::Cut, unavailable(), unknown(), submitted(201)]).await;
    let options = Options {
        answer_timeout: Duration::from_secs(1),
        ..Options::new(vec![first.url.clone(), second.url.clone()])
    };
    let client = Client::new(options).unwrap();
    client.submit(&spec()).await.unwrap();
    assert_eq!((first.lines().len(), second.lines().len()), (4, 4));
    assert_eq!(keys(&first).len(), 1);
    assert_eq!(keys(&first), keys(&second));
}

#[tokio::test]
async fn an_unknown_outcome_is_not_told_as_a_refusal() {
    let asks = async |act: Act| {
        let server = Server::start([act, unavailable()]).await;
        let client = Client::new(impatient(vec![server.url.clone(), nobody().await])).unwrap();
        let error = client.submit(&spec()).await.unwrap_err();
        (error, keys(&server))
    };
    for act in [unknown(), Act::Cut, Act::Hang] {
        let (error, keys) = asks(act).await;
        let ClientError::OutcomeUnknown { key, causes, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(keys, BTreeSet::from([key.clone()]));
        assert!(
            matches!(causes[1].cause, Cause::Connect { .. }),
            "{causes:?}"
        );
        assert!(error.to_string().contains(key), "{error}");
    }
    let (error, _) = asks(unavailable()).await;
    let ClientError::Unreachable { causes, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(
        matches!(causes[0].cause, Cause::Unavailable(_)),
        "{causes:?}"
    );
    let told = error.to_string();
    assert!(
        told.contains("no leader") && told.contains("could not be connected to"),
        "{told}"
    );
}

#[tokio::test]
async fn reads_are_never_of_unknown_outcome() {
    let slow = Server::start([Act::Hang]).await;
    let client = Client::new(impatient(vec![slow.url.clone()])).unwrap();
    let error = client.stats(Consistency::Local).await.unwrap_err();
    let ClientError::Unreachable { causes, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(matches!(causes[0].cause, Cause::Slow { .. }), "{causes:?}");
    assert_eq!(slow.lines()[0], "GET /api/v1/stats?consistency=local");
}

#[tokio::test]
async fn a_server_that_names_a_time_is_not_asked_before() {
    let asks_for_more = answer(503, "retry-after: 60\r\n", "{}");
    let first = Server::start([asks_for_more, submitted(201)]).await;
    let busy = answer(429, "retry-after: 0\r\n", "{}");
    let second = Server::start([unavailable(), busy, submitted(201)]).await;
    client(&[&first, &second]).submit(&spec()).await.unwrap();
    assert_eq!((first.lines().len(), second.lines().len()), (1, 3));
}

#[tokio::test]
async fn a_refusal_is_final_and_told_whole() {
    let problem = r#"{"type": "urn:mvm-ci:unknown-job", "title": "there is no such job", "status": 404,
        "detail": "there is no job J9", "hint": "GET /api/v1/jobs shows the jobs there are", "request_id": "r"}"#;
    let first = Server::start([answer(
        404,
        "content-type: application/problem+json\r\n",
        problem,
    )])
    .await;
    let second = Server::start([submitted(201)]).await;
    let error = client(&[&first, &second])
        .cancel(&JobId("J9".into()))
        .await
        .unwrap_err();
    let ClientError::Refused { problem, server } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(server, &first.url);
    assert_eq!(
        (problem.status, problem.request_id.as_deref()),
        (404, Some("r"))
    );
    assert_eq!(
        problem.hint.as_deref(),
        Some("GET /api/v1/jobs shows the jobs there are")
    );
    assert_eq!(
        error.to_string(),
        format!("{server} refused: there is no such job (404): there is no job J9")
    );
    assert_eq!(first.lines(), ["POST /api/v1/jobs/J9/cancel"]);
    assert!(second.lines().is_empty());
}

#[tokio::test]
async fn garbage_is_a_violation() {
    let check = async |act: Act, expected: &str| {
        let server = Server::start([act]).await;
        let error = client(&[&server]).submit(&spec()).await.unwrap_err();
        let ClientError::Violation { detail, .. } = &error else {
            panic!("{error:?}");
        };
        assert!(detail.contains(expected), "{detail}");
    };
    check(answer(201, "", "<html>"), "could not read its answer").await;
    check(answer(201, "", r#"{"id": 3}"#), "could not read its answer").await;
    check(answer(302, "location: http://127.0.0.1:1/\r\n", ""), "302").await;
    let head = b"HTTP/1.1 200 X\r\nconnection: close\r\n\r\n".to_vec();
    let endless = Act::Flood(head, vec![b' '; 1 << 16]);
    check(endless, "more than 8388608 bytes").await;
}

#[tokio::test]
async fn what_is_no_http_is_no_answer() {
    let server = Server::start([Act::Send(b"SSH-2.0-OpenSSH_9\r\n".to_vec())]).await;
    let client = Client::new(impatient(vec![server.url.clone()])).unwrap();
    let error = client.stats(Consistency::Linearizable).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Unreachable { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_endless_refusal_is_cut() {
    let head = b"HTTP/1.1 400 X\r\nconnection: close\r\n\r\n".to_vec();
    let server = Server::start([Act::Flood(head, vec![b'x'; 1 << 16])]).await;
    let error = client(&[&server]).submit(&spec()).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused { .. }), "{error:?}");
    assert!(error.to_string().len() < 5_000);
}

#[tokio::test]
async fn the_token_goes_to_servers_and_into_no_text() {
    let server = Server::start([answer(401, "", "{}")]).await;
    let options = Options {
        token: Some(Token::new("mvm-s3cret").unwrap()),
        ..Options::new(vec![server.url.clone()])
    };
    let client = Client::new(options).unwrap();
    let error = client.submit(&spec()).await.unwrap_err();
    assert_eq!(
        server.seen()[0].header("authorization"),
        Some("Bearer mvm-s3cret")
    );
    let shown = format!("{client:?} {error:?} {error}");
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[tokio::test]
async fn all_pages_are_one_stream() {
    let job = |id: &str| {
        format!(
            r#"{{"id": "{id}", "kind": "k", "payload": 1, "state": "dead", "created_at_ms": 1, "updated_at_ms": 2,
            "submitted_on": 1, "claimed_by": null, "attempts": 2, "losses": 1, "from_the_future": true}}"#
        )
    };
    let page = |jobs: &[&str], next: &str| {
        let jobs: Vec<_> = jobs.iter().map(|id| job(id)).collect();
        answer(
            200,
            "",
            &format!(r#"{{"jobs": [{}], "next": {next}}}"#, jobs.join(",")),
        )
    };
    let pages = [page(&["a", "b"], "7"), page(&[], "9"), page(&["c"], "null")];
    let server = Server::start(pages).await;
    let filter = Filter {
        state: Some(JobState::Dead),
        label: Some("a&b".into()),
        ..Filter::default()
    };
    let client = client(&[&server]);
    let jobs: Vec<_> =
        futures_util::TryStreamExt::try_collect::<Vec<_>>(client.all_jobs(JobsQuery {
            limit: 2,
            ..JobsQuery::new(filter)
        }))
        .await
        .unwrap();
    let ids: Vec<_> = jobs.iter().map(|job| (&*job.id.0, job.losses)).collect();
    assert_eq!(ids, [("a", 1), ("b", 1), ("c", 1)]);
    assert_eq!(
        server.lines(),
        [
            "GET /api/v1/jobs?limit=2&state=dead&label=a%26b",
            "GET /api/v1/jobs?limit=2&after=7&state=dead&label=a%26b",
            "GET /api/v1/jobs?limit=2&after=9&state=dead&label=a%26b",
        ]
    );
}

#[tokio::test]
async fn workers_say_what_nodes_understand() {
    let claims = r#"{"claims": [{"id": "J1", "token": 3, "submitted_on": 2, "kind": "k", "payload": null}]}"#;
    let moved = r#"{"id": "J1", "state": "completed"}"#;
    let server = Server::start([
        answer(200, "", claims),
        answer(200, "", r#"{"renewals": 4, "cancel": true}"#),
        answer(200, "", moved),
    ])
    .await;
    let client = client(&[&server]);
    let offer = Offer {
        worker: "w".into(),
        slots: 2,
        labels: BTreeSet::from(["linux".into()]),
        kinds: BTreeSet::new(),
    };
    let claimed = client.claim(&offer).await.unwrap();
    assert_eq!(
        (claimed[0].token, &*claimed[0].spec.kind),
        (FencingToken(3), "k")
    );
    let (job, token) = (&claimed[0].id, claimed[0].token);
    assert!(client.renew(job, token).await.unwrap().cancel);
    let report = Report::Succeeded { result: json!(1) };
    let ended = client.finish(job, token, &report).await.unwrap();
    assert_eq!(ended.state, JobState::Completed);
    let bodies: Vec<_> = server.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(
        bodies,
        [
            r#"{"worker":"w","slots":2,"labels":["linux"],"kinds":[]}"#,
            r#"{"token":3}"#,
            r#"{"report":{"report":"succeeded","result":1},"token":3}"#,
        ]
    );
}
