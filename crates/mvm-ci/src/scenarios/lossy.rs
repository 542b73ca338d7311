//! `lossy`: every link loses, doubles and reorders frames; every job still is there exactly once.

use std::{path::Path, time::Duration};

use futures_util::future::try_join_all;
use mvm_lab::{
    ensure,
    scenario::{Outcome, Run, Scenario, ScenarioFuture},
};

use super::cluster_nodes::{AGREE_ALLOWED, Cluster, three_nodes};

const LOSS: f64 = 0.10;
const DUPLICATION: f64 = 0.05;
const REORDERING: f64 = 0.10;
/// How long a frame that is overtaken is held back.
const HELD_BACK: Duration = Duration::from_millis(20);
const JOBS_PER_NODE: usize = 10;

pub(super) fn scenario(program: &Path) -> Scenario {
    three_nodes(
        program,
        "lossy",
        "10 % loss, 5 % duplication, reordering: every job exactly once",
        |run| -> ScenarioFuture<'_> { Box::pin(steps(run)) },
    )
}

async fn steps(run: &Run) -> Outcome {
    let cluster = &Cluster::new(&run.lab);
    let network = run.lab.network();
    cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
    run.step("30 jobs over links that lose, double and reorder", async {
        network.all().loss(LOSS)?;
        network.all().duplicate(DUPLICATION)?;
        network.all().reorder(REORDERING, HELD_BACK)?;
        try_join_all(cluster.names().into_iter().map(|name| async move {
            for number in 0..JOBS_PER_NODE {
                let url = format!("https://example.org/lossy/{name}/{number}");
                cluster.accept_soon(name, &url, AGREE_ALLOWED).await?;
            }
            Ok::<_, mvm_lab::scenario::Failure>(())
        }))
        .await?;
        let counters = network.counters()?;
        let ports = || counters.values().flatten();
        let lost: u64 = ports().map(|port| port.dropped_to.total()).sum();
        let doubled: u64 = ports().map(|port| port.duplicated).sum();
        ensure!(
            lost > 0 && doubled > 0,
            "the links lost {lost} frames and doubled {doubled}"
        );
        run.note(format!("{lost} frames were lost, {doubled} doubled"));
        Ok(())
    })
    .await?;
    run.step("links whole: all agree, every job is there once", async {
        network.all().clear()?;
        cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
        cluster.all_list_the_same(&cluster.names()).await
    })
    .await
}
