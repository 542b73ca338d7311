//! Wall clocks that jump. Leases, timeouts and pauses are counted on the leader's monotonic clock, so nothing may come of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mvm_lab::{
    ensure,
    scenario::{Failure, Outcome},
};

use super::{cluster_nodes::AGREE_ALLOWED, judged::Judged};

/// How far a clock jumps, in seconds.
const HOUR: i64 = 3_600;
/// What a guest's clock may differ from what it was set to, in seconds: commands take their time.
const TOLERANCE: u64 = 60;
/// Whoever looked at a wall clock would have acted by then: leases are looked at every few hundred milliseconds.
const BETWEEN: Duration = Duration::from_secs(2);
/// How long [`jumps`] takes at least.
pub(super) const JUMPS_TAKE: Duration = Duration::from_secs(4 * BETWEEN.as_secs());

/// Sets the leader's clock an hour forth, then an hour back behind the right time, and the others' one each way. There they
/// stay. The leader does.
pub(super) async fn jumps(judged: &Judged<'_>) -> Outcome {
    let cluster = judged.cluster;
    let before = cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
    let leader = before.leader.unwrap_or_default();
    let others = cluster.others(&leader);
    for (name, hours) in [
        (leader.as_str(), 1),
        (&leader, -1),
        (others[0], 1),
        (others[1], -1),
    ] {
        set(judged, name, hours).await?;
        tokio::time::sleep(BETWEEN).await;
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
    let what = format!("the clock of {name} is {hours:+} h off");
    judged.happens(what.clone());
    judged.run.note(what);
    Ok(())
}
