//! `one-way`: the leader still sends, but hears nobody. The others must go on without it.

use std::{path::Path, time::Instant};

use mvm_lab::{
    ensure,
    scenario::{Outcome, Run, Scenario, ScenarioFuture},
};

use super::{
    api::Submitted,
    cluster_nodes::{AGREE_ALLOWED, Cluster, three_nodes},
};

pub(super) fn scenario(program: &Path) -> Scenario {
    three_nodes(
        program,
        "one-way",
        "the leader can send but not hear: the others elect another and go on",
        |run| -> ScenarioFuture<'_> { Box::pin(steps(run)) },
    )
}

async fn steps(run: &Run) -> Outcome {
    let cluster = &Cluster::new(&run.lab);
    let before = cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
    let deaf = before.leader.unwrap_or_default();
    let others = cluster.others(&deaf);
    run.step("the leader hears nobody: the others elect another", async {
        let began = Instant::now();
        for other in &others {
            run.lab.network().one_way(other, &deaf)?;
        }
        let after = cluster.agree(&others, AGREE_ALLOWED).await?;
        ensure!(
            after.term > before.term,
            "a new leader in term {} follows term {}",
            after.term,
            before.term
        );
        run.note(format!(
            "{deaf} heard nobody; {} led in term {} after {:.1} s",
            after.leader.unwrap_or_default(),
            after.term,
            began.elapsed().as_secs_f64()
        ));
        Ok(())
    })
    .await?;
    run.step("the others accept jobs, the deaf one accepts none", async {
        for (name, number) in others.iter().zip(1..) {
            let url = format!("https://example.org/hearing/{number}");
            cluster.accept_soon(name, &url, AGREE_ALLOWED).await?;
        }
        let (submitted, answer) = cluster.submit(&deaf, "https://example.org/deaf").await?;
        ensure!(
            submitted != Submitted::Accepted,
            "{deaf}, which hears nobody, accepted a job: {}",
            answer.body
        );
        cluster.all_list_the_same(&others).await
    })
    .await?;
    run.step("healed: all agree and list the same jobs", async {
        run.lab.network().heal_all()?;
        cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
        cluster.all_list_the_same(&cluster.names()).await
    })
    .await
}
