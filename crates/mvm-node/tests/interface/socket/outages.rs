//! Repeated requests, and a store that cannot answer.

use mvm_node::{consensus::Unavailable, store::Outage};
use serde_json::{Value, json};

use super::{Server, check_problem};
use crate::support::{get, new_job};

#[test]
fn the_same_key_has_the_same_answer_and_one_effect() {
    let server = Server::start();
    let first = new_job(server.address, "http://x/", "key-1").unwrap();
    let second = new_job(server.address, "http://x/", "key-1").unwrap();
    assert_eq!((first.status, first.json()), (second.status, second.json()));
    assert_eq!(second.header("x-mvm-request-id"), Some("key-1"));
    let other = new_job(server.address, "http://y/", "key-1").unwrap();
    check_problem(&other, 422, "used before for a different request");
    assert_eq!(server.total(), 1);
}

#[test]
fn without_a_quorum_nothing_is_answered_with_success_but_local_reads() {
    let server = Server::start();
    let job = server.submit();
    server
        .store
        .set_outage(Some(Outage::Unavailable(Unavailable::NoQuorum {
            since_ms: 900,
        })));
    for answer in [
        new_job(server.address, "http://x/", "k").unwrap(),
        server.claim("w"),
        server.set(&job["id"], "cancelled", Value::Null),
        get(server.address, "/queue/list").unwrap(),
        get(server.address, "/queue/stats").unwrap(),
        get(
            server.address,
            &format!("/queue/status/{}", job["id"].as_str().unwrap()),
        )
        .unwrap(),
        get(server.address, "/ready").unwrap(),
    ] {
        check_problem(
            &answer,
            503,
            "has not heard from a majority of the nodes for 900 ms",
        );
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert_eq!(get(server.address, "/health").unwrap().status, 200);
    assert_eq!(
        get(server.address, "/queue/list?consistency=local")
            .unwrap()
            .json()["jobs"][0]["id"],
        job["id"]
    );
    assert_eq!(
        get(server.address, "/cluster").unwrap().json()["quorum"],
        false
    );
    let page = get(server.address, "/").unwrap();
    assert!(page.status == 200 && page.text().contains("has not heard from a majority"));
}

#[test]
fn an_unknown_outcome_names_the_request_and_can_be_repeated() {
    let server = Server::start();
    server.store.set_outage(Some(Outage::AnswersLost));
    let answer = new_job(server.address, "http://x/", "k").unwrap();
    check_problem(&answer, 504, "no answer came in time");
    assert_eq!(
        (
            &answer.json()["request_id"],
            answer.header("x-mvm-request-id")
        ),
        (&json!("k"), Some("k"))
    );
    server.store.set_outage(None);
    assert_eq!(
        new_job(server.address, "http://x/", "k").unwrap().status,
        201
    );
    assert_eq!(server.total(), 1);
}
