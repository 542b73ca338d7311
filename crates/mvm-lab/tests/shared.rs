//! The folder that machines and host have in common, on real machines: whoever writes, all others read at once.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use mvm_lab::{
    ensure,
    scenario::{Outcome, Run, ScenarioFuture},
    topology::MemoryPlan,
};
use support::{check, two_machines};

async fn steps(run: &Run) -> Outcome {
    run.lab.start_all().await?;
    let [node1, node2] = ["node1", "node2"].map(|name| run.lab.node(name));
    let host = run.folder.shared();
    node1.succeed("echo one > /tmp/shared/a").await?;
    let read = node2.succeed("cat /tmp/shared/a").await?;
    ensure!(read == "one\n", "{read:?}");
    ensure!(std::fs::read(host.join("a")).unwrap() == b"one\n", "the host reads something else");
    Ok(())
}

#[test]
fn whoever_writes_all_others_read() {
    let warnings = check("shared", two_machines(MemoryPlan::Shared), |run| -> ScenarioFuture<'_> {
        Box::pin(steps(run))
    });
    assert_eq!(warnings, [""; 0]);
}
