//! `elections`: the leader is lost in five ways, one after the other, under submitters and workers.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use mvm_check::{Ends, Plan, Rules};
use mvm_lab::{
    ensure,
    scenario::{Outcome, Run, Scenario, ScenarioFuture},
};

use super::{
    cluster_nodes::{AGREE_ALLOWED, Cluster, FORM_ALLOWED, LEASE, SERVICE, three_with_workers},
    judged::Judged,
};

/// The history's clock is the host's and the leases are counted in guests.
const LEASE_AT_LEAST: Duration = LEASE.saturating_sub(Duration::from_millis(500));

/// How a leader is lost.
#[derive(Clone, Copy)]
enum Loss {
    Crash,
    Pause,
    Deaf,
    Mute,
    Killed,
}

const ROUNDS: [Loss; 5] = [
    Loss::Crash,
    Loss::Pause,
    Loss::Deaf,
    Loss::Mute,
    Loss::Killed,
];

pub(super) fn scenario(program: &Path) -> Scenario {
    three_with_workers(
        program,
        "elections",
        "the leader crashes, is paused beyond its lease, deaf, mute, killed: jobs complete once",
        |run| -> ScenarioFuture<'_> { Box::pin(steps(run)) },
    )
}

async fn steps(run: &Run) -> Outcome {
    let cluster = &Cluster::new(&run.lab);
    let judged = &Judged::new(run, cluster);
    let plan = Plan {
        seed: judged.seed(),
        nodes: 3,
        submitters: 3,
        jobs_each: 1_000,
        until_calm: true,
        shared_jobs: 15,
        workers: 9,
        // Guests are slow, and what was submitted must be worked off afterwards.
        pace: Duration::from_millis(1_500),
        lease: LEASE,
        misbehave: true,
        reads_one_in: 20,
    };
    let rules = Rules {
        lease: Some(LEASE_AT_LEAST),
        ends: Ends::Completed,
    };
    run.step(
        "five leaders are lost under submitters and workers: every job completes once",
        async {
            let rounds = async {
                for loss in ROUNDS {
                    round(judged, loss).await?;
                }
                Ok(())
            };
            judged.during(&plan, rules, rounds).await?;
            Ok(())
        },
    )
    .await
}

/// Loses the leader, waits for another, and brings the lost one back.
async fn round(judged: &Judged<'_>, loss: Loss) -> Outcome {
    let cluster = judged.cluster;
    let before = cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
    let leader = before.leader.unwrap_or_default();
    let others = cluster.others(&leader);
    let began = Instant::now();
    lose(judged, loss, &leader).await?;
    let after = cluster.agree(&others, AGREE_ALLOWED).await?;
    let took = began.elapsed();
    ensure!(
        after.term > before.term,
        "a new leader in term {} follows term {}",
        after.term,
        before.term
    );
    judged.run.note(format!(
        "{leader} {}; {} led in term {} after {:.1} s",
        loss.told(),
        after.leader.unwrap_or_default(),
        after.term,
        took.as_secs_f64()
    ));
    if matches!(loss, Loss::Pause) {
        let rest = (LEASE + LEASE / 4).saturating_sub(began.elapsed());
        tokio::time::sleep(rest).await;
    }
    bring_back(judged, loss, &leader).await?;
    cluster.agree(&cluster.names(), FORM_ALLOWED).await?;
    Ok(())
}

async fn lose(judged: &Judged<'_>, loss: Loss, leader: &str) -> Outcome {
    let node = judged.cluster.node(leader);
    let network = judged.run.lab.network();
    judged.happens(format!("{leader} {}", loss.told()));
    match loss {
        Loss::Crash => node.crash().await,
        Loss::Pause => node.pause().await?,
        Loss::Killed => drop(node.kill_service(SERVICE).await?),
        Loss::Deaf => {
            for other in judged.cluster.others(leader) {
                network.one_way(other, leader)?;
            }
            judged.is_cut_off(leader);
        }
        Loss::Mute => {
            for other in judged.cluster.others(leader) {
                network.one_way(leader, other)?;
            }
            judged.is_cut_off(leader);
        }
    }
    Ok(())
}

async fn bring_back(judged: &Judged<'_>, loss: Loss, leader: &str) -> Outcome {
    let node = judged.cluster.node(leader);
    judged.happens(format!("{leader} comes back"));
    match loss {
        Loss::Crash => node.start().await?,
        Loss::Pause => node.resume().await?,
        Loss::Killed => node.start_service(SERVICE).await?,
        Loss::Deaf | Loss::Mute => {
            judged.is_healing(leader);
            judged.run.lab.network().heal_one(leader)?;
        }
    }
    Ok(())
}

impl Loss {
    fn told(self) -> &'static str {
        match self {
            Loss::Crash => "crashed",
            Loss::Pause => "was paused beyond its lease",
            Loss::Deaf => "heard nobody",
            Loss::Mute => "was heard by nobody",
            Loss::Killed => "had its process killed",
        }
    }
}
