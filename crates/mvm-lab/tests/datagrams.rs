//! Numbered UDP datagrams through a checkpoint and its restores, over the machines' real cards.
//!
//! No number may come twice, ever. None may be missing where the host is idle: a guest that does not read in
//! time loses frames, as it would behind a real switch, so on a loaded host what is missing is told and not judged.
//! Alone in its program, so that no other test loads the host. What a green run does not prove: the same for rates
//! that fill queues; the numbers come a hundred times a second.

// What is skipped is said where the test's output goes.
#![allow(clippy::print_stdout)]

mod support;

use mvm_lab::{
    checkpoint::WallClock,
    ensure,
    lab::Lab,
    scenario::{Failure, Outcome, Run},
    service::ServiceSpec,
    topology::MemoryPlan,
};
use support::ALLOWED;

/// Part of every Debian, and it needs no module for sockets: 2 is `AF_INET` and `SOCK_DGRAM`, 17 `IPPROTO_UDP`.
const PROGRAM: &str = "perl";
const HEAR: &str = r#"socket(S, 2, 2, 17) or die; bind(S, pack("SnC4x8", 2, 7001, 0, 0, 0, 0)) or die;
open(O, ">", "/tmp/heard"); while (defined(recv(S, $number, 64, 0))) { syswrite(O, "$number\n") }"#;
const COUNT: &str = r#"socket(S, 2, 2, 17) or die; $node1 = pack("SnC4x8", 2, 7001, 192, 168, 1, 1);
for ($number = 1;; $number++) { send(S, $number, 0, $node1); select(undef, undef, undef, 0.01) }"#;

/// Waits until node1 has heard `more` numbers than now.
async fn hear_more(lab: &Lab, more: usize) -> Outcome {
    let script = format!(
        "had=$(wc -l < /tmp/heard); until test $(wc -l < /tmp/heard) -ge $((had+{more})); do usleep 20000; done"
    );
    let node1 = lab.node("node1");
    node1
        .wait_until_succeeds("test -s /tmp/heard", ALLOWED)
        .await?;
    let output = node1.execute_within(&script, ALLOWED).await?;
    ensure!(output.success(), "no {more} more numbers came: {output:?}");
    Ok(())
}

/// No number twice; returns how many are missing between the first and the last.
async fn missing(lab: &Lab) -> Outcome<u64> {
    let script = "awk '$1 in seen { print \"doubled: \" $1; exit 1 } \
                  { seen[$1]; if (NR == 1 || $1 < min) min = $1; if ($1 > max) max = $1 } \
                  END { if (NR) print max - min + 1 - NR }' /tmp/heard";
    let told = lab.node("node1").succeed(script).await?;
    told.trim()
        .parse()
        .map_err(|_| Failure::broken(format!("{told:?} is no count")))
}

/// Whether others compute on this host.
fn loaded() -> bool {
    let told = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = told
        .split(' ')
        .next()
        .and_then(|load| load.parse::<f64>().ok());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    load.is_none_or(|load| load > processors as f64)
}

async fn judged(run: &Run, when: &str) -> Outcome {
    let missing = missing(&run.lab).await?;
    if loaded() {
        run.note(format!(
            "{when}: {missing} missing, not judged since the host is loaded"
        ));
        return Ok(());
    }
    run.note(format!("{when}: {missing} missing"));
    ensure!(missing == 0, "{when}: {missing} numbers are missing");
    Ok(())
}

async fn nothing_is_lost_or_doubled(run: &Run) -> Outcome {
    let lab = &run.lab;
    lab.start_all().await?;
    hear_more(lab, 50).await?;
    lab.checkpoint("counting").await?;
    hear_more(lab, 100).await?;
    judged(run, "the parent ran on").await?;
    for restore in 1..=2 {
        lab.restore("counting", WallClock::Now).await?;
        hear_more(lab, 100).await?;
        judged(run, &format!("after restore {restore}")).await?;
    }
    Ok(())
}

#[test]
fn a_checkpoint_loses_and_doubles_no_datagram() {
    let has_program = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|one| one.join(PROGRAM).is_file()));
    if !has_program {
        println!("skipped: this host has no {PROGRAM} to bring into the machines");
        return;
    }
    let mut topology = support::two_machines(MemoryPlan::Own);
    topology.image.programs.push(PROGRAM.to_owned());
    for (machine, name, script) in [(0, "hear", HEAR), (1, "count", COUNT)] {
        let service = ServiceSpec::new(name, [PROGRAM, "-e", script]);
        topology.machines[machine].services.push(service);
    }
    support::check("datagrams", topology, |run| {
        Box::pin(nothing_is_lost_or_doubled(run))
    });
}
