//! `cluster`: three nodes in three machines form, replicate, lose a node, split and heal.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use mvm_lab::{
    ensure,
    scenario::{Outcome, Run, Scenario, ScenarioFuture},
};

use super::{
    api::{self, Submitted},
    cluster_nodes::{AGREE_ALLOWED, Cluster, FORM_ALLOWED, SERVICE, STOP_GRACE, three_nodes},
};

/// Jobs submitted on each of the three nodes at once.
const JOBS_PER_NODE: usize = 10;
/// A refusal promises to come within 2 s, an unknown outcome within 3 s; the guests' own slowness and a
/// loaded host come on top, so only a hang is beyond this.
const REFUSAL_ALLOWED: Duration = Duration::from_secs(8);
/// Submissions to the isolated leader: the first may still be handed to its store.
const REFUSED_SUBMISSIONS: usize = 3;

pub(super) fn scenario(program: &Path) -> Scenario {
    three_nodes(
        program,
        "cluster",
        "three nodes form, replicate, lose a node, split and heal",
        |run| -> ScenarioFuture<'_> { Box::pin(steps(run)) },
    )
}

async fn steps(run: &Run) -> Outcome {
    let cluster = &Cluster::new(&run.lab);
    run.step(
        "the first write is served with no election",
        first_write(run, cluster),
    )
    .await?;
    run.step("a job submitted on node1 is listed on all", async {
        cluster.accept("node1", "https://example.org/first").await?;
        cluster.all_list_the_same(&cluster.names()).await
    })
    .await?;
    run.step(
        "30 jobs submitted on all three at once, none lost or doubled",
        async {
            try_join_all(cluster.names().into_iter().flat_map(|name| {
                (0..JOBS_PER_NODE).map(move |number| async move {
                    cluster
                        .accept(
                            name,
                            &format!("https://example.org/at-once/{name}/{number}"),
                        )
                        .await
                })
            }))
            .await?;
            cluster.all_list_the_same(&cluster.names()).await
        },
    )
    .await?;
    run.step(
        "node3's service is stopped, misses a job, starts and lists it",
        service_restart(cluster),
    )
    .await?;
    run.step(
        "node3 crashes hard, misses jobs, restarts with its disk and lists all",
        crash(cluster),
    )
    .await?;
    run.step(
        "the leader is cut off: the others elect a new one and go on, it refuses",
        split(run, cluster),
    )
    .await?;
    run.step(
        "healed: the old leader catches up, all list the same jobs",
        async {
            run.lab.network().heal_all()?;
            cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
            cluster.all_list_the_same(&cluster.names()).await
        },
    )
    .await?;
    run.step(
        "each node reaches each other's page by name",
        pages(cluster),
    )
    .await?;
    run.note(format!(
        "submissions: {} accepted, {} refused, {} of unknown outcome",
        cluster.told(&Submitted::Accepted),
        cluster.told(&Submitted::Refused),
        cluster.told(&Submitted::Unknown)
    ));
    Ok(())
}

/// A restored cluster must not notice that it was asleep: same leader, same term.
async fn first_write(run: &Run, cluster: &Cluster<'_>) -> Outcome {
    let started = Instant::now();
    let before = cluster
        .view("node1")
        .await
        .map_err(mvm_lab::scenario::Failure::broken)?;
    cluster
        .accept("node1", "https://example.org/first-write")
        .await?;
    let took = started.elapsed();
    let after = cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
    ensure!(
        (before.term, &before.leader) == (after.term, &after.leader),
        "{before:?} before the first write, {after:?} after it"
    );
    run.note(format!(
        "the first write was acknowledged {:.2} s after it was sent, in term {}",
        took.as_secs_f64(),
        after.term
    ));
    Ok(())
}

async fn service_restart(cluster: &Cluster<'_>) -> Outcome {
    let node3 = cluster.node("node3");
    let how = node3.stop_service(SERVICE, STOP_GRACE).await?;
    ensure!(
        how == "exit code 0",
        "node3's service was asked to stop and ended with {how}"
    );
    cluster.agree(&["node1", "node2"], AGREE_ALLOWED).await?;
    cluster
        .accept_soon("node1", "https://example.org/while-stopped", AGREE_ALLOWED)
        .await?;
    node3.start_service(SERVICE).await?;
    cluster.agree(&cluster.names(), FORM_ALLOWED).await?;
    cluster.all_list_the_same(&["node3"]).await
}

async fn crash(cluster: &Cluster<'_>) -> Outcome {
    let node3 = cluster.node("node3");
    node3.crash().await;
    cluster.agree(&["node1", "node2"], AGREE_ALLOWED).await?;
    for (name, number) in [("node1", 1), ("node2", 2), ("node1", 3)] {
        cluster
            .accept_soon(
                name,
                &format!("https://example.org/while-crashed/{number}"),
                AGREE_ALLOWED,
            )
            .await?;
    }
    node3.start().await?;
    cluster.agree(&cluster.names(), FORM_ALLOWED).await?;
    cluster.all_list_the_same(&["node3"]).await
}

async fn split(run: &Run, cluster: &Cluster<'_>) -> Outcome {
    let before = cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
    let old = before.leader.unwrap_or_default();
    let majority = cluster.others(&old);
    let cut = Instant::now();
    run.lab.network().isolate(&old)?;
    let mut refusing_for = Duration::ZERO;
    for number in 0..REFUSED_SUBMISSIONS {
        let (submitted, answer) = cluster
            .submit(&old, &format!("https://example.org/cut-off/{number}"))
            .await?;
        ensure!(
            submitted != Submitted::Accepted,
            "{old}, cut off from its majority, accepted a job: {}",
            answer.body
        );
        ensure!(
            answer.took < REFUSAL_ALLOWED,
            "{old}, cut off, took {:?} to answer {}",
            answer.took,
            answer.status
        );
        refusing_for = refusing_for.max(answer.took);
    }
    refuses_to_read(cluster, &old).await?;
    let after = cluster.agree(&majority, AGREE_ALLOWED).await?;
    ensure!(
        after.term > before.term,
        "a new leader in term {} follows term {}",
        after.term,
        before.term
    );
    run.note(format!(
        "{old} was cut off; {} leads in term {} and was seen {:.1} s later; the slowest refusal took {:.1} s",
        after.leader.unwrap_or_default(),
        after.term,
        cut.elapsed().as_secs_f64(),
        refusing_for.as_secs_f64()
    ));
    for (name, number) in majority.iter().zip(1..) {
        cluster
            .accept_soon(
                name,
                &format!("https://example.org/majority/{number}"),
                AGREE_ALLOWED,
            )
            .await?;
    }
    cluster.all_list_the_same(&majority).await?;
    refuses_to_read(cluster, &old).await
}

/// A linearizable read must be refused, a local one answered.
async fn refuses_to_read(cluster: &Cluster<'_>, name: &str) -> Outcome {
    let node = cluster.node(name);
    let broken = |error: api::CallError| mvm_lab::scenario::Failure::broken(error.to_string());
    let linearizable = api::get(node, "/queue/list").await.map_err(broken)?;
    ensure!(
        linearizable.status == 503,
        "{name}, cut off, answered a linearizable read with {}: {}",
        linearizable.status,
        linearizable.body
    );
    let local = api::get(node, "/queue/list?consistency=local")
        .await
        .map_err(broken)?;
    ensure!(
        local.status == 200,
        "{name} answered a local read with {}: {}",
        local.status,
        local.body
    );
    Ok(())
}

async fn pages(cluster: &Cluster<'_>) -> Outcome {
    for source in cluster.names() {
        for target in cluster.others(source) {
            let page = cluster
                .node(source)
                .succeed(&format!("timeout 20 wget -q -O - http://{target}:3020/"))
                .await?;
            ensure!(
                page.contains("<html"),
                "{source} fetched something else than a page from {target}: {page:?}"
            );
        }
    }
    Ok(())
}
