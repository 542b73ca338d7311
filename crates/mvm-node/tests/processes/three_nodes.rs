//! Three nodes in processes of their own, on loopback: form, replicate, lose a node, a leader, a
//! majority, and get them back.
//!
//! What a green run does not prove: power loss (a killed process keeps what the kernel has), links
//! that fail in one direction, clocks that jump. The scenarios in virtual machines do.

use std::{
    collections::HashSet,
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::json;

use crate::{
    cluster::{Cluster, wait},
    exposition::Exposition,
    largest, step,
    support::{self, Answer, get, new_job, post_json, request},
};

/// Everything in one test: forming takes most of the time.
#[test]
fn a_cluster_keeps_its_promises() {
    let mut cluster = Cluster::formed(3);
    let mut history = History::default();

    step("thirty jobs from all three at once: none lost, none doubled");
    std::thread::scope(|scope| {
        let cluster = &cluster;
        let submit = |node: usize| {
            move || {
                (0..10)
                    .map(|_| submit_somewhere(cluster, node))
                    .collect::<Vec<_>>()
            }
        };
        let threads: Vec<_> = (1..=3).map(|node| scope.spawn(submit(node))).collect();
        threads
            .into_iter()
            .for_each(|thread| history.extend(thread.join().unwrap()));
    });
    assert_eq!(
        history.acknowledged.len(),
        30,
        "a healthy cluster takes every job"
    );
    history.check(&cluster);

    step("a job is followed on one node and cancelled on another");
    let leader = cluster.leader();
    let follower = cluster.up().into_iter().find(|id| *id != leader).unwrap();
    let job = history.acknowledged.iter().next().unwrap().clone();
    let seen = follow(&cluster, follower, &job, || {
        let path = format!("/api/v1/jobs/{job}/cancel");
        let cancelled = post_json(cluster.address(leader), &path, &json!(null)).unwrap();
        assert_eq!(cancelled.status, 200, "{}", cancelled.text());
    });
    assert!(
        seen.contains("event: end\ndata: {\"state\":\"cancelled\"}"),
        "{seen}"
    );
    step("each job was counted once in the cluster, and was written by the one leader");
    let leader = cluster.leader();
    wait("all nodes count", || {
        let counts = (1..=3).map(|node| scrape(&cluster, node));
        let counts: Vec<_> = counts.collect::<Result<_, _>>()?;
        let sum = |name| {
            let counts = counts.iter().map(|node| node.sum(name, &[]));
            counts.sum::<f64>()
        };
        let seen = (
            sum("mvm_ci_jobs_submitted_total"),
            sum("mvm_ci_raft_is_leader"),
            counts[leader - 1].sum("mvm_ci_raft_voters", &[]),
        );
        let forwarded = counts.iter().map(|node| {
            let labels = [("route", "propose"), ("result", "answered")];
            node.sum("mvm_ci_forwarded_requests_total", &labels)
        });
        let probes =
            |node: &Exposition| node.sum("mvm_ci_data_dir_sync_duration_seconds_count", &[]);
        let probed = counts.iter().all(|node| probes(node) >= 1.0);
        match forwarded.sum::<f64>() >= 20.0 && probed && seen == (30.0, 1.0, 3.0) {
            true => Ok(()),
            false => Err(format!("{seen:?}")),
        }
    });

    step("one node is killed: writes go on; it comes back and catches up");
    let leader = cluster.leader();
    let follower = cluster.up().into_iter().find(|id| *id != leader).unwrap();
    cluster.kill(follower);
    let jobs: Vec<_> = (0..3).map(|_| submit_somewhere(&cluster, leader)).collect();
    history.extend(jobs);
    cluster.start(follower);
    cluster.wait_ready(follower);
    history.check(&cluster);

    step("the leader is killed: another one takes writes");
    let leader = cluster.leader();
    cluster.kill(leader);
    let mut others = Vec::new();
    let accepted = first_accepted(&cluster, &mut others);
    history.extend(others);
    history.extend(vec![accepted]);
    cluster.start(leader);
    cluster.wait_ready(leader);
    history.check(&cluster);

    step("the leader is paused: another one takes writes; resumed, it has nothing to add");
    let paused = cluster.leader();
    cluster.pause(paused);
    let mut others = Vec::new();
    let accepted = first_accepted(&cluster, &mut others);
    history.extend(others);
    history.extend(vec![accepted]);
    cluster.resume(paused);
    cluster.wait_ready(paused);
    history.check(&cluster);

    step("a worker falls silent: its job goes to another, and its token counts no more");
    let asked = cluster.leader();
    let (job, token) = claim(&cluster, asked);
    let (again, newer) = wait("the lease ends and the job is free", || {
        taken(&cluster, asked, &job)
    });
    assert_eq!(again, job);
    assert!(newer > token, "token {newer} follows {token}");
    assert_eq!(renew(&cluster, asked, &job, token), 409);
    assert_eq!(renew(&cluster, asked, &job, newer), 200);

    step(
        "the leader dies, and with it all that was counted: a renewed lease lasts, a silent one ends",
    );
    let leader = cluster.leader();
    let other = cluster.up().into_iter().find(|id| *id != leader).unwrap();
    let (lively, its_token) = claim(&cluster, other);
    cluster.kill(leader);
    wait(
        "the silent one's job is free; the other renews",
        || match renew(&cluster, other, &lively, its_token) {
            200 | 503 | 504 => taken(&cluster, other, &job),
            status => panic!("a lively worker was answered {status}"),
        },
    );
    assert_eq!(renew(&cluster, other, &job, newer), 409);
    cluster.start(leader);
    cluster.wait_ready(leader);
    history.check(&cluster);

    step("two of three are killed: the survivor refuses, and still reads locally");
    let survivor = cluster.leader();
    let lost: Vec<usize> = cluster
        .up()
        .into_iter()
        .filter(|id| *id != survivor)
        .collect();
    lost.iter().for_each(|id| cluster.kill(*id));
    let mut refused = Vec::new();
    wait("the survivor refuses at once", || {
        let outcome = submit_somewhere(&cluster, survivor);
        assert_ne!(
            outcome.status, 201,
            "a write was acknowledged without a quorum"
        );
        let status = outcome.status;
        refused.push(outcome);
        if status == 503 {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    refused.extend((0..3).map(|_| submit_somewhere(&cluster, survivor)));
    history.extend(refused);
    let linearizable = get(cluster.address(survivor), "/queue/list").unwrap();
    assert_eq!(linearizable.status, 503, "{linearizable:?}");
    assert_eq!(
        get(cluster.address(survivor), "/ready").unwrap().status,
        503
    );
    assert_eq!(
        get(cluster.address(survivor), "/cluster").unwrap().json()["quorum"],
        false
    );
    let local = cluster.ids(survivor, "local").unwrap();
    assert!(
        history.acknowledged.iter().all(|id| local.contains(id)),
        "{local:?}"
    );

    step("they come back: what was refused never appears, what was unknown at most once");
    lost.iter().for_each(|id| cluster.start(*id));
    (1..=3).for_each(|id| cluster.wait_ready(id));
    history.extend(vec![submit_somewhere(&cluster, survivor)]);
    history.check(&cluster);

    step("as many of the largest jobs as fill batches: each is acknowledged or refused");
    largest::jobs(&cluster);
}

/// What one submission came to.
struct Outcome {
    key: String,
    status: u16,
    id: Option<String>,
}

/// Everything that was submitted, by what the client was told.
#[derive(Default)]
struct History {
    acknowledged: HashSet<String>,
    acknowledged_keys: Vec<String>,
    refused: Vec<String>,
    unknown: Vec<String>,
}

impl History {
    fn extend(&mut self, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            match (outcome.status, outcome.id) {
                (201, Some(id)) => {
                    assert!(self.acknowledged.insert(id), "two jobs have one id");
                    self.acknowledged_keys.push(outcome.key);
                }
                (503, _) => self.refused.push(outcome.key),
                (504, _) => self.unknown.push(outcome.key),
                (status, _) => panic!("status {status} for {}", outcome.key),
            }
        }
    }

    /// Holds every running node's linearizable list against what clients were told.
    #[track_caller]
    fn check(&self, cluster: &Cluster) {
        for node in cluster.up() {
            let urls = cluster.urls(node);
            let count = |key: &String| {
                urls.iter()
                    .filter(|url| url.ends_with(&format!("/{key}")))
                    .count()
            };
            for key in &self.acknowledged_keys {
                assert_eq!(
                    count(key),
                    1,
                    "{key} was acknowledged; node {node} lists {urls:?}"
                );
            }
            for key in &self.refused {
                assert_eq!(
                    count(key),
                    0,
                    "{key} was refused; node {node} lists {urls:?}"
                );
            }
            for key in &self.unknown {
                assert!(
                    count(key) <= 1,
                    "{key} was unknown; node {node} lists {urls:?}"
                );
            }
            let known =
                self.acknowledged_keys.len()..=self.acknowledged_keys.len() + self.unknown.len();
            assert!(
                known.contains(&urls.len()),
                "node {node} lists {} jobs, not {known:?}",
                urls.len()
            );
        }
    }
}

fn scrape(cluster: &Cluster, node: usize) -> Result<Exposition, String> {
    let answer = get(cluster.address(node), "/metrics").map_err(|error| error.to_string())?;
    Exposition::prometheus(&answer.text())
}

/// Follows a job's events to the end of the stream; does something when the first event has come.
fn follow(cluster: &Cluster, node: usize, job: &str, act: impl FnOnce()) -> String {
    let mut stream = TcpStream::connect(cluster.address(node)).unwrap();
    stream.set_read_timeout(Some(support::HANG)).unwrap();
    let ask = request("GET", &format!("/api/v1/jobs/{job}/events"), &[], b"");
    stream.write_all(&ask).unwrap();
    let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&seen).contains("event: job") {
        let length = stream.read(&mut piece).unwrap();
        assert!(length > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..length]);
    }
    act();
    stream.read_to_end(&mut seen).unwrap();
    String::from_utf8(seen).unwrap()
}

/// Claims a job by way of a node; gives its id and token.
fn claim(cluster: &Cluster, node: usize) -> (String, i64) {
    wait("a job is claimed", || claim_once(cluster, node))
}

fn claim_once(cluster: &Cluster, node: usize) -> Result<(String, i64), String> {
    let offer = json!({"worker": "w", "slots": 1});
    let answer = post_json(cluster.address(node), "/api/v1/claims", &offer);
    let answer = answer.map_err(|error| error.to_string())?;
    if answer.status != 200 {
        return Err(answer.text());
    }
    let claim = answer.json()["claims"][0].clone();
    match (claim["id"].as_str(), claim["token"].as_i64()) {
        (Some(id), Some(token)) => Ok((id.to_owned(), token)),
        _ => Err("nothing to claim".to_owned()),
    }
}

/// Claims whatever is free, in search of a job that was held.
fn taken(cluster: &Cluster, node: usize, job: &str) -> Result<(String, i64), String> {
    let (id, token) = claim_once(cluster, node)?;
    match id == job {
        true => Ok((id, token)),
        false => Err(format!("{id} was free, not {job}")),
    }
}

fn renew(cluster: &Cluster, node: usize, job: &str, token: i64) -> u16 {
    let path = format!("/api/v1/jobs/{job}/renew");
    let answer = post_json(cluster.address(node), &path, &json!({ "token": token }));
    answer.unwrap().status
}

/// Submits one job with a key of its own.
fn submit_somewhere(cluster: &Cluster, node: usize) -> Outcome {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let key = format!(
        "key{}",
        NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    );
    let started = std::time::Instant::now();
    let answer: Answer = new_job(cluster.address(node), &format!("http://x/{key}"), &key).unwrap();
    eprintln!(
        "    {key} on node {node}: {} in {} ms",
        answer.status,
        started.elapsed().as_millis()
    );
    let id = (answer.status == 201).then(|| answer.json()["id"].as_str().unwrap().to_owned());
    Outcome {
        key,
        status: answer.status,
        id,
    }
}

/// Submits to the running nodes in turn until one accepts; the others' outcomes go to `others`.
fn first_accepted(cluster: &Cluster, others: &mut Vec<Outcome>) -> Outcome {
    let mut turn = cluster.up().into_iter().cycle();
    wait("a write is accepted", || {
        let outcome = submit_somewhere(cluster, turn.next().unwrap());
        match outcome.status {
            201 => Ok(outcome),
            status => {
                others.push(outcome);
                Err(status.to_string())
            }
        }
    })
}
