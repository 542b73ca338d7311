//! `steal`: all jobs are submitted to a node that runs none. The others run them; one dies in mid-job, first a follower, then the
//! leader, and the other takes over. In between clocks jump.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use mvm_check::{Action, Ask, Class, Consistency, Ends, JobSeen, Plan, Rules, Told};
use mvm_lab::{
    ensure,
    scenario::{Failure, Outcome, Run, Scenario, ScenarioFuture},
    verdict::Verdict,
    wait::{self, Seen},
};
use serde_json::json;

use super::{
    api, clock,
    cluster_nodes::{
        AGREE_ALLOWED, Cluster, FORM_ALLOWED, LEASE, SERVICE, SLOTS, three_with_workers,
    },
    judged::Judged,
};

/// The node that takes the jobs.
const TAKES: &str = "node1";
/// Those that run them.
const WORK: [&str; 2] = ["node2", "node3"];
/// How long a job runs that must be at it when its node dies, or when clocks jump.
const LONG: Duration = Duration::from_secs(10);
const _: () = assert!(LONG.as_secs() > clock::JUMPS_TAKE.as_secs());
const SHORT: Duration = Duration::from_secs(1);
/// That a lease has ended, and that there is a job to take, is noticed within this.
const NOTICED: Duration = Duration::from_secs(2);
/// Only a hang takes this long.
const HANG: Duration = Duration::from_secs(60);
/// Where jobs leave a line when they begin and when they are done.
const EFFECTS: &str = "/data/effects";

pub(super) fn scenario(program: &Path) -> Scenario {
    three_with_workers(
        program,
        "steal",
        "all jobs on a node that runs none: others run them, a follower and a leader die in mid-job, clocks jump, each completes once",
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
    run.step(
        "node1, which has no slots, takes jobs; a follower that runs them dies: the other takes them over",
        async {
            let view = cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
            let is_follower = |name: &&&str| view.leader.as_deref() != Some(**name);
            let follower = WORK.iter().find(is_follower);
            dies_in_mid_job(judged, follower.unwrap_or(&WORK[0]), Role::Follower).await
        },
    )
    .await?;
    run.step(
        "wall clocks jump an hour forth and back while jobs run: none is lost, doubled or late",
        clocks_jump(judged),
    )
    .await?;
    run.step(
        "the leader, which runs jobs, dies, while clocks are hours apart: the other takes them over",
        async {
            let leader = a_worker_leads(judged).await?;
            dies_in_mid_job(judged, &leader, Role::Leader).await
        },
    )
    .await?;
    run.step("both run what is left", async {
        submit(judged, "short", 2 * SLOTS, SHORT).await?;
        wait::until("all jobs complete", AGREE_ALLOWED, || {
            all(judged, "completed")
        })
        .await?;
        run.note(format!("jobs by node: {}", told(&holders(judged).await?)));
        Ok(())
    })
    .await?;
    run.step("each job was done once", done_once(judged)).await
}

/// Leases that any wall clock ends would be given anew, and their jobs begun again.
async fn clocks_jump(judged: &Judged<'_>) -> Outcome {
    submit(judged, "clock", SLOTS, LONG).await?;
    wait::until("all jobs run", AGREE_ALLOWED, || {
        all_of(judged, "clock", "in_progress")
    })
    .await?;
    clock::jumps(judged).await?;
    wait::until("all jobs complete", AGREE_ALLOWED, || {
        all(judged, "completed")
    })
    .await?;
    let lines = effects(judged).await?;
    let begun = |number| lines.get(&format!("begun clock-{number}")).copied();
    ensure!(
        (0..SLOTS).all(|number| begun(number) == Some(1)),
        "a job was begun more than once: {lines:?}"
    );
    Ok(())
}

/// What the one that dies is.
#[derive(Clone, Copy, Debug)]
enum Role {
    Follower,
    Leader,
}

impl Role {
    const fn told(self) -> &'static str {
        match self {
            Self::Follower => "a follower",
            Self::Leader => "which led",
        }
    }
}

/// Has a node that works lead; elections until then cost nothing but time.
async fn a_worker_leads(judged: &Judged<'_>) -> Outcome<String> {
    let cluster = judged.cluster;
    let view = cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
    if let Some(leader) = view.leader.filter(|leader| leader != TAKES) {
        return Ok(leader);
    }
    judged.happens(format!("{TAKES}, which leads, has its process killed"));
    cluster.node(TAKES).kill_service(SERVICE).await?;
    let view = cluster.agree(&WORK, AGREE_ALLOWED).await?;
    cluster.node(TAKES).start_service(SERVICE).await?;
    cluster.agree(&cluster.names(), FORM_ALLOWED).await?;
    view.leader
        .ok_or_else(|| Failure::broken("nobody leads after an election"))
}

/// A node gets jobs, alone, and crashes while it runs them; the other takes them over, and it comes back.
async fn dies_in_mid_job(judged: &Judged<'_>, dies: &str, role: Role) -> Outcome {
    let cluster = judged.cluster;
    let [one, other] = WORK;
    let heir = if dies == one { other } else { one };
    // The heir must have room, or taking over would wait for its own jobs.
    drain(judged, heir, true).await?;
    let name = format!("of-{dies}-{role:?}");
    submit(judged, &name, SLOTS, LONG).await?;
    let running = format!("all jobs run on {dies}");
    wait::until(&running, AGREE_ALLOWED, || {
        all_on(judged, &name, dies, &["in_progress"])
    })
    .await?;
    drain(judged, heir, false).await?;
    judged.happens(format!("{dies} crashes"));
    let began = Instant::now();
    cluster.node(dies).crash().await;
    let election = match role {
        Role::Follower => Duration::ZERO,
        // The next leader gives every lease anew.
        Role::Leader => {
            cluster.agree(&cluster.others(dies), AGREE_ALLOWED).await?;
            began.elapsed()
        }
    };
    let taken_over = format!("the jobs of {dies} are on {heir}");
    wait::until(&taken_over, HANG, || {
        all_on(
            judged,
            &name,
            heir,
            &["claimed", "in_progress", "completed"],
        )
    })
    .await?;
    let (took, promise) = (began.elapsed(), election + LEASE + NOTICED);
    judged.run.note(format!(
        "{dies} crashed, {}; its jobs ran on {heir} {:.1} s later; promised are {:.1} s, an election of {:.1} s among them",
        role.told(),
        took.as_secs_f64(),
        promise.as_secs_f64(),
        election.as_secs_f64()
    ));
    if took > promise {
        // On a host that stalls its guests nobody can tell.
        return Err(Failure {
            verdict: Verdict::Unknown,
            message: format!(
                "the jobs of {dies}, {}, ran elsewhere after {:.1} s and not {:.1} s",
                role.told(),
                took.as_secs_f64(),
                promise.as_secs_f64()
            ),
        });
    }
    cluster.node(dies).start().await?;
    cluster.agree(&cluster.names(), FORM_ALLOWED).await?;
    wait::until("all jobs complete", AGREE_ALLOWED, || {
        all(judged, "completed")
    })
    .await?;
    Ok(())
}

/// Has a node take no jobs, or take them again.
async fn drain(judged: &Judged<'_>, name: &str, draining: bool) -> Outcome {
    let key = format!("drain-{name}-{draining}");
    let body = json!({ "draining": draining });
    let path = "/api/v1/node/drain";
    let answer = api::call(judged.cluster.node(name), "POST", path, Some((body, &key))).await;
    let answer = answer.map_err(|error| Failure::broken(error.to_string()))?;
    ensure!(
        answer.status == 200,
        "{name} answered {} to {path}: {}",
        answer.status,
        answer.body
    );
    Ok(())
}

async fn submit(judged: &Judged<'_>, name: &str, count: usize, lasts: Duration) -> Outcome {
    let seconds = lasts.as_secs();
    for number in 0..count {
        let key = format!("{name}-{number}");
        // A machine that crashes later must not forget what was done.
        let script = format!(
            "echo begun $JOB >> {EFFECTS}; sleep {seconds}; echo done $JOB >> {EFFECTS}; sync"
        );
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
    all_of(judged, "", state).await
}

/// Whether all jobs of a batch are in a state.
async fn all_of(judged: &Judged<'_>, batch: &str, state: &str) -> Seen<()> {
    let jobs = match list(judged, Consistency::Linearizable).await {
        Ok(jobs) => jobs.into_iter().filter(|job| job.key.starts_with(batch)),
        Err(seen) => return Seen::NotYet(seen),
    };
    let others: Vec<JobSeen> = jobs.filter(|job| job.state != state).collect();
    match others.is_empty() {
        true => Seen::Done(()),
        false => Seen::NotYet(format!("{others:?}")),
    }
}

/// Whether the jobs of a batch are all on one node, as the asked node's replica has it, which also tells without a leader.
async fn all_on(judged: &Judged<'_>, batch: &str, node: &str, states: &[&str]) -> Seen<()> {
    let jobs = match list(judged, Consistency::Local).await {
        Ok(jobs) => jobs.into_iter().filter(|job| job.key.starts_with(batch)),
        Err(seen) => return Seen::NotYet(seen),
    };
    let jobs: Vec<JobSeen> = jobs.collect();
    let there = |job: &&JobSeen| {
        job.claimed_by.as_deref() == Some(node) && states.contains(&job.state.as_str())
    };
    match jobs.iter().filter(there).count() {
        SLOTS => Seen::Done(()),
        count => Seen::NotYet(format!("{count} of {} jobs are", jobs.len())),
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

/// Each job was done once. Begun it was again where its node died.
async fn done_once(judged: &Judged<'_>) -> Outcome {
    let lines = effects(judged).await?;
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

/// What jobs left on the machines' disks, and how often.
async fn effects(judged: &Judged<'_>) -> Outcome<BTreeMap<String, usize>> {
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for name in judged.cluster.names() {
        let command = format!("cat {EFFECTS} 2> /dev/null || true");
        let told = judged.cluster.node(name).succeed(&command).await?;
        for line in told.lines() {
            *lines.entry(line.to_owned()).or_default() += 1;
        }
    }
    Ok(lines)
}
