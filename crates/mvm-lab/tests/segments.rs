//! Real machines on several segments: who hears whom there, and a machine that passes on what is for the other one.
//!
//! What a green run does not prove: how fast a machine passes packets on.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use mvm_lab::{
    checkpoint::WallClock,
    ensure,
    network::Cause,
    scenario::{Outcome, Run, ScenarioFuture},
    topology::{MachineConfig, SegmentConfig, Topology},
};
use mvm_machine::machine::Mtu;
use support::ALLOWED;
use tokio::{io::AsyncWriteExt, net::TcpListener};

/// `client` on segment 1, `server` on segment 2, `router` on both, with its second card on the first.
fn routed() -> Topology {
    let machines = [("client", &[1][..]), ("router", &[2, 1]), ("server", &[2])];
    let machines = machines.map(|(name, segments)| MachineConfig {
        memory_mib: 128,
        segments: segments.to_vec(),
        ..MachineConfig::new(name)
    });
    Topology::new(machines.into())
}

const PING: &str = "ping -c 1 -W 2";

async fn a_machine_routes(run: &Run) -> Outcome {
    let lab = &run.lab;
    lab.start_all().await?;
    let (client, router, server) = (lab.node("client"), lab.node("router"), lab.node("server"));

    let addresses = router.succeed("ip -o -4 address show scope global").await?;
    let cards: Vec<_> = addresses
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .map(|words| format!("{} {}", words[1], words[3]))
        .collect();
    ensure!(
        cards == ["eth1 192.168.2.2/24", "eth2 192.168.1.2/24"],
        "the router's cards are {cards:?}"
    );
    // Each by the segment that both are on.
    for (node, name) in [
        (client, "router"),
        (server, "router"),
        (router, "client"),
        (router, "server"),
    ] {
        for family in ["-4", "-6"] {
            node.wait_until_succeeds(&format!("{PING} {family} {name}"), ALLOWED)
                .await?;
        }
    }
    client.fail(&format!("{PING} -4 server")).await?;

    router
        .succeed("sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        .await?;
    client
        .succeed("ip route add 192.168.2.0/24 via 192.168.1.2; ip -6 route add 2001:db8:2::/64 via 2001:db8:1::2")
        .await?;
    server
        .succeed("ip route add 192.168.1.0/24 via 192.168.2.2; ip -6 route add 2001:db8:1::/64 via 2001:db8:2::2")
        .await?;
    let through = |family: &str| format!("{PING} {family} server");
    for family in ["-4", "-6"] {
        client
            .wait_until_succeeds(&through(family), ALLOWED)
            .await?;
    }

    let network = lab.network();
    let guard = network.disturb(|network| network.on(2)?.isolate("router"))?;
    client.fail(&through("-4")).await?;
    client.succeed(&format!("{PING} -4 router")).await?;
    lab.checkpoint("cut").await?;
    drop(guard);
    client.wait_until_succeeds(&through("-4"), ALLOWED).await?;
    lab.restore("cut", WallClock::Now).await?;
    client.fail(&through("-4")).await?;
    network.heal_all()?;
    for family in ["-4", "-6"] {
        client
            .wait_until_succeeds(&through(family), ALLOWED)
            .await?;
    }
    let counters = network.counters()?;
    let (client, server) = (&counters["client"][0], &counters["server"][0]);
    ensure!(
        client.sent.frames > 0 && server.sent.frames > 0 && counters["router"].len() == 2,
        "{counters:?}"
    );
    Ok(())
}

/// `inside` on a segment of jumbo frames; `edge` there too, and on the host's network.
fn edged() -> Topology {
    let machines = ["edge", "inside"].map(|name| MachineConfig {
        memory_mib: 128,
        gateway: name == "edge",
        ..MachineConfig::new(name)
    });
    let mut topology = Topology::new(machines.into());
    let jumbo = SegmentConfig {
        mtu: Mtu::new(9000).unwrap(),
        ..SegmentConfig::default()
    };
    topology.segments.insert(1, jumbo);
    topology
}

async fn one_machine_has_a_way_out(run: &Run) -> Outcome {
    let lab = &run.lab;
    lab.start_all().await?;
    let (edge, inside) = (lab.node("edge"), lab.node("inside"));
    let large = format!("{PING} -4 -s 8000 edge");
    inside.wait_until_succeeds(&large, ALLOWED).await?;
    // Frames of that size do not pass where only usual ones do.
    let narrow = lab.network().disturb(|network| network.all().mtu(1500))?;
    inside.fail(&large).await?;
    let dropped = lab.network().counters()?["edge"][0].dropped_to;
    ensure!(
        dropped.frames(Cause::TooLarge) > 0,
        "the ping went in small frames"
    );
    narrow.put_back()?;

    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let serving = async {
        for _ in 0..2 {
            let (mut guest, _) = server.accept().await.unwrap();
            guest.write_all(b"hello\n").await.unwrap();
        }
    };
    let asking = async {
        let ask = format!("nc -w 10 10.0.2.2 {port} < /dev/null");
        let said = edge.succeed(&ask).await?;
        ensure!(said == "hello\n", "the host says {said:?}");
        inside
            .fail(&format!("nc -w 2 10.0.2.2 {port} < /dev/null"))
            .await?;
        lab.checkpoint("edged").await?;
        lab.restore("edged", WallClock::Now).await?;
        let said = edge.succeed(&ask).await?;
        ensure!(said == "hello\n", "restored, the host says {said:?}");
        Ok(())
    };
    let ((), asked) = tokio::join!(serving, asking);
    asked
}

#[test]
fn gateway() {
    support::check("segments-gateway", edged(), |run| -> ScenarioFuture<'_> {
        Box::pin(one_machine_has_a_way_out(run))
    });
}

#[test]
fn routing() {
    support::check("segments-routing", routed(), |run| -> ScenarioFuture<'_> {
        Box::pin(a_machine_routes(run))
    });
}
