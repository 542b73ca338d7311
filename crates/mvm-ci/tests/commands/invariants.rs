//! Three nodes as a user runs them, on loopback, under the workload: one is killed and comes back, the leader is paused beyond
//! its lease. What clients saw is judged.
//!
//! What a green run does not prove: anything about networks that fail, lost power, or other programs as workers. The scenarios
//! in machines have the same workload and the same checker.

use std::time::Duration;

use mvm_check::{Drained, Ends, Fault, Plan, Recorder, Rules, Target, judge, run};

use crate::loopback::{Cluster, Loopback};

/// Of the nodes; more than the longest election.
const LEASE: Duration = Duration::from_secs(2);
/// Only a hang takes this long.
const DRAIN_ALLOWED: Duration = Duration::from_secs(60);
/// What happens to the cluster is spread over the workload.
const BETWEEN: Duration = Duration::from_millis(700);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_lied_about() {
    let mut cluster = Cluster::formed(LEASE).await;
    let plan = Plan {
        seed: seed(),
        nodes: 3,
        submitters: 6,
        jobs_each: 1_000,
        until_calm: true,
        shared_jobs: 18,
        workers: 12,
        pace: Duration::from_millis(300),
        lease: LEASE,
        misbehave: true,
        reads_one_in: 6,
    };
    println!("seed {}", plan.seed);
    let recorder = Recorder::new(plan.seed);
    let target = cluster.target();
    let nemesis = misfortunes(&mut cluster, &target, &recorder);
    let ((), drained) = run(&target, &recorder, &plan, nemesis, DRAIN_ALLOWED).await;
    let history = recorder.history();
    let file = cluster.keep(&history);
    let rules = Rules {
        lease: Some(LEASE),
        ends: Ends::Completed,
    };
    let violations = judge(&history, rules);
    for violation in &violations {
        println!("{violation}");
    }
    assert!(
        violations.is_empty() && drained == Drained::Yes,
        "{} violations, all jobs ended: {drained:?}, seed {}; the history is {}",
        violations.len(),
        plan.seed,
        file.display()
    );
}

async fn misfortunes(cluster: &mut Cluster, target: &Loopback, recorder: &Recorder) {
    let note = |what: String| {
        println!("{}: {what}", target.now());
        recorder.fault(|| target.now(), Fault::Other { what });
    };
    target.sleep(BETWEEN).await;
    let leader = cluster.leader().await;
    let follower = cluster.others(leader)[0];
    note(format!("{follower} is killed"));
    cluster.kill(follower);
    target.sleep(BETWEEN).await;
    note(format!("{follower} starts"));
    cluster.start(follower);
    cluster.ready(follower).await;
    let leader = cluster.leader().await;
    note(format!("{leader}, which leads, is paused beyond its lease"));
    cluster.pause(leader);
    target.sleep(LEASE + BETWEEN).await;
    note(format!("{leader} goes on"));
    cluster.resume(leader);
    cluster.ready(leader).await;
    let leader = cluster.leader().await;
    note(format!("{leader}, which leads, is killed"));
    cluster.kill(leader);
    target.sleep(BETWEEN).await;
    note(format!("{leader} starts"));
    cluster.start(leader);
    for node in cluster.nodes() {
        cluster.ready(node).await;
    }
    note("all are ready".to_owned());
}

/// Another one each time, unless it is given.
fn seed() -> u64 {
    let given = std::env::var("MVM_CI_SEED").ok();
    given.map_or_else(
        || u64::from(std::process::id()),
        |seed| seed.parse().unwrap(),
    )
}
