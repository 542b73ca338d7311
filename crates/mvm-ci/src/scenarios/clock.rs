//! Wall clocks that jump, while a workload runs. Leases, timeouts and pauses are the leader's monotonic clock's, so that nothing
//! may come of it.

use std::time::{SystemTime, UNIX_EPOCH};

use mvm_lab::{
    ensure,
    scenario::{Failure, Outcome},
    wait::{self, Seen},
};

use super::{api, cluster_nodes::AGREE_ALLOWED, judged::Judged};

/// How far a clock jumps.
const HOUR: i64 = 3_600;
/// What a guest's clock may differ from what it was set to: commands take their time.
const TOLERANCE: u64 = 60;
/// So many more jobs show that the cluster goes on.
const JOBS: u64 = 5;

/// Sets clocks an hour forth and back, the leader's first, and leaves them hours apart. After each jump jobs go on completing,
/// under the same leader.
pub(super) async fn jumps(judged: &Judged<'_>) -> Outcome {
    let cluster = judged.cluster;
    let before = cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
    let leader = before.leader.unwrap_or_default();
    let others = cluster.others(&leader);
    for (name, hours) in [
        (leader.as_str(), 1),
        (&leader, -1),
        (others[0], -1),
        (others[0], 1),
        (others[1], 1),
        (others[1], -1),
    ] {
        let role = match name == leader {
            true => "the leader",
            false => "a follower",
        };
        let what = format!("the clock of {name}, {role}, is {hours:+} h off");
        judged.happens(what.clone());
        set(judged, name, hours).await?;
        goes_on(judged, name).await?;
        judged.run.note(format!("{what}: jobs go on completing"));
    }
    let after = cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
    ensure!(
        after.term == before.term,
        "clocks that jumped brought term {} after term {}",
        after.term,
        before.term
    );
    Ok(())
}

/// Sets a guest's wall clock so many hours off.
async fn set(judged: &Judged<'_>, name: &str, hours: i64) -> Outcome {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_err(|error| Failure::trouble(&error))?;
    let wanted = now.as_secs().saturating_add_signed(hours * HOUR);
    let node = judged.cluster.node(name);
    let told = node
        .succeed(&format!("date -s @{wanted} > /dev/null && date +%s"))
        .await?;
    let is: u64 = told.trim().parse().unwrap_or_default();
    ensure!(
        is.abs_diff(wanted) < TOLERANCE,
        "the clock of {name} was set to {wanted} and is {is}"
    );
    Ok(())
}

/// Waits until more jobs have completed, as the node itself sees it.
async fn goes_on(judged: &Judged<'_>, name: &str) -> Outcome {
    let at_least = |wanted: u64| async move {
        match completed(judged, name).await {
            Ok(count) if count >= wanted => Seen::Done(count),
            Ok(count) => Seen::NotYet(format!("{count} jobs have completed, not {wanted}")),
            Err(seen) => Seen::NotYet(seen),
        }
    };
    let before = wait::until("it tells", AGREE_ALLOWED, || at_least(0)).await?;
    wait::until("jobs go on completing", AGREE_ALLOWED, || {
        at_least(before + JOBS)
    })
    .await?;
    Ok(())
}

async fn completed(judged: &Judged<'_>, name: &str) -> Result<u64, String> {
    let answer = api::get(judged.cluster.node(name), "/api/v1/stats").await;
    let answer = answer.map_err(|error| error.to_string())?;
    let count = answer.body["counts"]["completed"].as_u64();
    count.ok_or_else(|| format!("{name} answered {}: {}", answer.status, answer.body))
}
