//! A backup is made, fetched, and a new cluster started from it.
//!
//! What a green run does not prove: that a backup of a large queue is quick, or that its disk keeps it.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, wait},
    step,
    support::{get, new_job, post_json},
};

#[test]
fn a_new_cluster_goes_on_where_the_backup_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);

    step("a folder that takes no files is told, with whose it is and what to do");
    let mut first = Cluster::formed(1);
    a_backup_that_fails(&first);

    step("one node with jobs in all states is backed up");
    for key in [
        "completed",
        "in_progress",
        "claimed",
        "cancelled",
        "pending",
    ] {
        let answer = new_job(first.address(1), &format!("http://x/{key}"), key).unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let (completed, token) = claim(&first, 1);
    change(&first, &completed, "start", &json!({ "token": token }));
    let report = json!({ "token": token, "report": { "report": "succeeded", "result": {} } });
    change(&first, &completed, "finish", &report);
    let (started, started_token) = claim(&first, 1);
    change(
        &first,
        &started,
        "start",
        &json!({ "token": started_token }),
    );
    let (claimed, claimed_token) = claim(&first, 1);
    let cancelled = first.ids(1, "linearizable").unwrap()[3].clone();
    change(&first, &cancelled, "cancel", &json!({}));

    let made = post_json(first.address(1), "/api/v1/backups", &json!({})).unwrap();
    assert_eq!(made.status, 201, "{}", made.text());
    let name = made.json()["name"].as_str().unwrap().to_owned();
    let again = post_json(first.address(1), "/api/v1/backups", &json!({})).unwrap();
    assert_eq!((again.status, &again.json()["name"]), (200, &json!(name)));
    let listed = get(first.address(1), "/api/v1/backups").unwrap().json();
    assert_eq!(listed["backups"], json!([made.json()]));
    let fetched = get(first.address(1), &format!("/api/v1/backups/{name}")).unwrap();
    assert_eq!(fetched.status, 200);
    assert_eq!(
        fetched.body.len() as u64,
        made.json()["bytes"].as_u64().unwrap()
    );
    for other in ["backup_node_1_1.sqlite", "..%2f..%2fnode.json", "node.json"] {
        let answer = get(first.address(1), &format!("/api/v1/backups/{other}")).unwrap();
        assert_eq!(answer.status, 404, "{other}");
    }
    fs::write(path("backup"), &fetched.body).unwrap();
    let expected = jobs(&first, 1);
    new_job(first.address(1), "http://x/late", "late").unwrap();

    step("what is not whole, not empty or not meant is refused, and nothing is touched");
    first.kill(1);
    let before = fs::read(first.data_dir(1).join("node.json")).unwrap();
    first.start_restored(1, &path("backup"));
    let said = first.wait_refused(1);
    assert!(said.contains("there is data in it"), "{said}");
    first.start_with(1, &[("HQL_DANGER_RAFT_STATE_RESET", "true")]);
    let said = first.wait_refused(1);
    assert!(said.contains("HQL_DANGER_RAFT_STATE_RESET"), "{said}");
    assert_eq!(
        fs::read(first.data_dir(1).join("node.json")).unwrap(),
        before
    );
    let mut second = Cluster::new(3);
    let half = &fetched.body[..fetched.body.len() / 2];
    fs::write(path("half"), half).unwrap();
    for bad in ["half", "missing"] {
        second.start_restored(1, &path(bad));
        let said = second.wait_refused(1);
        assert!(said.contains("could not restore from"), "{said}");
        assert!(!second.data_dir(1).exists(), "{bad}");
    }
    second.start_restored(2, &path("backup"));
    let said = second.wait_refused(2);
    assert!(said.contains("a backup is restored on node 1"), "{said}");

    step("three nodes start from it: all have the same jobs");
    start_restored(&mut second, &path("backup"));
    for node in 1..=3 {
        assert_eq!(jobs(&second, node), expected, "node {node}");
        let urls = second.urls(node);
        assert!(!urls.contains(&"http://x/late".to_owned()), "{urls:?}");
    }

    step("its leases end, its tokens grow on, and old ones count no more");
    let holders = [(&started, started_token), (&claimed, claimed_token)];
    let mut left = holders.to_vec();
    wait("the jobs that were held are claimed anew", || {
        let answer = try_claim(&second, 2)?;
        if let Some(place) = left.iter().position(|(job, _)| **job == answer.0) {
            let (_, old) = left.remove(place);
            assert!(answer.1 > old, "{answer:?} follows {old}");
        }
        left.is_empty()
            .then_some(())
            .ok_or_else(|| format!("{left:?}"))
    });
    for (job, old) in holders {
        let path = format!("/api/v1/jobs/{job}/renew");
        let answer = post_json(second.address(3), &path, &json!({ "token": old })).unwrap();
        assert_eq!(answer.status, 409, "{}", answer.text());
    }
    let answer = new_job(second.address(3), "http://x/new", "new").unwrap();
    assert_eq!(answer.status, 201, "{answer:?}");
}

/// The kernel's settings are a folder that can be read, and where nobody makes files, whoever runs the test.
fn a_backup_that_fails(cluster: &Cluster) {
    let folder = cluster.data_dir(1).join("state_machine/backups");
    let aside = folder.with_extension("aside");
    fs::rename(&folder, &aside).unwrap();
    for (place, status, words) in [
        (
            Some("/proc/sys/fs"),
            507,
            "node 1, which leads, could not write it: ",
        ),
        (None, 507, "No such file"),
    ] {
        if let Some(place) = place {
            std::os::unix::fs::symlink(place, &folder).unwrap();
        }
        let failed = post_json(cluster.address(1), "/api/v1/backups", &json!({})).unwrap();
        let told = failed.json();
        assert_eq!(failed.status, status, "{told}");
        assert!(told["detail"].as_str().unwrap().contains(words), "{told}");
        assert!(
            told["hint"]
                .as_str()
                .unwrap()
                .contains("state_machine/backups"),
            "{told}"
        );
        if place.is_some() {
            fs::remove_file(&folder).unwrap();
        }
    }
    let unread = get(cluster.address(1), "/api/v1/backups").unwrap();
    assert_eq!(unread.status, 503, "{}", unread.text());
    fs::rename(&aside, &folder).unwrap();
}

fn start_restored(cluster: &mut Cluster, backup: &Path) {
    cluster.start_restored(1, backup);
    cluster.start(2);
    cluster.start(3);
    (1..=3).for_each(|id| cluster.wait_ready(id));
}

/// All jobs with what a backup must keep; leases may end meanwhile.
fn jobs(cluster: &Cluster, node: usize) -> Vec<(Value, Value, bool)> {
    let answer = get(cluster.address(node), "/api/v1/jobs?limit=500").unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let jobs = answer.json()["jobs"].clone();
    let kept = |job: &Value| {
        let ended = ["completed", "cancelled"].contains(&job["state"].as_str().unwrap());
        (job["id"].clone(), job["payload"].clone(), ended)
    };
    jobs.as_array().unwrap().iter().map(kept).collect()
}

#[track_caller]
fn claim(cluster: &Cluster, node: usize) -> (String, i64) {
    try_claim(cluster, node).unwrap()
}

fn try_claim(cluster: &Cluster, node: usize) -> Result<(String, i64), String> {
    let offer = json!({ "worker": "w", "slots": 1 });
    let answer = post_json(cluster.address(node), "/api/v1/claims", &offer)
        .map_err(|error| error.to_string())?;
    if answer.status != 200 {
        return Err(answer.text());
    }
    let claim = answer.json()["claims"][0].clone();
    match (claim["id"].as_str(), claim["token"].as_i64()) {
        (Some(id), Some(token)) => Ok((id.to_owned(), token)),
        _ => Err("nothing to claim".to_owned()),
    }
}

#[track_caller]
fn change(cluster: &Cluster, job: &str, what: &str, body: &Value) {
    let path = format!("/api/v1/jobs/{job}/{what}");
    let answer = post_json(cluster.address(1), &path, body).unwrap();
    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
}
