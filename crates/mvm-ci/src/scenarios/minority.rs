//! `minority`: each node in turn is cut off for 20 s while all are written to. It refuses in time and never lies; the others go on.

use std::{path::Path, time::Duration};

use mvm_check::{Class, Ends, History, NodeId, Plan, Rules};
use mvm_lab::{
    ensure,
    scenario::{Outcome, Run, Scenario, ScenarioFuture},
};

use super::{
    cluster_nodes::{AGREE_ALLOWED, Cluster, LEASE, three_nodes},
    judged::Judged,
};

const LASTS: Duration = Duration::from_secs(20);
/// 503 is promised within 2 s and 504 within 3 s; the guests' own slowness and a loaded host come on top, so only a hang is
/// beyond this.
const REFUSAL_ALLOWED: Duration = Duration::from_secs(8);

pub(super) fn scenario(program: &Path) -> Scenario {
    three_nodes(
        program,
        "minority",
        "each node in turn is cut off for 20 s under writers: it never acknowledges, the others go on",
        |run| -> ScenarioFuture<'_> { Box::pin(steps(run)) },
    )
}

async fn steps(run: &Run) -> Outcome {
    let cluster = &Cluster::new(&run.lab);
    let judged = &Judged::new(run, cluster);
    cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
    let plan = Plan {
        seed: judged.seed(),
        nodes: 3,
        submitters: 3,
        jobs_each: 1_000,
        until_calm: true,
        shared_jobs: 30,
        workers: 0,
        pace: Duration::from_millis(300),
        lease: LEASE,
        misbehave: true,
        reads_one_in: 20,
    };
    let rules = Rules {
        lease: None,
        ends: Ends::Kept,
    };
    run.step(
        "each node in turn is cut off for 20 s under writers, all list the same afterwards",
        async {
            let (cuts, history) = judged.during(&plan, rules, cuts(judged)).await?;
            cuts.into_iter()
                .try_for_each(|name| look(judged, &name, &history))
        },
    )
    .await
}

/// Cuts off and heals one node after the other; returns them.
async fn cuts(judged: &Judged<'_>) -> Outcome<Vec<String>> {
    let (network, cluster) = (judged.run.lab.network(), judged.cluster);
    for name in cluster.names() {
        network.isolate(name)?;
        judged.is_cut_off(name);
        tokio::time::sleep(LASTS).await;
        judged.is_healing(name);
        network.heal_one(name)?;
        cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
    }
    Ok(cluster.names().into_iter().map(str::to_owned).collect())
}

/// The node that was cut off answered in time, and the others took jobs meanwhile.
fn look(judged: &Judged<'_>, name: &str, history: &History) -> Outcome {
    let node = judged.node(name);
    let (from, to) = history.cut_off(node).next().unwrap_or_default();
    let operations = history.operations();
    let within = |of: NodeId| {
        operations.iter().filter(move |operation| {
            let asked = from <= operation.invoked && operation.returned_at() <= to;
            operation.node == of && asked && operation.action.is_write()
        })
    };
    let slowest = within(node)
        .map(|operation| operation.returned_at().since(operation.invoked))
        .max()
        .unwrap_or_default();
    let others = judged.cluster.others(name).into_iter();
    let accepted = others
        .flat_map(|other| within(judged.node(other)))
        .filter(|operation| operation.class() == Class::Acknowledged)
        .count();
    let refused = within(node).count();
    judged.run.note(format!(
        "{name} was cut off: it refused {refused} writes, the slowest after {:.2} s; the others acknowledged {accepted}",
        slowest.as_secs_f64()
    ));
    ensure!(
        refused > 0 && slowest < REFUSAL_ALLOWED,
        "{name}, cut off, answered {refused} writes, the slowest after {slowest:?}"
    );
    ensure!(
        accepted > 0,
        "nobody acknowledged a job while {name} was cut off"
    );
    Ok(())
}
