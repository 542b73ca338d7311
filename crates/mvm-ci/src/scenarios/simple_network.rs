//! `simple-network`: three machines see one another, and a cut link is cut for just the pair it joins.

use std::time::Duration;

use mvm_lab::{
    ensure,
    lab::Lab,
    scenario::{Outcome, Run, Scenario, ScenarioFuture},
    service::ServiceSpec,
    topology::{MachineConfig, Topology},
};
use tokio::task::JoinSet;

/// The page's text: a fetch that succeeds must have fetched this.
const PAGE: &str = "a page from node1";
/// Fetches at once from each of two machines.
const SIMULTANEOUS: usize = 8;
/// Fetches the page; over a cut link it is given up after 2 s. (`wget -T` of BusyBox 1.35 crashes.)
const FETCH: &str = "timeout 2 wget -q -O - http://node1:3020/";
const ALLOWED: Duration = Duration::from_secs(20);

pub(super) fn scenario() -> Scenario {
    let mut machines: Vec<_> = ["node1", "node2", "node3"].map(MachineConfig::new).into();
    let serve = format!(
        "mkdir -p /tmp/www && echo '{PAGE}' > /tmp/www/index.html && exec httpd -f -p 3020 -h /tmp/www"
    );
    let page = ServiceSpec::new("page", ["sh", "-c", &serve]);
    machines[0].services.push(page);
    Scenario {
        name: "simple-network".into(),
        about: "three machines ping and fetch; one link is cut and healed".into(),
        topology: Topology::new(machines),
        prepare: None,
        run: Box::new(|run| -> ScenarioFuture<'_> { Box::pin(steps(run)) }),
    }
}

async fn steps(run: &Run) -> Outcome {
    let lab = &run.lab;
    let network = lab.network();
    run.step("three machines boot", async { Ok(lab.start_all().await?) })
        .await?;
    run.step("node1 serves a page on port 3020", async {
        Ok(lab.node("node1").wait_for_open_port(3020, ALLOWED).await?)
    })
    .await?;
    run.step(
        "every pair pings, over IPv4 and IPv6",
        every_pair_pings(lab),
    )
    .await?;
    run.step("node2 and node3 fetch the page from node1", async {
        fetch(lab, "node2").await?;
        fetch(lab, "node3").await
    })
    .await?;
    run.step(
        "node1 - node2 cut: node2 cannot fetch, node3 still can",
        async {
            network.cut("node1", "node2")?;
            cannot_fetch(lab, "node2").await?;
            lab.node("node1").fail("ping -c 1 -W 1 node2").await?;
            lab.node("node1").fail("ping -6 -c 1 -W 1 node2").await?;
            fetch(lab, "node3").await
        },
    )
    .await?;
    run.step("healed: node2 can fetch again", async {
        network.heal("node1", "node2")?;
        fetch(lab, "node2").await
    })
    .await?;
    run.step(
        "many fetches at once from node2 and node3",
        simultaneous(lab),
    )
    .await
}

async fn every_pair_pings(lab: &Lab) -> Outcome {
    for source in lab.nodes() {
        for target in lab.nodes().filter(|target| target.name() != source.name()) {
            for family in ["-4", "-6"] {
                source
                    .wait_until_succeeds(
                        &format!("ping {family} -c 1 -W 1 {}", target.name()),
                        ALLOWED,
                    )
                    .await?;
            }
        }
    }
    Ok(())
}

async fn fetch(lab: &Lab, name: &str) -> Outcome {
    let page = lab.node(name).wait_until_succeeds(FETCH, ALLOWED).await?;
    ensure!(
        page.trim() == PAGE,
        "{name} fetched {page:?} instead of {PAGE:?}"
    );
    Ok(())
}

async fn cannot_fetch(lab: &Lab, name: &str) -> Outcome {
    lab.node(name).fail(FETCH).await?;
    Ok(())
}

async fn simultaneous(lab: &Lab) -> Outcome {
    let mut fetching = JoinSet::new();
    for name in ["node2", "node3"] {
        for _ in 0..SIMULTANEOUS {
            let node = lab.node(name).clone();
            fetching.spawn(async move {
                node.succeed("timeout 20 wget -q -O - http://node1:3020/")
                    .await
            });
        }
    }
    while let Some(fetched) = fetching.join_next().await {
        let page = fetched.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        ensure!(page.trim() == PAGE, "a simultaneous fetch got {page:?}");
    }
    Ok(())
}
