//! Workflows outlive their nodes.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, wait},
    counting::Counting,
    step,
    support::{exchange, get, post_json, request},
};

#[test]
fn workflows_go_on_elsewhere_when_their_node_dies() {
    let server = Counting::start();
    let mut cluster = Cluster::formed(3);
    deploy(&cluster, 1, "compat");

    step("twelve workflows of node 1 ask for a, b and c; b is not answered");
    server.hold(Some("/b"));
    let workflows: Vec<(String, String, bool)> = (0..12)
        .map(|number| {
            let (path, idempotent) = (format!("/w{number}"), number % 2 == 0);
            let url = format!("http://{}{path}", server.address);
            let input = json!({ "url": url, "idempotent": idempotent });
            (start(&cluster, 1, "crash", &input), path, idempotent)
        })
        .collect();
    let asleep = start(&cluster, 1, "sleeps", &json!({ "ms": 6_000 }));
    for (_, path, _) in &workflows {
        until(&server, &format!("{path}/b"), 1);
    }

    step("node 1 dies");
    // The others take what they can get as well.
    let dies: Vec<bool> = workflows
        .iter()
        .map(|(id, ..)| owner(&cluster, 2, id) == 1)
        .collect();
    let interrupted = |idempotent: bool| {
        let both = workflows.iter().zip(&dies);
        both.filter(|((.., kind), dies)| *kind == idempotent && **dies)
            .count()
    };
    assert!(interrupted(true) > 0 && interrupted(false) > 0, "{dies:?}");
    cluster.kill(1);
    server.hold(None);
    for ((id, path, idempotent), dies) in workflows.iter().zip(dies) {
        until_state(&cluster, 2, id, "completed");
        let count = |end: &str| server.count(&format!("{path}{end}"));
        assert_eq!((count("/a"), count("/c")), (1, 1), "{path}");
        let response = response(&cluster, 3, id);
        if *idempotent || !dies {
            assert!(count("/b") > usize::from(dies), "{path}");
            assert_eq!(response["b"], "200", "{path}");
        } else {
            assert_eq!(count("/b"), 1, "{path}");
            assert_eq!(response["b"], "RequestInterrupted", "{path}");
        }
    }

    step("one that sleeps wakes up without it, in time and no earlier");
    until_state(&cluster, 2, &asleep, "completed");
    let slept = response(&cluster, 2, &asleep)["elapsed_ms"]
        .as_u64()
        .unwrap();
    assert!(slept >= 6_000, "{slept}");

    step("a message sent to one node reaches a workflow of another");
    let waits = start(&cluster, 2, "waits", &json!({ "timeout_ms": 30_000 }));
    until_state(&cluster, 3, &waits, "waiting");
    for weight in [1, 2] {
        let data = json!({ "weight": weight }).to_string();
        let message = json!({ "type": "pear", "data": data });
        let path = format!("/api/workflow/send-msg/{waits}");
        let sent = post_json(cluster.workflows(3), &path, &message).unwrap();
        assert_eq!(sent.json(), "ok");
    }
    let fruit = response(&cluster, 3, &waits);
    assert_eq!(
        (&fruit["first"]["weight"], &fruit["second"]["weight"]),
        (&json!(1), &json!(2))
    );

    step("a node that drains takes no workflows, and passes on what it is asked");
    let drain = post_json(
        cluster.address(2),
        "/api/v1/node/drain",
        &json!({ "draining": true }),
    );
    assert_eq!(drain.unwrap().status, 200);
    let elsewhere = start(&cluster, 2, "echo", &json!(1));
    until_state(&cluster, 2, &elsewhere, "completed");
    assert_eq!(owner(&cluster, 2, &elsewhere), 3);
}

#[test]
fn what_an_old_owner_does_late_is_refused() {
    let server = Counting::start();
    let mut cluster = Cluster::formed(3);
    deploy(&cluster, 1, "compat");

    step("the owner is frozen while it asks for c");
    server.hold(Some("/c"));
    let url = format!("http://{}", server.address);
    let id = start(&cluster, 2, "crash", &json!({ "url": url }));
    until(&server, "/c", 1);
    let owner = usize::try_from(owner(&cluster, 1, &id)).unwrap();
    let other = if owner == 1 { 2 } else { 1 };
    cluster.pause(owner);

    step("another one goes on, and does not ask again");
    until_state(&cluster, other, &id, "completed");
    let told = response(&cluster, other, &id);
    assert_eq!(told["c"], "RequestInterrupted");
    let journal = get(
        cluster.workflows(other),
        &format!("/api/v1/workflows/{id}/journal"),
    )
    .unwrap();

    step("the old owner has its answer, and nothing comes of it");
    server.hold(None);
    cluster.resume(owner);
    cluster.wait_ready(owner);
    wait("the old owner lets it go", || {
        let metrics = get(cluster.workflows(owner), "/metrics").unwrap().text();
        let lost = metrics
            .lines()
            .find(|line| line.contains("runs_ended") && line.contains("lost"));
        match lost {
            Some(line) if line.ends_with(" 1") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let after = get(
        cluster.workflows(other),
        &format!("/api/v1/workflows/{id}/journal"),
    )
    .unwrap();
    assert_eq!(after.json(), journal.json());
    let counts = ["/a", "/b", "/c"].map(|path| server.count(path));
    assert_eq!(counts, [1, 1, 1]);
}

#[test]
fn a_new_job_crawls_a_site() {
    let server = Counting::start();
    let mut cluster = Cluster::formed(1);
    let url = format!("http://{}/", server.address);
    let body = format!(
        "url={}&kind=flow",
        url.replace(':', "%3A").replace('/', "%2F")
    );
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let new_job = request("POST", "/new-job", &form, body.as_bytes());

    step("without the module nothing is submitted");
    let answer = exchange(cluster.address(1), &new_job).unwrap();
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(
        answer.text().contains("there is no module \\\"crawler\\\""),
        "{}",
        answer.text()
    );

    step("with it the site is crawled");
    deploy(&cluster, 1, "crawler");
    let answer = exchange(cluster.address(1), &new_job).unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    until_state(&cluster, 1, &id, "completed");
    let crawled = response(&cluster, 1, &id);
    assert_eq!(crawled["pages"][0]["url"], url, "{crawled}");
    assert_eq!(crawled["pages"][0]["status"], 200, "{crawled}");
    assert_eq!(server.count("/"), 1);

    step("its page shows what it did, also after a restart");
    cluster.kill(1);
    cluster.start(1);
    cluster.wait_ready(1);
    let page = get(cluster.address(1), &format!("/workflows/{id}")).unwrap();
    assert_eq!(page.status, 200);
    for shown in ["crawl of crawler 1.0.0", "completed", &format!("GET {url}")] {
        assert!(page.text().contains(shown), "{shown} in {}", page.text());
    }
    let nothing = get(cluster.address(1), "/workflows/wkf_0000000000000").unwrap();
    assert_eq!(nothing.status, 404);
}

fn deploy(cluster: &Cluster, node: usize, module: &str) {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests/built");
    let built = built.join(format!("{module}.wasm"));
    let boundary = "a-boundary-that-no-module-has";
    let mut body =
        format!("--{boundary}\r\nContent-Disposition: form-data; name=\"module\"\r\n\r\n")
            .into_bytes();
    body.extend(std::fs::read(built).unwrap());
    body.extend(format!("\r\n--{boundary}--\r\n").bytes());
    let kind = format!("multipart/form-data; boundary={boundary}");
    let deploy = request(
        "POST",
        "/api/module/deploy",
        &[("content-type", &kind)],
        &body,
    );
    let answer = exchange(cluster.workflows(node), &deploy).unwrap().json();
    assert_eq!(answer["ok"]["name"], module, "{answer}");
}

fn start(cluster: &Cluster, node: usize, workflow: &str, input: &Value) -> String {
    let start = json!({ "module": "compat", "workflow": workflow, "input": input });
    let answer = post_json(cluster.workflows(node), "/api/v1/workflows", &start).unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// The node that has a workflow, or had it last.
fn owner(cluster: &Cluster, node: usize, id: &str) -> u64 {
    let job = get(cluster.address(node), &format!("/api/v1/jobs/{id}"))
        .unwrap()
        .json();
    job["job"]["claimed_on"]
        .as_u64()
        .unwrap_or_else(|| panic!("{job}"))
}

#[track_caller]
fn until(server: &Counting, path: &str, count: usize) {
    wait("the server is asked", || match server.count(path) {
        seen if seen >= count => Ok(()),
        seen => Err(format!("{path}: {seen}")),
    });
}

#[track_caller]
fn until_state(cluster: &Cluster, node: usize, id: &str, state: &str) {
    wait("the workflow comes so far", || {
        let shown = get(cluster.workflows(node), &format!("/api/v1/workflows/{id}"));
        let shown = shown.map_err(|error| error.to_string())?.json();
        if shown["state"] == state {
            Ok(())
        } else {
            Err(shown.to_string())
        }
    });
}

#[track_caller]
fn response(cluster: &Cluster, node: usize, id: &str) -> Value {
    let answer = get(
        cluster.workflows(node),
        &format!("/api/v1/workflows/{id}/response"),
    )
    .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["response"].clone()
}
