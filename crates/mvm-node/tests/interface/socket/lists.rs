//! Lists: pages, filters, and what is asked in vain.

use serde_json::{Value, json};

use super::{Server, check_problem, post};
use crate::support::get;

#[test]
fn pages_of_the_list_join_up() {
    let server = Server::start();
    let ids: Vec<Value> = (0..5).map(|_| server.submit()["id"].clone()).collect();
    let mut listed = Vec::new();
    let mut path = "/queue/list?limit=2".to_owned();
    loop {
        let page = get(server.address, &path).unwrap().json();
        listed.extend(
            page["jobs"]
                .as_array()
                .unwrap()
                .iter()
                .map(|job| job["id"].clone()),
        );
        match page["next"].as_i64() {
            Some(next) => path = format!("/queue/list?limit=2&after={next}"),
            None => break,
        }
    }
    assert_eq!(listed, ids);
    server.claim("w");
    let claimed = get(
        server.address,
        "/queue/list?state=claimed&consistency=local",
    )
    .unwrap()
    .json();
    assert_eq!(
        (&claimed["jobs"][0]["id"], &claimed["consistency"]),
        (&ids[0], &json!("local"))
    );
}

#[test]
fn lists_are_filtered_and_jobs_wait_for_others() {
    let server = Server::start();
    let first = post(&server, "/jobs", &json!({"kind": "a", "payload": null})).json();
    let then =
        json!({"kind": "b", "payload": null, "labels": ["x"], "dependencies": [first["id"]]});
    let second = post(&server, "/jobs", &then).json();
    assert_eq!(second["waits_for"], "dependencies");
    let list = |query: &str| -> Vec<Value> {
        let path = format!("/api/v1/jobs?{query}");
        let page = get(server.address, &path).unwrap().json();
        page["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|job| job["id"].clone())
            .collect()
    };
    let (first, second) = (first["id"].clone(), second["id"].clone());
    assert_eq!(list("order=newest_first"), [second.clone(), first.clone()]);
    assert_eq!(list("label=x"), [second]);
    assert_eq!(list("state=claimed"), Vec::<Value>::new());
    assert_eq!(list("submitted_on=7").len(), 2);
    assert_eq!(list("submitted_on=8").len(), 0);
    for (spec, detail) in [
        (
            json!({"kind": "a", "payload": null, "dependencies": ["nope"]}),
            "no job nope to depend on",
        ),
        (
            json!({"kind": "a", "payload": null, "attempts_max": 0}),
            "attempts_max is 0",
        ),
        (
            json!({"kind": "a", "payload": null, "labels": ["a b"]}),
            "a label",
        ),
        (
            json!({"kind": "a", "payload": null, "prio": 1}),
            "unknown field `prio`",
        ),
    ] {
        let answer = post(&server, "/jobs", &spec);
        let status = if detail.contains("depend") { 422 } else { 400 };
        check_problem(&answer, status, detail);
    }
}

#[test]
fn nothing_there_is_of_a_job_is_not_no_job() {
    let server = Server::start();
    let job = server.submit()["id"].as_str().unwrap().to_owned();
    for (what, list) in [("attempts", "attempts"), ("log?attempt=1", "chunks")] {
        let read = |job: &str| get(server.address, &format!("/api/v1/jobs/{job}/{what}")).unwrap();
        let answer = read(&job);
        assert_eq!(
            (answer.status, &answer.json()[list]),
            (200, &json!([])),
            "{what}"
        );
        check_problem(&read("nope"), 404, "there is no job nope");
    }
}
