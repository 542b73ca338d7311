//! The largest jobs there may be, from many clients at once: batches as large as they get go through a live log.

use serde_json::json;

use crate::{
    cluster::{Cluster, wait},
    exposition::Exposition,
    support::{get, post_json},
};

/// More than one batch has room for, all under way at once.
const CLIENTS: usize = 96;
const JOBS_EACH: usize = 2;
/// A body has 64 KiB.
const PAYLOAD_BYTES: usize = 65_400;
/// A batch of jobs of that size has 15, if enough are waiting.
const BATCH_MIN: &str = "8";

/// Each is acknowledged or refused, the cluster goes on, and has what it acknowledged.
pub(super) fn jobs(cluster: &Cluster) {
    let before = total(cluster);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let client = |number: usize| {
            move || {
                let address = cluster.address(1 + number % 3);
                let job = json!({ "kind": "large", "payload": "x".repeat(PAYLOAD_BYTES) });
                let submit = || post_json(address, "/api/v1/jobs", &job).unwrap().status;
                [(); JOBS_EACH].map(|()| submit())
            }
        };
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| scope.spawn(client(number)))
            .collect();
        let told = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap());
        told.collect()
    });
    let count = |status: u16| statuses.iter().filter(|told| **told == status).count();
    let (acknowledged, unknown) = (count(201), count(504));
    eprintln!(
        "    {acknowledged} acknowledged, {} refused, {unknown} unknown",
        count(503)
    );
    assert_eq!(
        acknowledged + unknown + count(503),
        CLIENTS * JOBS_EACH,
        "{statuses:?}"
    );
    (1..=3).for_each(|node| cluster.wait_ready(node));
    let possible = before + acknowledged..=before + acknowledged + unknown;
    let after = total(cluster);
    assert!(possible.contains(&after), "{after} is not in {possible:?}");

    let leader = cluster.leader();
    let metrics = get(cluster.address(leader), "/metrics").unwrap().text();
    let metrics = Exposition::prometheus(&metrics).unwrap();
    let batches = "mvm_ci_raft_batch_commands";
    let small = metrics.sum(&format!("{batches}_bucket"), &[("le", BATCH_MIN)]);
    let all = metrics.sum(&format!("{batches}_count"), &[]);
    assert!(small < all, "no batch had more than {BATCH_MIN} commands");
}

fn total(cluster: &Cluster) -> usize {
    wait("the jobs are counted", || {
        let answer = get(cluster.address(1), "/api/v1/stats").map_err(|error| error.to_string())?;
        let total = answer.json()["total"].as_u64();
        total
            .map(|total| total as usize)
            .ok_or_else(|| answer.text())
    })
}
