//! `workflow-failover`: fifty workflows have effects on a server in a machine of its own; the node that runs most of them loses power. All
//! finish elsewhere, and the server was asked as often as promised.

use std::{collections::BTreeMap, path::Path, time::Instant};

use futures_util::future::try_join_all;
use mvm_lab::{
    ensure,
    scenario::{Outcome, Run, Scenario, ScenarioFuture},
    service::ServiceSpec,
    topology::MachineConfig,
    wait::{self, Seen},
};
use serde_json::json;

use super::{
    cluster_nodes::{AGREE_ALLOWED, Cluster, LEASE, three_with_workers},
    workflows::{self, RUNS_ALLOWED},
};

/// Where the effects happen.
const SERVER: &str = "server";
/// The node where all begins, and where alone the module is deployed.
const DIES: &str = "node2";
const WORKFLOWS: usize = 50;
/// The server notes what it was asked, and takes its time, so that workflows are half way when their node dies.
const NOTE: &str = "#!/bin/sh\necho \"$QUERY_STRING\" >> /tmp/effects\nsleep 1\nprintf 'content-type: text/plain\\r\\n\\r\\nok\\n'\n";

pub(super) fn scenario(program: &Path) -> Scenario {
    let mut scenario = three_with_workers(
        program,
        "workflow-failover",
        "fifty workflows with effects elsewhere; the node that runs most of them loses power, all finish, no effect is lost or doubled",
        |run| -> ScenarioFuture<'_> { Box::pin(steps(run)) },
    );
    let serve = format!(
        "mkdir -p /tmp/www/cgi-bin && printf '%s' '{}' > /tmp/www/cgi-bin/note && chmod +x /tmp/www/cgi-bin/note && exec httpd -f -p 80 -h /tmp/www",
        NOTE.replace('\'', "'\\''")
    );
    scenario.topology.machines.push(MachineConfig {
        services: vec![ServiceSpec::new("effects", ["sh", "-c", &serve])],
        ..MachineConfig::new(SERVER)
    });
    scenario
}

/// One of the fifty.
struct Workflow {
    id: String,
    number: usize,
    idempotent: bool,
}

async fn steps(run: &Run) -> Outcome {
    let cluster = &Cluster::new(&run.lab);
    let server = run.lab.node(SERVER);
    let dies = cluster.node(DIES);
    cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
    run.step("the module is deployed on node2, and nowhere else", async {
        server.wait_for_open_port(80, RUNS_ALLOWED).await?;
        workflows::deploy(dies).await
    })
    .await?;
    let begun = run
        .step(
            "node2 takes fifty workflows, each of which asks for a, b and c",
            async {
                let begun = try_join_all((0..WORKFLOWS).map(async |number| {
                    let idempotent = number % 2 == 0;
                    let url = format!("http://{SERVER}/cgi-bin/note?{number}");
                    let input = json!({ "url": url, "idempotent": idempotent });
                    let id = workflows::start(dies, "crash", input).await?;
                    Ok::<_, mvm_lab::scenario::Failure>(Workflow {
                        id,
                        number,
                        idempotent,
                    })
                }));
                let begun = begun.await?;
                wait::until("half of them have asked for a", RUNS_ALLOWED, || async {
                    match effects(run).await {
                        Ok(seen) => {
                            let asked = seen.keys().filter(|line| line.ends_with("/a")).count();
                            match asked * 2 >= WORKFLOWS {
                                true => Seen::Done(()),
                                false => Seen::NotYet(format!("{asked} have")),
                            }
                        }
                        Err(failure) => Seen::NotYet(failure.message),
                    }
                })
                .await?;
                Ok(begun)
            },
        )
        .await?;
    let ids: Vec<String> = begun.iter().map(|workflow| workflow.id.clone()).collect();
    let (most, had) = owners(cluster, &ids).await?;
    let survivors = cluster.others(&most);
    run.step(
        &format!("{most}, which runs {had} of them, loses power; the others finish all"),
        async {
            let began = Instant::now();
            cluster.node(&most).crash().await;
            cluster.agree(&survivors, AGREE_ALLOWED).await?;
            let election = began.elapsed();
            workflows::all_complete(cluster.node(survivors[0]), &ids).await?;
            run.note(format!(
                "{most} had {had} of {WORKFLOWS} workflows; all had finished {:.1} s after it lost power, of which {:.1} s went by until all agreed on a leader; \
                 a lease takes {} s",
                began.elapsed().as_secs_f64(),
                election.as_secs_f64(),
                LEASE.as_secs()
            ));
            Ok(())
        },
    )
    .await?;
    run.step("the server was asked as often as promised", async {
        let seen = effects(run).await?;
        let mut interrupted = 0;
        for workflow in &begun {
            let count = |what: &str| seen.get(&format!("{}/{what}", workflow.number)).copied().unwrap_or(0);
            let told = workflows::response(cluster.node(survivors[0]), &workflow.id).await?;
            for (what, idempotent) in [("a", false), ("b", workflow.idempotent), ("c", false)] {
                let asked = count(what);
                let told = told[what].as_str().unwrap_or_default();
                interrupted += usize::from(told == "RequestInterrupted");
                let promised = match (idempotent, told) {
                    (true, "200") => asked >= 1,
                    // Whether it arrived is what nobody knows.
                    (false, "RequestInterrupted") => asked <= 1,
                    (false, "200") => asked == 1,
                    _ => false,
                };
                ensure!(
                    promised,
                    "workflow {} was told {told:?} of {what}, for which the server was asked {asked} times",
                    workflow.number
                );
            }
        }
        run.note(format!(
            "{} effects on the server; {interrupted} requests were interrupted and not sent again",
            seen.values().sum::<usize>()
        ));
        Ok(())
    })
    .await
}

/// The node that runs most of these, and how many.
async fn owners(cluster: &Cluster<'_>, ids: &[String]) -> Outcome<(String, usize)> {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for id in ids {
        if let Some(owner) = workflows::owner(cluster.node(DIES), id).await? {
            *counts.entry(owner).or_default() += 1;
        }
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    let (owner, count) = most.unwrap_or((cluster.id_of(DIES), 0));
    ensure!(count > 0, "no node runs any workflow");
    Ok((cluster.name_of(owner), count))
}

/// What the server was asked, and how often.
async fn effects(run: &Run) -> Outcome<BTreeMap<String, usize>> {
    let server = run.lab.node(SERVER);
    let told = server
        .succeed("cat /tmp/effects 2> /dev/null || true")
        .await?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for line in told.lines() {
        *counts.entry(line.to_owned()).or_default() += 1;
    }
    Ok(counts)
}
