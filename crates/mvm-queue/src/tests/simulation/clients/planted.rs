//! Many seeds without a complaint, and for each invariant a bug or a lie that is found as what it is.

use mvm_check::{Invariant, Violation};

use super::{Bug, Cluster, Lie};

fn run(seed: u64, bug: Option<Bug>, lie: Option<Lie>) -> Vec<Violation> {
    let judged = Cluster::new(seed, bug, lie).run();
    judged.unwrap_or_else(|broken| panic!("seed {seed}: {broken}"))
}

#[test]
fn clients_see_nothing_that_breaks_a_promise() {
    let threads = 2;
    let found: Vec<String> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..threads)
            .map(|part| {
                scope.spawn(move || {
                    let seeds = (0..2_000_u64).filter(|seed| seed % threads == part);
                    let told = |seed| {
                        let violations = run(seed, None, None).into_iter();
                        violations.map(move |violation| format!("seed {seed}: {violation}"))
                    };
                    seeds.flat_map(told).collect::<Vec<_>>()
                })
            })
            .collect();
        let found = runs.into_iter().flat_map(|run| run.join().unwrap());
        found.collect()
    });
    assert!(
        found.is_empty(),
        "{} violations: {:#?}",
        found.len(),
        &found[..found.len().min(5)]
    );
}

/// The checker finds a planted bug, or a lie, as what it is.
#[track_caller]
fn check(bug: Option<Bug>, lie: Option<Lie>, expected: Invariant) {
    let mut found = (0..300).flat_map(|seed| run(seed, bug, lie));
    let as_expected = found.find(|violation| violation.invariant == expected);
    let violation =
        as_expected.unwrap_or_else(|| panic!("{bug:?} {lie:?} did not show as {expected:?}"));
    println!("{violation}");
}

#[test]
fn an_acknowledged_job_that_is_dropped_or_stuck_is_found() {
    let lie = Some(Lie::AcknowledgesAndDrops);
    check(None, lie, Invariant::AcknowledgedEnds);
    check(Some(Bug::LosesLostJobs), None, Invariant::AcknowledgedEnds);
}

#[test]
fn a_second_completion_is_found() {
    check(
        None,
        Some(Lie::AcceptsCompletions),
        Invariant::CompletedOnce,
    );
}

#[test]
fn two_leases_are_found() {
    check(Some(Bug::GrantsTwice), None, Invariant::OneLease);
    check(Some(Bug::IgnoresTokens), None, Invariant::OneLease);
    check(None, Some(Lie::EndsLeasesEarly), Invariant::OneLease);
}

#[test]
fn a_token_that_does_not_grow_is_found() {
    check(Some(Bug::RepeatsTokens), None, Invariant::TokensGrow);
}

#[test]
fn a_refusal_that_was_applied_is_found() {
    let lie = Some(Lie::AppliesWhatItRefuses);
    check(None, lie, Invariant::RefusedNeverApplied);
}

#[test]
fn a_minority_that_acknowledges_is_found() {
    let lie = Some(Lie::AcknowledgesAlone);
    check(None, lie, Invariant::MinorityNeverAcknowledges);
}

#[test]
fn nodes_that_disagree_are_found() {
    check(None, Some(Lie::ForgetsAJob), Invariant::NodesAgree);
}

#[test]
fn two_jobs_of_a_key_are_found() {
    check(None, Some(Lie::ForgetsKeys), Invariant::OneJobPerKey);
}

#[test]
fn a_stale_list_is_found() {
    check(None, Some(Lie::ReadsStale), Invariant::ReadsAreFresh);
}

#[test]
fn an_invented_job_is_found() {
    check(None, Some(Lie::InventsAJob), Invariant::NothingInvented);
}

#[test]
fn a_failing_node_is_found() {
    check(None, Some(Lie::Fails), Invariant::NoDefect);
}
