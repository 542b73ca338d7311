//! A job and its worker: what it can do, and what is a conflict.

use serde_json::{Value, json};

use super::{Server, check_problem, post};
use crate::support::get;

#[test]
fn a_job_goes_through_its_life() {
    let server = Server::start();
    assert_eq!(server.claim("w").status, 204);
    let first = server.submit();
    server.submit();
    let claim = server.claim("w").json();
    assert_eq!(claim["job"]["id"], first["id"], "the oldest comes first");
    let path = format!("/queue/status/{}", first["id"].as_str().unwrap());
    let held = &get(server.address, &path).unwrap().json()["job"];
    assert_eq!(
        (&held["state"], &held["claimed_by"], &held["attempts"]),
        (&json!("claimed"), &json!("w"), &claim["token"])
    );
    let (id, token) = (&first["id"], claim["token"].clone());
    assert_eq!(server.set(id, "in_progress", token.clone()).status, 200);
    assert_eq!(
        server.set(id, "completed", token).json()["state"],
        "completed"
    );
    let stats = get(server.address, "/queue/stats").unwrap().json();
    assert_eq!(
        (&stats["counts"]["completed"], &stats["counts"]["pending"]),
        (&json!(1), &json!(1))
    );
}

#[test]
fn what_a_job_cannot_do_is_a_conflict_with_cause_and_hint() {
    let server = Server::start();
    let job = server.submit();
    let id = &job["id"];
    check_problem(
        &server.set(&json!("nope"), "failed", json!(1)),
        404,
        "there is no job nope",
    );
    check_problem(
        &get(server.address, "/queue/status/nope").unwrap(),
        404,
        "there is no job nope",
    );
    let answer = server.set(id, "completed", json!(1));
    check_problem(&answer, 409, "token 1 is not the one of the latest claim");
    check_problem(
        &server.set(id, "claimed", Value::Null),
        400,
        "nobody moves a job to claimed",
    );
    assert_eq!(server.claim("w").status, 200);
    check_problem(
        &server.set(id, "in_progress", Value::Null),
        409,
        "carries no token",
    );
    check_problem(
        &server.set(id, "in_progress", json!(2)),
        409,
        "token 2 is not the one",
    );
}

#[test]
fn a_worker_takes_what_it_can_do_and_holds_it_by_its_token() {
    let server = Server::start();
    let submit = |spec: Value| post(&server, "/jobs", &spec).json()["id"].clone();
    let low = submit(json!({"kind": "build", "payload": 1}));
    let high = submit(json!({"kind": "build", "payload": 2, "priority": 5}));
    let gpu = submit(json!({"kind": "build", "payload": 3, "labels": ["gpu"], "priority": 9}));
    let offer = json!({"worker": "w", "slots": 2, "kinds": ["build"]});
    let claims = post(&server, "/claims", &offer).json()["claims"].clone();
    let ids: Vec<&Value> = claims
        .as_array()
        .unwrap()
        .iter()
        .map(|claim| &claim["id"])
        .collect();
    assert_eq!(ids, [&high, &low], "by priority, and without the label");
    let offer = json!({"worker": "g", "labels": ["gpu", "big"]});
    let claims = post(&server, "/claims", &offer).json()["claims"].clone();
    assert_eq!((&claims[0]["id"], &claims[0]["payload"]), (&gpu, &json!(3)));

    let job = format!("/jobs/{}", low.as_str().unwrap());
    let held = json!({"token": 1});
    assert_eq!(
        post(&server, &format!("{job}/start"), &held).json()["state"],
        "in_progress"
    );
    let renewed = post(&server, &format!("{job}/renew"), &held).json();
    assert_eq!(
        (&renewed["renewals"], &renewed["cancel"]),
        (&json!(1), &json!(false))
    );
    check_problem(
        &post(&server, &format!("{job}/renew"), &json!({"token": 2})),
        409,
        "token 2 is not the one of the latest claim",
    );
    let cancelled = post(&server, &format!("{job}/cancel"), &json!({}));
    assert_eq!(
        cancelled.json()["state"],
        "in_progress",
        "its worker is to stop"
    );
    assert_eq!(
        post(&server, &format!("{job}/renew"), &held).json()["cancel"],
        true
    );
    let report = json!({"token": 1, "report": {"report": "cancelled"}});
    assert_eq!(
        post(&server, &format!("{job}/finish"), &report).json()["state"],
        "cancelled"
    );
    check_problem(
        &post(&server, &format!("{job}/finish"), &report),
        409,
        "the lease has ended: the job is cancelled",
    );
    let attempts = get(server.address, &format!("/api/v1{job}/attempts"))
        .unwrap()
        .json();
    assert_eq!(attempts["attempts"][0]["outcome"], "cancelled");
}

#[test]
fn a_failed_job_can_be_tried_again_by_hand() {
    let server = Server::start();
    let id =
        post(&server, "/jobs", &json!({"kind": "build", "payload": null})).json()["id"].clone();
    let job = format!("/jobs/{}", id.as_str().unwrap());
    check_problem(
        &post(&server, &format!("{job}/retry"), &json!({})),
        409,
        "pending cannot become",
    );
    server.claim("w");
    let failed =
        json!({"token": 1, "report": {"report": "failed", "error": "no disk", "permanent": true}});
    assert_eq!(
        post(&server, &format!("{job}/finish"), &failed).json()["state"],
        "failed"
    );
    let read = get(server.address, &format!("/api/v1{job}"))
        .unwrap()
        .json();
    assert_eq!(read["job"]["error"], "no disk");
    assert_eq!(
        post(&server, &format!("{job}/retry"), &json!({})).json()["state"],
        "pending"
    );
    assert_eq!(server.claim("w").json()["token"], 2);
}
