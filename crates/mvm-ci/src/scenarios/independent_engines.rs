//! `independent-engines`: each node has an engine of its own. One that stops leaves the others and what they run untouched, and none
//! uses anything of another's: each has its own cache, its own secrets, and no path that others see.

use std::path::Path;

use mvm_lab::{
    ensure,
    scenario::{Failure, Outcome, Run, Scenario, ScenarioFuture},
    topology::{GuestContent, GuestFile},
    wait::{self, Seen},
};
use serde_json::{Value, json};

use super::{
    api,
    cluster_nodes::{AGREE_ALLOWED, Cluster, FORM_ALLOWED, SERVICE, STOP_GRACE, three_nodes},
    workflows::{self, RUNS_ALLOWED},
};

/// Where a node's secrets are.
const SECRETS: &str = "/etc/mvm-ci.secrets";

pub(super) fn scenario(program: &Path) -> Scenario {
    let mut scenario = three_nodes(
        program,
        "independent-engines",
        "each node's engine is its own: one stops, the others go on untouched; no path or secret is shared",
        |run| -> ScenarioFuture<'_> { Box::pin(steps(run)) },
    );
    for machine in &mut scenario.topology.machines {
        let secret = GuestFile {
            content: GuestContent::Text(format!("WHERE=on {}\n", machine.name)),
            mode: 0o600,
        };
        machine.provision.files.insert(SECRETS.into(), secret);
        for service in &mut machine.services {
            let setting = ("MVM_CI_FLOW_SECRETS".to_owned(), SECRETS.to_owned());
            service.environment.extend([setting]);
        }
    }
    scenario
}

async fn steps(run: &Run) -> Outcome {
    let cluster = &Cluster::new(&run.lab);
    cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
    let listeners = run
        .step(
            "each node has an engine on port 27288, and runs a workflow",
            async {
                workflows::deploy(cluster.node("node1")).await?;
                let mut listeners = Vec::new();
                for name in cluster.names() {
                    // Its others would take what node1 does not; each is awaited before the next.
                    let id = workflows::start(cluster.node(name), "listens", Value::Null).await?;
                    listeners.push(id);
                }
                for (name, id) in cluster.names().into_iter().zip(&listeners) {
                    waiting(cluster, name, id).await?;
                }
                Ok(listeners)
            },
        )
        .await?;
    run.step(
        "no engine has a path of another's: all it has open is its own machine's",
        async {
            for name in cluster.names() {
                let open = "for fd in /proc/$(pidof mvm-ci)/fd/*; do readlink $fd; done";
                let open = cluster.node(name).succeed(open).await?;
                let shared: Vec<_> = open
                    .lines()
                    .filter(|path| path.starts_with("/tmp/shared"))
                    .collect();
                ensure!(shared.is_empty(), "{name} has open {shared:?}");
                ensure!(
                    open.lines().any(|path| path.starts_with("/data/mvm-ci/")),
                    "{name} has none of its data open: {open}"
                );
            }
            Ok(())
        },
    )
    .await?;
    run.step(
        "the engine of node3 stops; those of node1 and node2 do not notice",
        async {
            let before = runs(cluster, &["node1", "node2"]).await?;
            let how = cluster
                .node("node3")
                .stop_service(SERVICE, STOP_GRACE)
                .await?;
            ensure!(how == "exit code 0", "node3's service ended with {how}");
            cluster.agree(&["node1", "node2"], AGREE_ALLOWED).await?;
            for (name, id) in ["node1", "node2"].into_iter().zip(&listeners) {
                let apple = json!({ "type": "apple", "data": json!({ "weight": 1 }).to_string() });
                let path = format!("/api/workflow/send-msg/{id}");
                let node = cluster.node(name);
                wait::until("a message is taken", AGREE_ALLOWED, || async {
                    match api::flow(node, "POST", &path, Some(apple.clone().into())).await {
                        Ok(answer) if answer.status == 200 => Seen::Done(()),
                        Ok(answer) => Seen::NotYet(answer.body.to_string()),
                        Err(error) => Seen::NotYet(error.to_string()),
                    }
                })
                .await?;
                logs(cluster, name, id, "an apple of 1").await?;
            }
            let after = runs(cluster, &["node1", "node2"]).await?;
            ensure!(
                before.0 == after.0 && after.1 >= before.1,
                "processes {before:?} before, {after:?} after"
            );
            Ok(())
        },
    )
    .await?;
    run.step("each engine gives out its own secrets", async {
        cluster.node("node3").start_service(SERVICE).await?;
        cluster.agree(&cluster.names(), FORM_ALLOWED).await?;
        for name in cluster.names() {
            let input = json!({ "url": "http://127.0.0.1:1/", "secret": "WHERE", "sleep_ms": 0, "wait_ms": 0 });
            let node = cluster.node(name);
            let id = workflows::start(node, "everything", input).await?;
            workflows::all_complete(node, std::slice::from_ref(&id)).await?;
            let owner = workflows::owner(node, &id).await?.unwrap_or_default();
            let told = workflows::response(node, &id).await?;
            let expected = format!("on {}", cluster.name_of(owner));
            ensure!(
                told["secret"] == expected,
                "the engine of {} gave out {}",
                cluster.name_of(owner),
                told["secret"]
            );
        }
        Ok(())
    })
    .await
}

/// Waits until a workflow waits, as a node says.
async fn waiting(cluster: &Cluster<'_>, name: &str, id: &str) -> Outcome {
    let waits = wait::until("the workflow waits", RUNS_ALLOWED, || async {
        match workflows::shown(cluster.node(name), id).await {
            Ok(shown) if shown["state"] == "waiting" => Seen::Done(()),
            Ok(shown) => Seen::NotYet(shown.to_string()),
            Err(seen) => Seen::NotYet(seen),
        }
    });
    Ok(waits.await?)
}

/// Waits until a workflow has logged a line.
async fn logs(cluster: &Cluster<'_>, name: &str, id: &str, line: &str) -> Outcome {
    let path = format!("/api/v1/workflows/{id}/logs");
    let logged = wait::until("the workflow logs", RUNS_ALLOWED, || async {
        match api::flow(cluster.node(name), "GET", &path, None).await {
            Ok(answer) => {
                let lines = answer.body.as_array().into_iter().flatten();
                match lines.into_iter().any(|known| known["text"] == line) {
                    true => Seen::Done(()),
                    false => Seen::NotYet(answer.body.to_string()),
                }
            }
            Err(error) => Seen::NotYet(error.to_string()),
        }
    });
    Ok(logged.await?)
}

/// The processes of these nodes' services, and how many runs their engines have begun.
async fn runs(cluster: &Cluster<'_>, names: &[&str]) -> Outcome<(Vec<String>, u64)> {
    let (mut processes, mut begun) = (Vec::new(), 0);
    for name in names {
        let node = cluster.node(name);
        processes.push(node.succeed("pidof mvm-ci").await?);
        let metrics = node
            .succeed("wget -q -O - http://127.0.0.1:27288/metrics")
            .await?;
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("mvm_ci_flow_runs_total "));
        let count = line.and_then(|count| count.trim().parse::<u64>().ok());
        begun +=
            count.ok_or_else(|| Failure::broken(format!("{name} counts no runs: {metrics}")))?;
    }
    Ok((processes, begun))
}
