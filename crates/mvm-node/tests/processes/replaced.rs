//! Nodes that come back without their disk: nothing acknowledged is lost, and there is never a second cluster.
//!
//! What a green run does not prove: a disk that comes back old instead of empty. No node can tell that.

use std::collections::HashSet;

use crate::{
    cluster::{Cluster, wait},
    step,
    support::{get, new_job},
};

/// Everything in one test: forming takes most of the time.
#[test]
fn a_lost_disk_loses_nothing_and_founds_nothing() {
    step("two of three nodes found nothing: the third could have data");
    let mut cluster = Cluster::new(3);
    let formed = std::time::Instant::now();
    cluster.start(1);
    cluster.start(2);
    wait_waiting(&cluster, 1, "node 3 does not answer");
    wait_waiting(&cluster, 2, "node 1 has not founded the cluster");

    step("the third comes: they form");
    cluster.start(3);
    (1..=3).for_each(|id| cluster.wait_ready(id));
    eprintln!("    formed within {} ms", formed.elapsed().as_millis());
    let mut jobs = Jobs::default();
    (1..=3).for_each(|id| jobs.submit(&cluster, id));

    step("node 2 loses its disk, the others are up: it gets everything back");
    cluster.kill(2);
    cluster.wipe(2);
    jobs.submit(&cluster, 1);
    cluster.start(2);
    cluster.wait_ready(2);
    jobs.submit(&cluster, 2);
    jobs.check(&cluster);

    step("node 1 loses its disk while node 3 is down: it waits, and node 2 has no majority");
    cluster.kill(3);
    jobs.submit(&cluster, 2);
    cluster.kill(1);
    cluster.wipe(1);
    cluster.start(1);
    wait_waiting(&cluster, 1, "node 2 is a member of a cluster");
    wait_waiting(&cluster, 1, "node 3 does not answer");
    wait("node 2 has no majority", || {
        let answer = new_job(cluster.address(2), "http://x/refused", "refused").unwrap();
        assert_ne!(answer.status, 201, "{answer:?}");
        match answer.status {
            503 => Ok(()),
            status => Err(status.to_string()),
        }
    });
    assert_eq!(get(cluster.address(1), "/health").unwrap().status, 200);

    step(
        "node 3 comes back: all three are voters of one cluster, and everything acknowledged is there",
    );
    cluster.start(3);
    (1..=3).for_each(|id| cluster.wait_ready(id));
    (1..=3).for_each(|id| jobs.submit(&cluster, id));
    jobs.check(&cluster);
    let members = get(cluster.address(2), "/cluster").unwrap().json()["members"].clone();
    for member in members.as_array().unwrap() {
        assert_eq!(member["voter"], true, "{members}");
    }

    step("a directory of another node is refused");
    cluster.kill(1);
    cluster.kill(2);
    std::fs::rename(cluster.data_dir(1), cluster.data_dir(9)).unwrap();
    std::fs::rename(cluster.data_dir(2), cluster.data_dir(1)).unwrap();
    cluster.start(1);
    let said = cluster.wait_refused(1);
    assert!(said.contains("it belongs to node 2"), "{said}");
}

/// What was acknowledged.
#[derive(Default)]
struct Jobs {
    ids: HashSet<String>,
}

impl Jobs {
    #[track_caller]
    fn submit(&mut self, cluster: &Cluster, node: usize) {
        let key = format!("key{}", self.ids.len());
        let id = wait("a job is accepted", || {
            let answer = new_job(cluster.address(node), &format!("http://x/{key}"), &key).unwrap();
            match answer.status {
                200 | 201 => Ok(answer.json()["id"].as_str().unwrap().to_owned()),
                _ => Err(answer.text()),
            }
        });
        self.ids.insert(id);
    }

    /// Every node lists exactly these, linearizably and from its own replica.
    #[track_caller]
    fn check(&self, cluster: &Cluster) {
        for node in cluster.up() {
            let listed = |consistency| -> HashSet<String> {
                let ids = cluster.ids(node, consistency).unwrap();
                ids.into_iter().collect()
            };
            assert_eq!(listed("linearizable"), self.ids, "node {node}");
            wait("the replica has everything", || {
                let local = listed("local");
                (local == self.ids)
                    .then_some(())
                    .ok_or_else(|| format!("node {node}: {local:?}"))
            });
        }
    }
}

/// Waits until a node says that it waits for this.
#[track_caller]
fn wait_waiting(cluster: &Cluster, node: usize, reason: &str) {
    wait("the node says whom it waits for", || {
        let answer = get(cluster.address(node), "/ready").map_err(|error| error.to_string())?;
        assert_eq!(answer.status, 503, "{answer:?}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        match detail.contains(reason) {
            true => Ok(()),
            false => Err(detail),
        }
    });
}
