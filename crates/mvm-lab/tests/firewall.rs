//! Filters and delays that guests set up for themselves, with the tools that people use for it.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use mvm_lab::{
    ensure,
    node::Node,
    scenario::{Failure, Outcome, Run, ScenarioFuture},
    service::ServiceSpec,
    topology::{ImageContents, MachineConfig, Topology},
};
use support::ALLOWED;

/// Whether a port of n1's answers n2.
async fn ensure_open(n2: &Node, port: u16, open: bool) -> Outcome {
    let connect = format!("nc -w 2 n1 {port} < /dev/null");
    match open {
        true => n2.wait_until_succeeds(&connect, ALLOWED).await?,
        false => n2.fail(&connect).await?,
    };
    Ok(())
}

async fn guests_filter_and_delay(run: &Run) -> Outcome {
    let lab = &run.lab;
    lab.start_all().await?;
    let (n1, n2) = (lab.node("n1"), lab.node("n2"));
    for port in [80, 81] {
        ensure_open(n2, port, true).await?;
    }

    run.step("iptables and ip6tables, by what connection tracking knows", async {
        for tool in ["iptables", "ip6tables"] {
            for rule in [
                "-i lo -j ACCEPT",
                "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
                "-p tcp --dport 80 -j ACCEPT",
                "-p tcp -m multiport --dports 8000:8002,9000 -m comment --comment spare -j ACCEPT",
                "-p tcp --dport 82 -j REJECT --reject-with tcp-reset",
                "-m limit --limit 5/min -j LOG",
                "-j DROP",
            ] {
                n1.succeed(&format!("{tool} -A INPUT {rule}")).await?;
            }
        }
        ensure_open(n2, 80, true).await?;
        ensure_open(n2, 81, false).await?;
        // What n1 asks for comes back.
        n1.wait_until_succeeds("nc -w 2 n2 80 < /dev/null", ALLOWED).await?;
        let listed = n1.succeed("iptables -L INPUT -n -v -x").await?;
        let dropped = listed.lines().rfind(|line| line.contains("DROP")).unwrap_or_default();
        let packets = dropped.split_whitespace().next().and_then(|word| word.parse().ok());
        ensure!(packets.is_some_and(|packets: u64| packets > 0), "nothing was dropped: {listed}");
        n1.succeed("iptables -F; ip6tables -F").await?;
        ensure_open(n2, 81, true).await
    })
    .await?;

    run.step("nft, both families at once, and a port that leads to another", async {
        n1.succeed("nft add table inet f && nft add chain inet f in '{ type filter hook input priority 0; policy accept; }' && nft add rule inet f in tcp dport 81 counter reject").await?;
        ensure_open(n2, 80, true).await?;
        ensure_open(n2, 81, false).await?;
        n1.succeed("nft delete table inet f").await?;
        n1.succeed("iptables -t nat -A PREROUTING -p tcp --dport 8080 -j REDIRECT --to-ports 80").await?;
        let connect = "nc -w 2 $(awk '$2 == \"n1\" && $1 ~ /\\./ {print $1}' /etc/hosts) 8080 < /dev/null";
        n2.wait_until_succeeds(connect, ALLOWED).await?;
        Ok(())
    })
    .await?;

    run.step("tc netem on the card of the segment", async {
        n1.succeed("tc qdisc add dev eth1 root netem delay 50ms")
            .await?;
        ensure_slow(n2, 50.0).await?;
        n1.succeed(
            "tc qdisc change dev eth1 root netem delay 200ms 20ms distribution normal loss 0.1%",
        )
        .await?;
        ensure_slow(n2, 100.0).await?;
        n1.succeed("tc qdisc del dev eth1 root").await?;
        Ok(())
    })
    .await
}

/// Ensures that a ping to n1 takes at least so many milliseconds.
async fn ensure_slow(n2: &Node, least: f64) -> Outcome {
    let told = n2
        .wait_until_succeeds("ping -4 -c 1 -W 5 n1", ALLOWED)
        .await?;
    let time = told
        .split("time=")
        .nth(1)
        .and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    let time = time.ok_or_else(|| Failure::broken(format!("{told:?} has no time")))?;
    ensure!(time >= least, "a ping took {time} ms, less than {least}");
    Ok(())
}

#[test]
fn firewalls() {
    let listeners = [80_u16, 81].map(|port| {
        let name = format!("port-{port}");
        ServiceSpec::new(&name, ["nc", "-ll", "-p", &port.to_string(), "-e", "true"])
    });
    let machines = ["n1", "n2"].map(|name| MachineConfig {
        memory_mib: 128,
        services: listeners.to_vec(),
        ..MachineConfig::new(name)
    });
    let topology = Topology {
        image: ImageContents::default().firewall(),
        ..Topology::new(machines.into())
    };
    support::check("firewalls", topology, |run| -> ScenarioFuture<'_> {
        Box::pin(guests_filter_and_delay(run))
    });
}
