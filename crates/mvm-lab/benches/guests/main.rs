//! How fast one guest sends to another over TCP through our switch, beside `vde_switch` (Debian's `vde2`), which NixOS's
//! tests use: the same machines and the same QEMU, connected to it by `-netdev vde`.
//!
//! Prints one line of JSON per measurement on stdout, for `cargo xtask bench fabric`, which installs the peer and
//! `iperf3`. A guest's own processor sets the pace: what is compared is the cost of its frames on the host. The machines
//! have the memory of a lab's machines unless told otherwise. With half of it a kernel allows TCP windows of 0.3 MB, both
//! sides wait for one another a sixth of the time, and large frames win less.

// A bench is a test of speed.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod vde;

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use mvm_lab::{
    runner::{self, RunOptions},
    scenario::{Failure, Outcome, Run, Scenario, ScenarioFuture},
    service::ServiceSpec,
    topology::{ImageContents, MachineConfig, SegmentConfig, Topology},
    verdict::Verdict,
};
use mvm_machine::machine::Mtu;

/// Where a child's QEMU finds `vde_switch`, and how a child is told to measure.
const MTU: &str = "MVM_BENCH_MTU";
const SECONDS: u32 = 5;
const ALLOWED: Duration = Duration::from_secs(30);
const NAMES: [&str; 2] = ["listener", "speaker"];

fn main() {
    if let Ok(mtu) = std::env::var(MTU) {
        let mbits = tokio::runtime::Runtime::new()
            .unwrap()
            .block_on(throughput(mtu.parse().unwrap()));
        println!("{mbits}");
        return;
    }
    let ours = apart(1500, &mut child());
    let jumbo = apart(9000, &mut child());
    let switch = vde::Switch::start();
    let vde = apart(1500, switch.connect_by_it(&mut child()));
    let mbits = "Mbit/s";
    print("guest to guest over TCP, ours, MTU 1500", mbits, ours, None);
    print(
        "guest to guest over TCP, ours, MTU 9000",
        mbits,
        jumbo,
        None,
    );
    print(
        "guest to guest over TCP, vde_switch, MTU 1500",
        mbits,
        vde,
        None,
    );
    print("ours to vde_switch, MTU 1500", "x", ours / vde, Some(1.3));
    print(
        "ours at MTU 9000 to vde_switch at 1500",
        "x",
        jumbo / vde,
        Some(2.5),
    );
}

fn print(name: &str, unit: &str, value: f64, at_least: Option<f64>) {
    println!(
        "{}",
        serde_json::json!({"name": name, "unit": unit, "value": value, "at_most": null, "at_least": at_least})
    );
}

/// This program again, in a process with an environment of its own.
fn child() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

/// Measures in another process.
fn apart(mtu: u16, child: &mut Command) -> f64 {
    let child = child.env(MTU, mtu.to_string()).stderr(Stdio::inherit());
    let output = child.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

/// How many megabits a guest receives per second.
async fn throughput(mtu: u64) -> f64 {
    static MEASURED: Mutex<f64> = Mutex::new(0.0);
    async fn steps(run: &Run) -> Outcome {
        run.lab.start_all().await?;
        let [listener, speaker] = NAMES.map(|name| run.lab.node(name));
        listener.wait_for_open_port(5201, ALLOWED).await?;
        let reach = format!("ping -c 1 -W 1 {}", NAMES[0]);
        speaker.wait_until_succeeds(&reach, ALLOWED).await?;
        let command = format!(
            "iperf3 --client {} --time {SECONDS} --omit 1 --json",
            NAMES[0]
        );
        let told = speaker.succeed(&command).await?;
        let told: serde_json::Value =
            serde_json::from_str(&told).map_err(|error| Failure::trouble(&error))?;
        let bits = told["end"]["sum_received"]["bits_per_second"].as_f64();
        *MEASURED.lock().unwrap() = bits.unwrap() / 1e6;
        Ok(())
    }
    let mut machines = NAMES.map(MachineConfig::new);
    machines[0].services = vec![ServiceSpec::new("iperf3", ["iperf3", "--server"])];
    let mut topology = Topology::new(machines.into());
    topology.image = ImageContents {
        programs: vec!["iperf3".to_owned()],
        ..ImageContents::default()
    };
    topology.segments.insert(
        1,
        SegmentConfig {
            mtu: Mtu::new(mtu).unwrap(),
            ..SegmentConfig::default()
        },
    );
    let scenario = Scenario {
        name: "throughput".into(),
        about: "one guest sends to another over TCP".into(),
        topology,
        prepare: None,
        run: Box::new(|run| -> ScenarioFuture<'_> { Box::pin(steps(run)) }),
    };
    let runs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runs");
    let options = RunOptions::new(runs, ["cargo", "xtask", "bench", "fabric"]);
    let report = runner::run(&scenario, options).await.unwrap();
    assert_eq!(report.verdict, Verdict::Passed, "{:?}", report.message);
    *MEASURED.lock().unwrap()
}
