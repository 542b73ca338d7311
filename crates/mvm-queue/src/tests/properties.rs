//! The invariants over sequences of commands that proptest can make smaller, without a cluster around them.

use proptest::prelude::*;

use super::{
    Bug,
    draw::{Draw, Drawer},
    invariants::Invariants,
    model::draws,
};
use crate::{
    job::{JobState, WaitsFor},
    queue::Queue,
};

fn run(draws: &[Draw], bug: Option<Bug>) -> Result<(), String> {
    let mut queue = Queue::new();
    queue.bug = bug;
    let mut invariants = Invariants::default();
    let mut drawer = Drawer::default();
    for draw in draws {
        let command = drawer.command(*draw, &queue);
        let _ = invariants.apply(&mut queue, &command)?;
        let lost = queue
            .jobs
            .values()
            .find(|entry| entry.job.waits_for.is_none() == (entry.job.state == JobState::Pending));
        if let Some(entry) = lost {
            return Err(format!("{:?} waits for nothing", entry.job));
        }
        let restless = queue.jobs.values().find(|entry| {
            let job = &entry.job;
            let rests = job.state == JobState::Pending && job.paused.is_some();
            rests != (job.waits_for == Some(WaitsFor::Paused))
        });
        if let Some(entry) = restless {
            return Err(format!("{:?} does not rest as asked", entry.job));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_invariants_hold(draws in proptest::collection::vec(any::<Draw>(), 1..200)) {
        if let Err(broken) = run(&draws, None) {
            return Err(TestCaseError::fail(broken));
        }
    }
}

#[test]
fn the_invariants_can_be_broken() {
    for bug in [
        Bug::ForgetsRequests,
        Bug::IgnoresKeys,
        Bug::IgnoresDependencies,
        Bug::RepeatsTokens,
        Bug::GrantsTwice,
        Bug::IgnoresTokens,
        Bug::AppendsStale,
    ] {
        let found = (0..300).find_map(|seed| run(&draws(seed, 200), Some(bug)).err());
        assert!(found.is_some(), "{bug:?} went unnoticed");
        println!("{bug:?}: {}", found.unwrap());
    }
}
