//! `latency`: first a network as between cities, then one as from the other side of the world and worse.
//!
//! What a green run does not prove: that no election happens on a host that stands still for longer than an election
//! timeout. Where a machine was silent for so long, the verdict is unknown.

use std::{path::Path, time::Duration};

use mvm_lab::network::{Delay, Jitter, Latency};
use mvm_lab::{
    scenario::{Failure, Outcome, Run, Scenario, ScenarioFuture},
    verdict::Verdict,
};

use super::{
    cluster_nodes::{AGREE_ALLOWED, Cluster, three_nodes},
    writes,
};

/// Each way, so that a round trip takes twice as long.
const CITIES: Duration = Duration::from_millis(50);
const WORLD_MS: u64 = 400;
const WORLD_SPREAD_MS: u64 = 100;
/// How long each network lasts.
const LASTS: Duration = Duration::from_secs(15);
/// Elections begin after 1 to 2 s without a heartbeat; a machine that was silent for half of the least of it may have
/// missed one for its host's sake.
const SILENCE_MAX: Duration = Duration::from_millis(500);

pub(super) fn scenario(program: &Path) -> Scenario {
    three_nodes(
        program,
        "latency",
        "50 ms each way: no election; 400 ms with jitter: service or honest refusal",
        |run| -> ScenarioFuture<'_> { Box::pin(steps(run)) },
    )
}

async fn steps(run: &Run) -> Outcome {
    let cluster = &Cluster::new(&run.lab);
    let network = run.lab.network();
    let before = cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
    run.step("50 ms each way: writes are accepted, nobody calls an election", async {
        network.all().delay(CITIES)?;
        let (after, writes) = writes::during(cluster, "cities", lasting(cluster)).await?;
        run.note(writes.to_string());
        let elections = after.saturating_sub(before.term);
        if elections > 0 {
            let verdict = match writes.longest_silence > SILENCE_MAX {
                true => Verdict::Unknown,
                false => Verdict::Failed,
            };
            return Err(Failure {
                verdict,
                message: format!(
                    "{elections} elections at {CITIES:?} each way; the longest silence of a machine was {:?}",
                    writes.longest_silence
                ),
            });
        }
        cluster.all_list_the_same(&cluster.names()).await
    })
    .await?;
    run.step(
        "400 ms each way with jitter: accepted or refused, never a lie",
        async {
            network.all().delay_with(Delay {
                base: Latency::from_millis(WORLD_MS).map_err(|error| Failure::trouble(&error))?,
                jitter: Jitter::Uniform {
                    spread: Latency::from_millis(WORLD_SPREAD_MS)
                        .map_err(|error| Failure::trouble(&error))?,
                },
            })?;
            let (after, writes) = writes::during(cluster, "world", lasting(cluster)).await?;
            run.note(writes.to_string());
            run.note(format!("{} elections", after.saturating_sub(before.term)));
            Ok(())
        },
    )
    .await?;
    run.step("no delay: all agree and list the same jobs", async {
        network.all().clear()?;
        cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
        cluster.all_list_the_same(&cluster.names()).await
    })
    .await
}

/// Waits as long as a network lasts; returns the highest term that a node knows then.
async fn lasting(cluster: &Cluster<'_>) -> Outcome<u64> {
    tokio::time::sleep(LASTS).await;
    let mut highest = 0;
    for name in cluster.names() {
        let view = cluster.view(name).await.map_err(Failure::broken)?;
        highest = highest.max(view.term);
    }
    Ok(highest)
}
