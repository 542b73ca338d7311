//! Real machines and their network cards: each its own size and addresses, and a way out only where it was asked for.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]
// What is skipped is said where the test's output goes.
#![allow(clippy::print_stdout)]

mod support;

use std::{fs::File, io, net::IpAddr, os::fd::OwnedFd, time::Duration};

use mvm_agent::client::{Agent, Identity, Interface};
use mvm_machine::{
    machine::{
        Booting, Gateway, Loaded, MacAddress, MachineSpec, Memory, Mtu, Nic, Running, SavedState,
        unconnected,
    },
    snapshot::Snapshot,
};
use support::{BOOT_ALLOWED, Host};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

/// QEMU ends within milliseconds.
const END_ALLOWED: Duration = Duration::from_secs(10);
/// What the server on the host says.
const GREETING: &str = "hello from the host";

async fn succeed(agent: &Agent, script: &str) -> String {
    let output = agent.shell(script).output().await.unwrap();
    assert!(output.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Boots the machine; what is behind its cards must be kept as long as it is.
async fn boot(host: &Host, spec: &MachineSpec) -> (Running, Vec<OwnedFd>) {
    let _token = host.token().await;
    let (cables, sockets) = unconnected(spec.nics.len()).unwrap();
    let booting = Booting::launch(spec.clone(), sockets).await.unwrap();
    (booting.ready(BOOT_ALLOWED).await.unwrap(), cables)
}

async fn resume(host: &Host, spec: &MachineSpec) -> (Running, Vec<OwnedFd>) {
    let (snapshot, _) = Snapshot::obtain(&host.cache, spec, BOOT_ALLOWED)
        .await
        .unwrap();
    let (cables, sockets) = unconnected(spec.nics.len()).unwrap();
    let loaded = snapshot.resume(spec.clone(), sockets).await.unwrap();
    (go(loaded).await, cables)
}

async fn go(loaded: Loaded) -> Running {
    let booting = loaded.go().await.unwrap();
    booting.ready(BOOT_ALLOWED).await.unwrap()
}

/// Saves the machine, ends it, and lets another go on from there.
async fn bring_back(host: &Host, running: Running, memory: &str) -> Running {
    let path = host.folder.path().join("state");
    let spec = running.spec().clone();
    let parted = running.part().await.map_err(|(_, error)| error).unwrap();
    parted.stop().await.unwrap();
    let memory_saved = parted.save(&File::create(&path).unwrap()).await.unwrap();
    parted.end(END_ALLOWED).await;
    let spec = MachineSpec {
        memory: Memory::Frozen(host.folder.path().join(memory)),
        ..spec
    };
    let state = SavedState {
        path,
        memory: memory_saved,
    };
    let (_cables, sockets) = unconnected(spec.nics.len()).unwrap();
    let loaded = Loaded::load(spec, &state, sockets, BOOT_ALLOWED).await;
    go(loaded.unwrap()).await
}

/// One interface per address, `eth1` upward.
fn identity(addresses: &[&str]) -> Identity {
    let cards = (0..).zip(addresses).map(|(index, address)| Interface {
        mac: MacAddress::of_card(index).0,
        address: Some([0x52, 0x54, 0, 0x12, 1, index]),
        name: Some(format!("eth{}", index + 1)),
        addresses: vec![(address.parse().unwrap(), 24)],
        gateways: Vec::new(),
        announce: false,
    });
    Identity {
        hostname: "one".to_owned(),
        machine_id: None,
        interfaces: cards.collect(),
        hosts: Vec::new(),
        name_servers: Vec::new(),
        layers: None,
        mounts: Vec::new(),
    }
}

/// The same with the way out.
fn identity_with_gateway(addresses: &[&str]) -> Identity {
    let mut identity = identity(addresses);
    identity.interfaces.push(Gateway.interface());
    identity.name_servers = Gateway.name_servers();
    identity
}

/// Greets whoever connects, once it has finished sending.
async fn server(loopback: IpAddr) -> io::Result<(u16, JoinHandle<()>)> {
    let listener = TcpListener::bind((loopback, 0)).await?;
    let port = listener.local_addr()?.port();
    let served = tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut heard = String::new();
            connection.read_to_string(&mut heard).await.unwrap();
            let answer = format!("{GREETING}, {heard}");
            connection.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    Ok((port, served))
}

/// Checks that a program in the guest reaches a server on the host's loopback.
async fn check_reached(agent: &Agent, loopback: &str, from_guest: IpAddr) {
    let (port, served) = match server(loopback.parse().unwrap()).await {
        Ok(server) => server,
        Err(error) => {
            println!("skipped: this host has no {loopback}: {error}");
            return;
        }
    };
    let script = format!("echo guest | nc -w 20 {from_guest} {port}");
    let told = succeed(agent, &script).await;
    assert_eq!(told, format!("{GREETING}, guest\n"));
    served.abort();
}

async fn check_way_out(agent: &Agent) {
    let told = succeed(agent, "ip route | grep ^default").await;
    assert_eq!(told.trim(), "default via 10.0.2.2 dev eth0");
    let told = succeed(agent, "ip -6 route | grep ^default").await;
    assert!(told.starts_with("default via fec0::2 dev eth0"), "{told}");
    // Nothing but what it was told: no address of a router's advertisement.
    assert_eq!(told.lines().count(), 1, "{told}");
    let told = succeed(agent, "ip addr show eth0 | grep inet").await;
    assert!(told.contains("10.0.2.15/24"), "{told}");
    assert!(told.contains("fec0::15/64"), "{told}");
    assert_eq!(told.lines().count(), 3, "{told}");
    let told = succeed(agent, "cat /etc/resolv.conf").await;
    assert_eq!(told, "nameserver 10.0.2.3\n");
    let told = succeed(agent, "cat /sys/class/net/eth0/address").await;
    assert_eq!(told.trim(), Gateway::MAC.to_string());
    succeed(agent, "test ! -e /sys/class/net/dummy0").await;
    check_reached(agent, "127.0.0.1", Gateway::HOST.into()).await;
    check_reached(agent, "::1", Gateway::HOST_IPV6.into()).await;
}

/// The agent has files open and knows the cards from its start; what it is asked to run may change both.
#[tokio::test]
async fn an_identity_takes_a_machine_as_it_has_become() {
    let host = Host::new();
    let mut spec = host.spec(|image| image);
    spec.nics = vec![Nic::default()];
    let (running, _cables) = resume(&host, &spec).await;
    let agent = running.agent();
    succeed(
        agent,
        "ip link set eth1 down && ip link set eth1 name lan && ip link set lan up && mv /etc/hosts /etc/old \
         && echo a name much longer than the one that follows > /etc/hostname",
    )
    .await;
    for address in ["192.168.1.1", "192.168.1.2"] {
        let mut identity = identity(&[address]);
        identity.machine_id = Some("0123456789abcdef".repeat(2));
        identity.hosts = vec![(address.parse().unwrap(), "one".to_owned())];
        agent.configure(identity).await.unwrap();
        let told = succeed(
            agent,
            "cat /etc/hosts /etc/hostname /etc/machine-id; hostname",
        )
        .await;
        let expected = format!(
            "127.0.0.1 localhost\n::1 localhost\n{address} one\none\n{}\none\n",
            "0123456789abcdef".repeat(2)
        );
        assert_eq!(told, expected);
        let told = succeed(agent, "ip addr show eth1").await;
        assert!(told.contains(&format!("inet {address}/24")), "{told}");
        assert!(told.contains("inet6 fe80::5054:ff:fe12:100/64"), "{told}");
    }
}

fn open_spec(host: &Host) -> MachineSpec {
    MachineSpec {
        nics: vec![Nic::default()],
        gateway: Some(Gateway),
        ..host.spec(|image| image)
    }
}

#[tokio::test]
async fn a_machine_with_a_way_out_reaches_the_host_and_still_does_when_brought_back() {
    let host = Host::new();
    let spec = MachineSpec {
        memory: Memory::Own(host.folder.path().join("ram")),
        ..open_spec(&host)
    };
    let (running, _cables) = boot(&host, &spec).await;
    let who = || identity_with_gateway(&["192.168.1.1"]);
    running.agent().configure(who()).await.unwrap();
    check_way_out(running.agent()).await;
    // Once more changes nothing and is no error.
    running.agent().configure(who()).await.unwrap();
    check_way_out(running.agent()).await;

    let running = bring_back(&host, running, "ram").await;
    check_way_out(running.agent()).await;
}

#[tokio::test]
async fn a_machine_resumed_with_a_way_out_reaches_the_host() {
    let host = Host::new();
    let (running, _cables) = resume(&host, &open_spec(&host)).await;
    // The names are there before anybody is told who it is.
    let told = succeed(running.agent(), "cat /sys/class/net/eth0/address").await;
    assert_eq!(told.trim(), Gateway::MAC.to_string());
    let identity = identity_with_gateway(&["192.168.1.1"]);
    running.agent().configure(identity).await.unwrap();
    check_way_out(running.agent()).await;
    let told = succeed(running.agent(), "ip addr show eth1").await;
    assert!(told.contains("192.168.1.1/24"), "{told}");
}

#[tokio::test]
async fn a_machine_has_no_way_out_unless_asked_for() {
    let host = Host::new();
    let mut spec = host.spec(|image| image);
    spec.nics = vec![Nic::default()];
    let (running, _cables) = resume(&host, &spec).await;
    let agent = running.agent();
    agent.configure(identity(&["192.168.1.1"])).await.unwrap();
    let told = succeed(agent, "(ip route; ip -6 route) | grep default || true").await;
    assert_eq!(told, "");
    succeed(agent, "test ! -s /etc/resolv.conf").await;
    // What stands in its place takes all and has no address.
    let told = succeed(agent, "ip -o link show eth0; ip -o addr show eth0").await;
    assert!(told.contains(",UP") && !told.contains("inet"), "{told}");
    let told = succeed(agent, "cat /sys/class/net/eth0/address").await;
    assert_eq!(told.trim(), Gateway::MAC.to_string());
    let told = succeed(agent, "ls /sys/class/net").await;
    assert_eq!(told, "eth0\neth1\nlo\n");
    let (port, _served) = server("127.0.0.1".parse().unwrap()).await.unwrap();
    succeed(agent, &format!("! nc -w 2 10.0.2.2 {port} </dev/null")).await;
}

#[tokio::test]
async fn each_card_has_the_size_and_the_addresses_meant_for_it() {
    let host = Host::new();
    let mut spec = host.spec(|image| image);
    spec.nics = [9000, 1400, 65_535]
        .map(|bytes| Nic {
            mtu: Mtu::new(bytes).unwrap(),
        })
        .to_vec();
    for resumed in [false, true] {
        let (running, _cables) = if resumed {
            resume(&host, &spec).await
        } else {
            boot(&host, &spec).await
        };
        let agent = running.agent();
        let addresses = ["192.168.1.7", "192.168.2.7", "192.168.3.7"];
        agent.configure(identity(&addresses)).await.unwrap();
        for (index, bytes) in (0..).zip([9000, 1400, 65_535]) {
            let card = format!("eth{}", index + 1);
            let read = format!("cd /sys/class/net/{card} && cat mtu address");
            let told = succeed(agent, &read).await;
            assert_eq!(
                told,
                format!("{bytes}\n52:54:00:12:01:0{index}\n"),
                "{card}, resumed: {resumed}"
            );
            let told = succeed(agent, &format!("ip -4 addr show {card}")).await;
            let expected = format!("inet {}/24", addresses[index]);
            assert!(told.contains(&expected), "{told}");
        }
        succeed(agent, "test ! -e /sys/class/net/eth4").await;
    }
}
