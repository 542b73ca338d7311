//! `flap`: a link between the leader and a follower goes down and up every second.

use std::{path::Path, time::Duration};

use mvm_lab::{
    ensure,
    scenario::{Outcome, Run, Scenario, ScenarioFuture},
};

use super::{
    cluster_nodes::{AGREE_ALLOWED, Cluster, three_nodes},
    writes,
};

const DOWN: Duration = Duration::from_secs(1);
const UP: Duration = Duration::from_secs(1);
const LASTS: Duration = Duration::from_secs(20);

pub(super) fn scenario(program: &Path) -> Scenario {
    three_nodes(
        program,
        "flap",
        "a link goes down and up every second for 20 s: the cluster converges",
        |run| -> ScenarioFuture<'_> { Box::pin(steps(run)) },
    )
}

async fn steps(run: &Run) -> Outcome {
    let cluster = &Cluster::new(&run.lab);
    let before = cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
    let leader = before.leader.unwrap_or_default();
    let follower = cluster.others(&leader)[0];
    run.step(
        "a link of the leader flaps for 20 s while all are written to",
        async {
            let flapping = async {
                let network = run.lab.network();
                Ok(network.flap_for(&leader, follower, UP, DOWN, LASTS).await?)
            };
            let ((), writes) = writes::during(cluster, "flap", flapping).await?;
            run.note(writes.to_string());
            ensure!(
                writes.accepted() > 0,
                "no write was accepted though two nodes always reached one another"
            );
            Ok(())
        },
    )
    .await?;
    run.step(
        "the cluster converges: all agree and list the same jobs",
        async {
            let after = cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
            run.note(format!(
                "{} leads in term {}, it was {leader} in term {}",
                after.leader.unwrap_or_default(),
                after.term,
                before.term
            ));
            cluster.all_list_the_same(&cluster.names()).await
        },
    )
    .await
}
