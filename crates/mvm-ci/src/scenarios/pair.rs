//! `pair`: two nodes need each other: one down means writes refused, back means writes accepted.

use std::path::Path;

use mvm_lab::{
    ensure,
    scenario::{Outcome, Run, Scenario, ScenarioFuture},
};

use super::{
    api::Submitted,
    cluster_nodes::{AGREE_ALLOWED, Cluster, FORM_ALLOWED, SERVICE, formed, topology},
};

pub(super) fn scenario(program: &Path) -> Scenario {
    Scenario {
        name: "pair".into(),
        about: "two nodes: one down means writes refused, back means writes accepted".into(),
        topology: topology(program, &["node1", "node2"]),
        prepare: Some(formed()),
        run: Box::new(|run| -> ScenarioFuture<'_> { Box::pin(steps(run)) }),
    }
}

async fn steps(run: &Run) -> Outcome {
    let cluster = &Cluster::new(&run.lab);
    let view = cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
    let leader = view.leader.unwrap_or_default();
    let follower = cluster.others(&leader)[0].to_owned();
    run.step("both accept jobs", async {
        cluster
            .accept(&leader, "https://example.org/on-leader")
            .await?;
        cluster
            .accept(&follower, "https://example.org/on-follower")
            .await?;
        cluster.all_list_the_same(&cluster.names()).await
    })
    .await?;
    for (what, down, up) in [
        ("follower", &follower, &leader),
        ("leader", &leader, &follower),
    ] {
        run.step(
            &format!("the {what}'s machine crashes: the other refuses writes"),
            async {
                cluster.node(down).crash().await;
                for number in 0..2 {
                    let url = format!("https://example.org/without-{what}/{number}");
                    let (submitted, answer) = cluster.submit(up, &url).await?;
                    ensure!(
                        submitted != Submitted::Accepted,
                        "{up} alone accepted a job: {}",
                        answer.body
                    );
                }
                Ok(())
            },
        )
        .await?;
        run.step(
            &format!("the {what} is back: writes are accepted, both list the same"),
            async {
                cluster.node(down).start().await?;
                cluster.agree(&cluster.names(), FORM_ALLOWED).await?;
                cluster
                    .accept_soon(
                        up,
                        &format!("https://example.org/{what}-back"),
                        AGREE_ALLOWED,
                    )
                    .await?;
                cluster.all_list_the_same(&cluster.names()).await
            },
        )
        .await?;
    }
    run.step(
        "the leader's service restarts in place: the pair serves again",
        async {
            let view = cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
            let leader = view.leader.unwrap_or_default();
            cluster.node(&leader).kill_service(SERVICE).await?;
            cluster.node(&leader).start_service(SERVICE).await?;
            let view = cluster.agree(&cluster.names(), FORM_ALLOWED).await?;
            run.note(format!(
                "{leader} led and was restarted; {} leads now",
                view.leader.unwrap_or_default()
            ));
            cluster
                .accept_soon(
                    &leader,
                    "https://example.org/leader-restarted",
                    AGREE_ALLOWED,
                )
                .await?;
            cluster.all_list_the_same(&cluster.names()).await
        },
    )
    .await
}
