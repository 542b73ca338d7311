//! Checkpoints of real machines: what goes on, what is as it was, what is refused.
//!
//! What a green run does not prove: that nothing is lost on a loaded host (a guest that does not read loses frames,
//! as it would behind a real switch), and anything about programs that look at the wall clock.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use mvm_lab::{
    checkpoint::{CheckpointError, WallClock},
    ensure,
    lab::Lab,
    scenario::{Failure, Outcome, Preparation, Run, Scenario, ScenarioFuture},
    service::ServiceSpec,
    topology::{MachineConfig, MemoryPlan, Topology},
};
use support::{ALLOWED, check_scenario, two_machines};

/// node2 counts aloud to node1 over one TCP connection; node1 writes down what it hears.
const HEAR: &str = "tail -f /dev/null | nc -l -p 7000 > /tmp/heard";
/// Begins at 1 with each connection; only the first that is accepted goes on.
const COUNT: &str = "until i=0; while i=$((i+1)) && echo $i; do usleep 20000; done | nc node1 7000; do usleep 50000; done";

fn topology(memory: MemoryPlan) -> Topology {
    let service = |name: &str, script: &str| ServiceSpec::new(name, ["sh", "-c", script]);
    let mut topology = two_machines(memory);
    let machines = &mut topology.machines;
    machines[0].services.push(service("hear", HEAR));
    machines[1].services.push(service("count", COUNT));
    machines[1]
        .services
        .push(service("done", "echo done; exit 3"));
    topology
}

fn scenario(
    name: &'static str,
    memory: MemoryPlan,
    run: for<'a> fn(&'a Run) -> ScenarioFuture<'a>,
) -> Scenario {
    Scenario {
        name: name.into(),
        about: "a test of checkpoints".into(),
        topology: topology(memory),
        prepare: None,
        run: Box::new(run),
    }
}

/// Waits until node1 has heard at least `count` numbers; returns how many there are.
async fn heard(lab: &Lab, count: usize) -> Outcome<usize> {
    let command = format!("test $(wc -l < /tmp/heard) -ge {count} && wc -l < /tmp/heard");
    let told = lab
        .node("node1")
        .wait_until_succeeds(&command, ALLOWED)
        .await?;
    told.trim()
        .parse()
        .map_err(|_| Failure::broken(format!("{told:?} is no count")))
}

/// How services ended is known before a checkpoint, after it, and after a restore; what runs, runs.
async fn ends_are_known(lab: &Lab) -> Outcome {
    let node2 = lab.node("node2");
    let ended = || async {
        match node2.service_ended("done").await {
            Some(how) => mvm_lab::wait::Seen::Done(how),
            None => mvm_lab::wait::Seen::NotYet("it runs".to_owned()),
        }
    };
    let how = node2.wait_for("the end of service done", ALLOWED, ended);
    let how = how.await?;
    ensure!(how == "exit code 3", "it ended with {how}");
    let count = node2.service_ended("count").await;
    ensure!(count.is_none(), "count ended: {count:?}");
    Ok(())
}

/// Every number once and in order: the connection lost and doubled nothing.
async fn heard_all_in_order(lab: &Lab) -> Outcome {
    let wrong = "awk '$1 != NR && $1 != \"\" { print NR \": \" $0; exit 1 }' /tmp/heard";
    lab.node("node1").succeed(wrong).await?;
    Ok(())
}

async fn the_parent_goes_on_and_two_restores_are_alike(run: &Run) -> Outcome {
    let lab = &run.lab;
    lab.start_all().await?;
    heard(lab, 20).await?;
    let node2 = lab.node("node2");
    node2.succeed("echo before > /data/mark && sync").await?;
    lab.network().cut("node1", "node2")?;
    lab.network().heal("node1", "node2")?;

    ends_are_known(lab).await?;
    lab.checkpoint("counting").await?;
    ends_are_known(lab).await?;
    let at_checkpoint = heard(lab, 1).await?;
    node2.succeed("echo after > /data/mark && sync").await?;
    heard(lab, at_checkpoint + 50).await?;
    heard_all_in_order(lab).await?;

    for _ in 0..2 {
        lab.restore("counting", WallClock::Now).await?;
        // Read at once: the guests must stand where they stood, give or take the moment of asking.
        let now = heard(lab, 1).await?;
        ensure!(
            now < at_checkpoint + 50,
            "{now} were heard right after the restore, {at_checkpoint} at the checkpoint"
        );
        ends_are_known(lab).await?;
        let mark = lab.node("node2").succeed("cat /data/mark").await?;
        ensure!(mark.trim() == "before", "the disk says {mark:?}");
        heard(lab, now + 50).await?;
        heard_all_in_order(lab).await?;
    }
    Ok(())
}

#[test]
fn own_memory() {
    check_scenario(scenario("own-memory", MemoryPlan::Own, |run| {
        Box::pin(the_parent_goes_on_and_two_restores_are_alike(run))
    }));
}

/// The detour: the memories are shared with others and must be put together.
#[test]
fn shared_memory() {
    check_scenario(scenario("shared-memory", MemoryPlan::Shared, |run| {
        Box::pin(the_parent_goes_on_and_two_restores_are_alike(run))
    }));
}

async fn forks_do_not_see_each_other(run: &Run) -> Outcome {
    let lab = &run.lab;
    lab.start_all().await?;
    heard(lab, 20).await?;
    lab.node("node2")
        .succeed("echo parent > /data/mark && sync")
        .await?;
    lab.checkpoint("counting").await?;
    let forks = lab.fork("counting", 2, WallClock::Now).await?;
    let mut random = Vec::new();
    for (number, fork) in forks.iter().enumerate() {
        let node2 = fork.node("node2");
        random.push(node2.succeed("head -c 16 /dev/urandom | md5sum").await?);
        let mark = format!("cat /data/mark; echo fork{number} > /data/mark; sync");
        let mark = node2.succeed(&mark).await?;
        ensure!(mark.trim() == "parent", "fork {number} found {mark:?}");
    }
    ensure!(random[0] != random[1], "two forks drew {:?}", random[0]);
    for fork in forks.iter().chain([lab]) {
        let now = heard(fork, 1).await?;
        heard(fork, now + 20).await?;
        heard_all_in_order(fork).await?;
    }
    let mark = lab.node("node2").succeed("cat /data/mark").await?;
    ensure!(mark.trim() == "parent", "the parent's disk says {mark:?}");
    for fork in &forks {
        fork.end().await;
    }
    Ok(())
}

#[test]
fn forks() {
    check_scenario(scenario("forks", MemoryPlan::Own, |run| {
        Box::pin(forks_do_not_see_each_other(run))
    }));
}

async fn what_is_under_way_is_not_torn(run: &Run) -> Outcome {
    let lab = &run.lab;
    lab.start_all().await?;
    let node1 = lab.node("node1");
    let command = async { Ok::<_, Failure>(node1.succeed("sleep 5; echo whole").await?) };
    let checkpoint = async {
        node1.wait_until_succeeds("pidof sleep", ALLOWED).await?;
        match lab.checkpoint("busy").await {
            Err(CheckpointError::Busy { machine, .. }) if machine == "node1" => Ok(()),
            other => Err(Failure::broken(format!("not refused but {other:?}"))),
        }
    };
    let (output, refused) = tokio::join!(command, checkpoint);
    refused?;
    ensure!(output?.trim() == "whole", "the command was torn");

    node1.pause().await?;
    let refused = lab.checkpoint("paused").await;
    ensure!(
        matches!(refused, Err(CheckpointError::Paused { .. })),
        "a paused machine: {refused:?}"
    );
    node1.resume().await?;
    node1.succeed("true").await?;
    lab.node("node2").succeed("true").await?;

    let unknown = lab.restore("never taken", WallClock::Now).await;
    ensure!(
        matches!(&unknown, Err(CheckpointError::Unknown { name, .. }) if name == "never taken"),
        "an unknown name: {unknown:?}"
    );
    node1.succeed("true").await?;
    Ok(())
}

#[test]
fn refusals() {
    check_scenario(scenario("refusals", MemoryPlan::Shared, |run| {
        Box::pin(what_is_under_way_is_not_torn(run))
    }));
}

async fn a_partition_and_the_wall_clock_are_kept(run: &Run) -> Outcome {
    let lab = &run.lab;
    lab.start_all().await?;
    let node2 = lab.node("node2");
    node2.succeed("ping -c 1 -W 5 node1").await?;
    lab.network().isolate("node2")?;
    node2.succeed("date -s 2001-02-03 > /dev/null").await?;
    lab.checkpoint("partitioned").await?;
    lab.network().heal_all()?;
    node2
        .wait_until_succeeds("ping -c 1 -W 1 node1", ALLOWED)
        .await?;

    lab.restore("partitioned", WallClock::Continues).await?;
    node2.fail("ping -c 1 -W 1 node1").await?;
    node2.fail("ping -6 -c 1 -W 1 node1").await?;
    let year = node2.succeed("date +%Y").await?;
    ensure!(year.trim() == "2001", "the clock did not go on: {year}");
    lab.network().heal_all()?;
    node2
        .wait_until_succeeds("ping -c 1 -W 1 node1", ALLOWED)
        .await?;

    lab.restore("partitioned", WallClock::Now).await?;
    let year = node2.succeed("date +%Y").await?;
    ensure!(year.trim() != "2001", "the clock was not set: {year}");
    Ok(())
}

#[test]
fn partition_and_clock() {
    check_scenario(scenario("partition-and-clock", MemoryPlan::Shared, |run| {
        Box::pin(a_partition_and_the_wall_clock_are_kept(run))
    }));
}

static PREPARED: AtomicUsize = AtomicUsize::new(0);

/// A scenario whose machines are prepared by writing a file.
fn prepared_scenario() -> Scenario {
    Scenario {
        prepare: Some(Preparation {
            name: "marked",
            run: |run| {
                Box::pin(async {
                    PREPARED.fetch_add(1, Ordering::Relaxed);
                    run.lab.start_all().await?;
                    run.lab
                        .node("prepared")
                        .succeed("echo prepared > /tmp/mark")
                        .await?;
                    Ok(())
                })
            },
        }),
        topology: Topology::new(vec![MachineConfig::new("prepared")]),
        ..scenario("prepared", MemoryPlan::Shared, |run| {
            Box::pin(async {
                let mark = run
                    .lab
                    .node("prepared")
                    .succeed("cat /tmp/mark; echo used > /tmp/mark");
                let mark = mark.await?;
                ensure!(mark.trim() == "prepared", "the mark says {mark:?}");
                Ok(())
            })
        })
    }
}

#[test]
fn preparing_is_done_once_and_again_when_its_checkpoint_is_damaged() {
    let first = check_scenario(prepared_scenario());
    assert_eq!(first, [""; 0]);
    let once = PREPARED.load(Ordering::Relaxed);
    assert_eq!(check_scenario(prepared_scenario()), [""; 0]);
    assert_eq!(
        PREPARED.load(Ordering::Relaxed),
        once,
        "it was prepared again"
    );

    let damaged = damage_newest_checkpoint_of("prepared.ram");
    let warnings = check_scenario(prepared_scenario());
    assert_eq!(
        PREPARED.load(Ordering::Relaxed),
        once + 1,
        "{damaged:?} was believed"
    );
    assert!(
        warnings
            .iter()
            .any(|warning| warning.contains("prepared.ram")),
        "{warnings:?}"
    );
}

/// Cuts a memory file of the checkpoint that was used last.
fn damage_newest_checkpoint_of(file: &str) -> std::path::PathBuf {
    let cache = mvm_machine::cache::Cache::for_user().unwrap();
    let checkpoints = std::fs::read_dir(cache.root().join("checkpoints")).unwrap();
    let used = |path: &std::path::PathBuf| path.metadata().unwrap().modified().unwrap();
    let newest = checkpoints
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join(file).exists())
        .max_by_key(used)
        .unwrap();
    let memory = std::fs::File::options()
        .write(true)
        .open(newest.join(file))
        .unwrap();
    memory.set_len(1 << 20).unwrap();
    newest
}
