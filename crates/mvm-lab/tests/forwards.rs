//! Ports of machines on the host.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::{Ipv4Addr, SocketAddr};

use mvm_lab::{
    checkpoint::WallClock,
    ensure,
    scenario::{Outcome, Run, ScenarioFuture},
    service::ServiceSpec,
    topology::{MachineConfig, Topology},
    wait::{self, Seen},
};
use support::ALLOWED;
use tokio::{io::AsyncReadExt, net::TcpStream};

/// Waits until a connection to the host's port brings what the guest has to say.
async fn ensure_says(port: SocketAddr, expected: &str) -> Outcome {
    let says = wait::until("the guest's word at the host's port", ALLOWED, || async {
        let mut said = String::new();
        let read = async {
            TcpStream::connect(port)
                .await?
                .read_to_string(&mut said)
                .await
        };
        match read.await {
            Ok(_) if said.trim() == expected => Seen::Done(()),
            other => Seen::NotYet(format!("{other:?}: {said:?}")),
        }
    });
    Ok(says.await?)
}

async fn a_port_stays_forwarded(run: &Run) -> Outcome {
    let lab = &run.lab;
    let (n1, n2) = (lab.node("n1"), lab.node("n2"));
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let forwards = [n1.forward(any, 70).await?, n2.forward(any, 70).await?];
    let [one, other] = forwards.each_ref().map(|forward| forward.local_addr());
    let mut refused = String::new();
    // Nobody is there yet.
    let closed = TcpStream::connect(one)
        .await
        .unwrap()
        .read_to_string(&mut refused)
        .await;
    ensure!(refused.is_empty(), "{closed:?}: {refused:?}");

    lab.start_all().await?;
    lab.network().isolate("n1")?;
    ensure_says(one, "n1").await?;
    ensure_says(other, "n2").await?;
    n1.crash().await;
    n1.start().await?;
    ensure_says(one, "n1").await?;
    lab.checkpoint("forwarded").await?;
    ensure_says(one, "n1").await?;
    lab.restore("forwarded", WallClock::Now).await?;
    ensure_says(one, "n1").await?;

    let taken = n2.forward(one, 70).await;
    ensure!(taken.is_err(), "two forwards at {one}");
    drop(forwards);
    // The old listener is closed a moment later.
    let again = wait::until("the port is free", ALLOWED, || async {
        match n2.forward(one, 70).await {
            Ok(forward) => Seen::Done(forward),
            Err(error) => Seen::NotYet(error.to_string()),
        }
    });
    ensure_says(again.await?.local_addr(), "n2").await
}

#[test]
fn forwards() {
    let machines = ["n1", "n2"].map(|name| MachineConfig {
        memory_mib: 128,
        services: vec![ServiceSpec::new(
            "name",
            ["nc", "-ll", "-p", "70", "-e", "hostname"],
        )],
        ..MachineConfig::new(name)
    });
    support::check(
        "forwards",
        Topology::new(machines.into()),
        |run| -> ScenarioFuture<'_> { Box::pin(a_port_stays_forwarded(run)) },
    );
}
