//! `steal`: all jobs are submitted to a node that runs none. The others run them, one dies in mid-job, and the other takes over.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use mvm_check::{Action, Ask, Class, Consistency, Ends, JobSeen, Plan, Rules, Told};
use mvm_lab::{
    ensure,
    scenario::{Failure, Outcome, Run, Scenario, ScenarioFuture},
    wait::{self, Seen},
};
use serde_json::json;

use super::{
    cluster_nodes::{AGREE_ALLOWED, Cluster, FORM_ALLOWED, LEASE, SLOTS, three_with_workers},
    judged::Judged,
};

/// The node that takes the jobs.
const TAKES: &str = "node1";
/// How long a job of the first batch runs: it must be at it when its node dies.
const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_secs(1);
/// Lease and 2 s are promised, and an election if the dead one led; a loaded host is granted the rest.
const TAKE_OVER_ALLOWED: Duration = Duration::from_secs(60);
/// Where jobs leave a line when they begin and when they are done.
const EFFECTS: &str = "/data/effects";

pub(super) fn scenario(program: &Path) -> Scenario {
    three_with_workers(
        program,
        "steal",
        "all jobs on a node that runs none: the others run them, one dies in mid-job, each completes once",
        |run| -> ScenarioFuture<'_> { Box::pin(steps(run)) },
    )
}

async fn steps(run: &Run) -> Outcome {
    let cluster = &Cluster::new(&run.lab);
    let judged = &Judged::new(run, cluster);
    cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
    // The nodes' own workers do the work.
    let nobody = Plan {
        seed: judged.seed(),
        nodes: 3,
        submitters: 0,
        jobs_each: 0,
        until_calm: true,
        shared_jobs: 0,
        workers: 0,
        pace: SHORT,
        lease: LEASE,
        misbehave: false,
        reads_one_in: 0,
    };
    let rules = Rules {
        lease: None,
        ends: Ends::Completed,
    };
    judged.during(&nobody, rules, story(judged)).await?;
    Ok(())
}

async fn story(judged: &Judged<'_>) -> Outcome {
    let (run, cluster) = (judged.run, judged.cluster);
    let dead = run
        .step(
            "jobs on node1, which has no slots: the others run them",
            async {
                submit(judged, "long", SLOTS, LONG).await?;
                wait::until("all jobs run", AGREE_ALLOWED, || all(judged, "in_progress")).await?;
                let holders = holders(judged).await?;
                run.note(format!("jobs by node: {}", told(&holders)));
                // Whoever has the most of them.
                let most = holders.into_iter().max_by_key(|(_, jobs)| *jobs);
                let (dead, _) = most.ok_or_else(|| Failure::broken("nobody has a job"))?;
                ensure!(dead != TAKES, "{TAKES} has no slots and runs a job");
                Ok(dead)
            },
        )
        .await?;
    run.step(
        "it dies in mid-job: the other takes its jobs over",
        take_over(judged, &dead),
    )
    .await?;
    run.step("it comes back and both run what is left", async {
        cluster.node(&dead).start().await?;
        cluster.agree(&cluster.names(), FORM_ALLOWED).await?;
        wait::until("all jobs complete", AGREE_ALLOWED, || {
            all(judged, "completed")
        })
        .await?;
        submit(judged, "short", 2 * SLOTS, SHORT).await?;
        wait::until("all jobs complete", AGREE_ALLOWED, || {
            all(judged, "completed")
        })
        .await?;
        run.note(format!("jobs by node: {}", told(&holders(judged).await?)));
        Ok(())
    })
    .await?;
    run.step("each job was done once", effects(judged)).await
}

async fn take_over(judged: &Judged<'_>, dead: &str) -> Outcome {
    let cluster = judged.cluster;
    let view = cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
    let led = view.leader.as_deref() == Some(dead);
    judged.happens(format!("{dead} crashes"));
    let began = Instant::now();
    cluster.node(dead).crash().await;
    let condition = format!("no job is {dead}'s");
    wait::until(&condition, TAKE_OVER_ALLOWED, || async {
        match list(judged, Consistency::Local).await {
            Ok(jobs) => {
                let its = |job: &&JobSeen| job.claimed_by.as_deref() == Some(dead);
                match jobs.iter().filter(its).count() {
                    0 if jobs.iter().all(|job| job.claimed_by.is_some()) => Seen::Done(()),
                    left => Seen::NotYet(format!("{left} of {} jobs are", jobs.len())),
                }
            }
            Err(seen) => Seen::NotYet(seen),
        }
    })
    .await?;
    judged.run.note(format!(
        "{dead} crashed, {}; its jobs ran elsewhere {:.1} s later, with leases of {:.0} s",
        if led { "which led" } else { "a follower" },
        began.elapsed().as_secs_f64(),
        LEASE.as_secs_f64()
    ));
    Ok(())
}

async fn submit(judged: &Judged<'_>, name: &str, count: usize, lasts: Duration) -> Outcome {
    let seconds = lasts.as_secs();
    for number in 0..count {
        let key = format!("{name}-{number}");
        let script =
            format!("echo begun $JOB >> {EFFECTS}; sleep {seconds}; echo done $JOB >> {EFFECTS}");
        let spec = json!({
            "kind": "process",
            "payload": { "script": script, "environment": { "JOB": key } },
        });
        let ask = Ask {
            node: judged.node(TAKES),
            request: key.clone(),
            action: Action::Submit { key, spec },
        };
        let told = judged.ask("submitter", ask).await;
        ensure!(
            told.class() == Class::Acknowledged,
            "{TAKES} of a whole cluster did not take a job: {told}"
        );
    }
    Ok(())
}

async fn list(judged: &Judged<'_>, consistency: Consistency) -> Result<Vec<JobSeen>, String> {
    let ask = Ask {
        node: judged.node(TAKES),
        request: "observer".to_owned(),
        action: Action::List { consistency },
    };
    match judged.observe(&ask).await {
        Told::Listed { jobs } => Ok(jobs),
        other => Err(other.to_string()),
    }
}

async fn all(judged: &Judged<'_>, state: &str) -> Seen<()> {
    match list(judged, Consistency::Linearizable).await {
        Ok(jobs) if jobs.iter().all(|job| job.state == state) => Seen::Done(()),
        Ok(jobs) => Seen::NotYet(format!("{jobs:?}")),
        Err(seen) => Seen::NotYet(seen),
    }
}

/// How many jobs each node had last.
async fn holders(judged: &Judged<'_>) -> Outcome<BTreeMap<String, usize>> {
    let jobs = list(judged, Consistency::Linearizable).await;
    let mut holders = BTreeMap::new();
    for job in jobs.map_err(Failure::broken)? {
        let holder = job.claimed_by.unwrap_or_else(|| "nobody".to_owned());
        *holders.entry(holder).or_default() += 1;
    }
    Ok(holders)
}

fn told(holders: &BTreeMap<String, usize>) -> String {
    let each = holders.iter().map(|(node, jobs)| format!("{node} {jobs}"));
    each.collect::<Vec<_>>().join(", ")
}

/// What jobs left on the machines' disks: each was done once. Begun it was again where its node died.
async fn effects(judged: &Judged<'_>) -> Outcome {
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for name in judged.cluster.names() {
        let command = format!("cat {EFFECTS} 2> /dev/null || true");
        let told = judged.cluster.node(name).succeed(&command).await?;
        for line in told.lines() {
            *lines.entry(line.to_owned()).or_default() += 1;
        }
    }
    let jobs = list(judged, Consistency::Linearizable).await;
    for job in jobs.map_err(Failure::broken)? {
        let done = lines.get(&format!("done {}", job.key)).copied();
        ensure!(
            done == Some(1),
            "{} was done {done:?} times: {lines:?}",
            job.key
        );
    }
    Ok(())
}
