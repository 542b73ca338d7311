//! `mvm-ci cluster`: what its nodes are told to do, and backups.

use axum::{Json, Router, routing::get};
use expect_test::expect;
use mvm_node::store::Outage;
use serde_json::json;

use crate::node::{Node, said};

#[test]
fn a_node_is_drained_and_takes_jobs_again() {
    let node = Node::start();
    node.check(
        &["cluster", "drain", "1", "--wait"],
        &[],
        expect![[r#"
            node 1 takes no more jobs, and runs 0 of 0 at once
            exit 0
        "#]],
    );
    let worker = node.json(&["cluster", "resume", "1", "--json"]);
    assert_eq!(
        (&worker["node"], &worker["draining"]),
        (&1.into(), &false.into())
    );
    node.check(
        &["cluster", "drain", "7"],
        &[],
        expect![[r#"
            ! mvm-ci: the cluster has no node 7, but [1]
            exit 2
        "#]],
    );
}

/// The cluster says where node 2 is, and another one is there.
#[test]
fn another_node_is_not_drained_instead() {
    let other = Node::start();
    let address = other.url.replace("http://", "");
    let cluster = json!({
        "node": 1, "leader": 1, "term": 1, "last_log_index": 1, "applied_index": 1, "quorum": true, "reason": null,
        "members": [{ "id": 2, "http": address, "voter": true }],
    });
    let node = Node::with(Router::new().route("/cluster", get(async || Json(cluster))));
    let text = node.said(&["cluster", "drain", "2"]);
    assert!(
        text.contains("node 1 answers there, not node 2") && text.ends_with("exit 3\n"),
        "{text}"
    );
}

#[test]
fn backups_are_made_listed_and_fetched() {
    let node = Node::start();
    node.check(
        &["cluster", "backup", "fetch"],
        &[],
        expect![[r#"
            ! mvm-ci: node 1 has no backup; `mvm-ci cluster backup now` makes one
            exit 2
        "#]],
    );
    node.check(
        &["cluster", "backup", "now"],
        &[],
        expect![[r#"
            backup_node_1_1764028800.sqlite
            exit 0
        "#]],
    );
    node.check(
        &["cluster", "backup", "list"],
        &[],
        expect![[r#"
            NAME                             CREATED               BYTES
            backup_node_1_1764028800.sqlite  TIME  16
            exit 0
        "#]],
    );
    let listed = node.json(&["cluster", "backup", "list", "--json"]);
    assert_eq!(
        (&listed["created_at_ms"], &listed["bytes"]),
        (&1_764_028_800_000_i64.into(), &16.into())
    );

    let folder = tempfile::tempdir().unwrap();
    let fetch = |arguments: &[&str]| {
        let mut command = node.command(&[&["cluster", "backup", "fetch"], arguments].concat());
        command.current_dir(folder.path());
        said(command)
    };
    assert_eq!(fetch(&[]), "backup_node_1_1764028800.sqlite\nexit 0\n");
    let fetched = std::fs::read(folder.path().join("backup_node_1_1764028800.sqlite"));
    assert_eq!(fetched.unwrap(), b"SQLite format 3\0");
    let again = fetch(&[]);
    assert!(
        again.contains("it exists") && again.ends_with("exit 2\n"),
        "{again}"
    );
    let told = fetch(&["backup_node_1_1764028800.sqlite", "-o", "copy", "--json"]);
    assert_eq!(
        told,
        "{\"bytes\":16,\"file\":\"copy\",\"name\":\"backup_node_1_1764028800.sqlite\"}\nexit 0\n"
    );
    let unknown = fetch(&["backup_node_1_1.sqlite"]);
    assert!(
        unknown.contains("(404)") && unknown.ends_with("exit 5\n"),
        "{unknown}"
    );
    let elsewhere = fetch(&["../backup"]);
    assert!(
        elsewhere.contains("--output") && elsewhere.ends_with("exit 2\n"),
        "{elsewhere}"
    );
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 2, "nothing is left of what failed");

    node.store.set_outage(Some(Outage::DiskFull));
    node.check(
        &["cluster", "backup", "now"],
        &[],
        expect![[r#"
            ! mvm-ci: NODE refused: the backup could not be written (507): node 1, which leads, could not write it: database or disk is full
            ! hint: see that its data directory has room for the database twice and that state_machine/backups in it can be written, then ask again; the queue goes on, and older backups are as they were
            exit 5
        "#]],
    );
}
