//! A partition that is captured, and what tshark says of it.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::{collections::BTreeMap, path::Path, process::Command};

use mvm_lab::{
    checkpoint::WallClock,
    ensure,
    network::Cause,
    scenario::{Outcome, Run, ScenarioFuture},
    topology::{MachineConfig, Topology},
};
use support::ALLOWED;

const PING: &str = "ping -4 -c 1 -W 2";

/// How often tshark finds each interface, direction and comment among the packets that fit a filter.
fn tshark(file: &Path, filter: &str) -> BTreeMap<String, u64> {
    let mut command = Command::new("tshark");
    command
        .arg("-r")
        .arg(file)
        .args(["-Y", filter, "-T", "fields"]);
    for field in [
        "frame.interface_name",
        "frame.packet_flags_direction",
        "frame.comment",
    ] {
        command.args(["-e", field]);
    }
    let output = command
        .output()
        .expect("tshark: apt-get install --no-install-recommends tshark");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut found = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        *found.entry(words.join(" ")).or_default() += 1;
    }
    found
}

async fn a_partition_is_seen(run: &Run) -> Outcome {
    let (lab, network) = (&run.lab, run.lab.network());
    lab.start_all().await?;
    let n1 = lab.node("n1");
    // Now they know each other's cards, so that what follows are pings alone.
    for name in ["n2", "n3"] {
        n1.wait_until_succeeds(&format!("{PING} {name}"), ALLOWED)
            .await?;
        let card = &lab.node(name).member().cards[0];
        n1.succeed(&format!("arp -i eth1 -s {} {}", card.ipv4, card.mac))
            .await?;
    }
    let file = run.folder.path().join("partition.pcapng");
    let capture = network.capture(&file)?;
    let only_n2 = network.capture_of(&["n2"], &run.folder.path().join("n2.pcapng"))?;
    n1.succeed(&format!("{PING} n2")).await?;
    network.isolate("n3")?;
    n1.fail(&format!("{PING} n3")).await?;
    lab.checkpoint("parted").await?;
    lab.restore("parted", WallClock::Now).await?;
    n1.fail(&format!("{PING} n3")).await?;
    network.heal_all()?;
    network.link("n1", "n2")?.loss(1.0)?;
    n1.fail(&format!("{PING} n2")).await?;
    let summary = capture.finish()?;
    drop(only_n2);

    // A restored switch knows no station until it speaks, and may send a ping for one to the other as well.
    let astray = |name: &str, address: &str| {
        format!("!(frame.interface_name == \"{name} eth1\" && ip.dst == {address})")
    };
    let others = [astray("n2", "192.168.1.3"), astray("n3", "192.168.1.2")].join(" && ");
    let pings = tshark(&file, &format!("icmp && {others}"));
    let expected = [
        // One answered, two cut off, one lost.
        ("n1 eth1 0x00000001", 4),
        ("n1 eth1 0x00000002", 1),
        ("n2 eth1 0x00000001", 1),
        ("n2 eth1 0x00000002", 1),
        ("n3 eth1 dropped: cut (n1 eth1 to n3 eth1)", 2),
        ("n2 eth1 dropped: lost (n1 eth1 to n2 eth1)", 1),
    ];
    let expected: BTreeMap<String, u64> = expected
        .map(|(what, times)| (what.to_owned(), times))
        .into();
    ensure!(
        pings == expected,
        "tshark finds {pings:#?}, not {expected:#?}"
    );
    let cut = tshark(&file, "frame.comment contains \"dropped: cut\"")
        .values()
        .sum::<u64>();
    let counted: u64 = network
        .counters()?
        .values()
        .flatten()
        .map(|port| port.dropped_to.frames(Cause::Cut))
        .sum();
    // The restored network counts on from the checkpoint.
    ensure!(
        cut == counted,
        "{cut} frames are recorded as cut, {counted} counted"
    );
    let dropped = tshark(&file, "frame.comment contains \"dropped\"")
        .values()
        .sum::<u64>();
    ensure!(
        dropped == summary.dropped,
        "{dropped} are recorded as dropped: {summary:?}"
    );

    let n2 = tshark(&run.folder.path().join("n2.pcapng"), "icmp");
    ensure!(
        n2.keys().all(|what| what.starts_with("n2 eth1")),
        "n2 alone: {n2:#?}"
    );
    let missing = network.capture(Path::new("/nowhere/x.pcapng")).err();
    let told = missing.map(|error| error.to_string()).unwrap_or_default();
    ensure!(
        told.contains("\"/nowhere/x.pcapng\": No such file"),
        "{told:?}"
    );
    let unknown = network.capture_of(&["n9"], &file).err();
    ensure!(unknown.is_some(), "n9 is captured");
    Ok(())
}

#[test]
fn captures() {
    let machines = ["n1", "n2", "n3"].map(|name| MachineConfig {
        memory_mib: 128,
        ..MachineConfig::new(name)
    });
    support::check(
        "captures",
        Topology::new(machines.into()),
        |run| -> ScenarioFuture<'_> { Box::pin(a_partition_is_seen(run)) },
    );
}
