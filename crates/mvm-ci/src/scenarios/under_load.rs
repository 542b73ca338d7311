//! `under-load`: a checkpoint taken while all three nodes are written to, restored again and again.
//!
//! What a writer was told stands in its machine's memory, and so comes back with the checkpoint: whatever was
//! acknowledged before it must still be there afterwards, once.

use std::{collections::BTreeMap, path::Path, time::Duration};

use mvm_lab::{
    checkpoint::WallClock,
    ensure,
    scenario::{Failure, Outcome, Run, Scenario, ScenarioFuture},
};

use super::cluster_nodes::{AGREE_ALLOWED, Cluster, three_nodes};

const RESTORES: usize = 10;
/// How many writes each node acknowledges before the checkpoint, and after each restore.
const WRITES: usize = 10;
/// A write takes some hundredths of a second under an emulator.
const WRITES_ALLOWED: Duration = Duration::from_secs(60);
const CHECKPOINT: &str = "under load";
/// Writes job after job to its own node until it is told to stop, and keeps what was acknowledged.
const WRITER: &str = r#"
cat > /tmp/writer <<'END'
i=0
while test ! -e /tmp/stop; do
    i=$((i + 1))
    url=https://example.org/load/$(hostname)/$i
    wget -q -O /dev/null --header 'content-type: application/json' --header "idempotency-key: $url" \
        --post-data "{\"url\": \"$url\"}" http://127.0.0.1:3020/new-job && echo $url >> /tmp/acknowledged
done
touch /tmp/stopped
END
touch /tmp/acknowledged
setsid sh /tmp/writer > /dev/null 2>&1 < /dev/null &
"#;

pub(super) fn scenario(program: &Path) -> Scenario {
    three_nodes(
        program,
        "under-load",
        "a checkpoint of three nodes that are written to, restored ten times",
        |run| -> ScenarioFuture<'_> { Box::pin(steps(run)) },
    )
}

async fn steps(run: &Run) -> Outcome {
    let cluster = &Cluster::new(&run.lab);
    let before = cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
    run.step(
        "a checkpoint is taken while all nodes are written to",
        async {
            for name in cluster.names() {
                cluster.node(name).succeed(WRITER).await?;
            }
            acknowledged_more(cluster, &BTreeMap::new()).await?;
            Ok(run.lab.checkpoint(CHECKPOINT).await?)
        },
    )
    .await?;
    run.step(
        "the parent goes on and keeps its promises",
        check(run, cluster),
    )
    .await?;
    for number in 1..=RESTORES {
        let step = format!("restored for the {number}. time: nothing missing, nothing doubled");
        run.step(&step, async {
            run.lab.restore(CHECKPOINT, WallClock::Now).await?;
            let after = cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
            ensure!(
                (after.term, &after.leader) == (before.term, &before.leader),
                "{before:?} at the checkpoint, {after:?} after it was restored"
            );
            check(run, cluster).await
        })
        .await?;
    }
    Ok(())
}

/// Lets the writers write on, stops them, and compares what they were told with what each node lists.
async fn check(run: &Run, cluster: &Cluster<'_>) -> Outcome {
    let counts = counts(cluster).await?;
    acknowledged_more(cluster, &counts).await?;
    let mut acknowledged = Vec::new();
    for name in cluster.names() {
        let node = cluster.node(name);
        node.succeed("touch /tmp/stop").await?;
        node.wait_until_succeeds("test -e /tmp/stopped", WRITES_ALLOWED)
            .await?;
        let told = node.succeed("cat /tmp/acknowledged").await?;
        acknowledged.extend(told.lines().map(str::to_owned));
    }
    cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
    for name in cluster.names() {
        let listed = cluster.listed(name).await.map_err(Failure::broken)?;
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        for url in &listed {
            *times.entry(url).or_default() += 1;
        }
        let missing: Vec<_> = acknowledged
            .iter()
            .filter(|url| !times.contains_key(url.as_str()))
            .collect();
        let doubled: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
        ensure!(
            missing.is_empty() && doubled.is_empty(),
            "{name} lists {} jobs; of {} acknowledged are missing {missing:?}, doubled {doubled:?}",
            listed.len(),
            acknowledged.len()
        );
    }
    run.note(format!(
        "{} writes acknowledged, {} of them before the writers went on",
        acknowledged.len(),
        counts.values().sum::<usize>()
    ));
    Ok(())
}

/// Waits until each node has acknowledged more writes than `than`.
async fn acknowledged_more(cluster: &Cluster<'_>, than: &BTreeMap<String, usize>) -> Outcome {
    for name in cluster.names() {
        let enough = than.get(name).copied().unwrap_or_default() + WRITES;
        let command = format!("test $(wc -l < /tmp/acknowledged) -ge {enough}");
        cluster
            .node(name)
            .wait_until_succeeds(&command, WRITES_ALLOWED)
            .await?;
    }
    Ok(())
}

/// How many writes each node has acknowledged.
async fn counts(cluster: &Cluster<'_>) -> Outcome<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for name in cluster.names() {
        let told = cluster
            .node(name)
            .succeed("wc -l < /tmp/acknowledged")
            .await?;
        let count = told.trim().parse();
        let count = count.map_err(|_| Failure::broken(format!("{told:?} is no count")))?;
        counts.insert(name.to_owned(), count);
    }
    Ok(counts)
}
