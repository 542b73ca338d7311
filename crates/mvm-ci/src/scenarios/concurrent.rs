//! `concurrent`: a thousand jobs on all nodes at once, some of them under one key on two nodes.

use std::{path::Path, time::Duration};

use mvm_check::{Ends, Event, Plan, Rules};
use mvm_lab::{
    ensure,
    scenario::{Outcome, Run, Scenario, ScenarioFuture},
};

use super::{
    cluster_nodes::{AGREE_ALLOWED, Cluster, LEASE, three_nodes},
    judged::Judged,
};

const SUBMITTERS: u64 = 24;
const JOBS_EACH: u64 = 40;
/// Each under a key that is submitted to two nodes.
const SHARED: u64 = 40;
const JOBS: u64 = SUBMITTERS * JOBS_EACH + SHARED;

pub(super) fn scenario(program: &Path) -> Scenario {
    three_nodes(
        program,
        "concurrent",
        "1,000 jobs from all nodes at once, some under one key on two nodes: each is listed once everywhere",
        |run| -> ScenarioFuture<'_> { Box::pin(steps(run)) },
    )
}

async fn steps(run: &Run) -> Outcome {
    let cluster = &Cluster::new(&run.lab);
    let judged = &Judged::new(run, cluster);
    cluster.agree(&cluster.names(), AGREE_ALLOWED).await?;
    let plan = Plan {
        seed: judged.seed(),
        nodes: 3,
        submitters: SUBMITTERS,
        jobs_each: JOBS_EACH,
        until_calm: false,
        shared_jobs: SHARED,
        workers: 0,
        pace: Duration::ZERO,
        lease: LEASE,
        misbehave: false,
        reads_one_in: 0,
    };
    let rules = Rules {
        lease: None,
        ends: Ends::Kept,
    };
    run.step(
        "1,000 jobs from all nodes at once: each is listed once everywhere",
        async {
            let nothing = async { Ok(()) };
            let ((), history) = judged.during(&plan, rules, nothing).await?;
            let operations = history.operations();
            let last = operations
                .iter()
                .filter_map(|operation| operation.returned.as_ref().map(|(at, _)| *at));
            let took = last.max().unwrap_or_default().since(mvm_check::At(0));
            run.note(format!(
                "{} submissions of {JOBS} jobs in {:.1} s, {:.0} each second",
                operations.len(),
                took.as_secs_f64(),
                operations.len() as f64 / took.as_secs_f64()
            ));
            for event in history.events() {
                if let Event::Final { node, state } = event {
                    let listed = state.jobs.len() as u64;
                    ensure!(listed == JOBS, "{node} lists {listed} jobs, not {JOBS}");
                }
            }
            Ok(())
        },
    )
    .await
}
