//! Machines that run Debian: systemd holds packages' services back until the machine knows who it is, and machines resumed
//! from one snapshot have nothing of that in common.
//!
//! The image is built once, in minutes, where the cache has none.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::{collections::BTreeMap, time::Duration};

use mvm_lab::{
    checkpoint::WallClock,
    ensure,
    scenario::{Outcome, Run, ScenarioFuture},
    service::ServiceSpec,
    topology::{
        GuestContent, GuestFile, ImageContents, ImageKind, MachineConfig, Provision, Topology,
    },
};

/// A first boot under an emulator on a loaded host.
const BOOT_ALLOWED: Duration = Duration::from_secs(240);
/// Only a hang takes this long.
const ALLOWED: Duration = Duration::from_secs(60);

/// Two machines with a service of a package that listens, and one without systemd.
fn topology() -> Topology {
    let mut machines: Vec<_> = ["deb1", "deb2"].map(MachineConfig::new).into();
    for machine in &mut machines {
        machine.memory_mib = 512;
        machine.packages = vec!["openssh-server".to_owned()];
        machine.image = Some(ImageKind::Debian);
    }
    let file = |text: &str| GuestFile {
        content: GuestContent::Text(text.to_owned()),
        mode: 0o640,
    };
    // Only one of them has units of its own: the other's systemd need not read everything anew.
    machines[1].provision = Provision {
        files: BTreeMap::from([("/etc/own".to_owned(), file("own\n"))]),
        units: BTreeMap::from([(
            "own.service".to_owned(),
            "[Service]\nType=oneshot\nRemainAfterExit=yes\nUser=alice\n\
             ExecStart=/bin/sh -c 'echo $$GREETING >~/greeting'\n[Install]\nWantedBy=multi-user.target\n"
                .to_owned(),
        )]),
        users: vec!["alice".to_owned()],
        environment: BTreeMap::from([("GREETING".to_owned(), "hello \"you\"".to_owned())]),
    };
    machines[0].services = vec![ServiceSpec::new("page", ["sleep", "1000"])];
    machines[1].aliases = BTreeMap::from([("sshd".to_owned(), "ssh.service".to_owned())]);
    machines.push(MachineConfig::new("small"));
    Topology {
        image: ImageContents::default(),
        boot_timeout: BOOT_ALLOWED,
        ..Topology::new(machines)
    }
}

async fn steps(run: &Run) -> Outcome {
    run.lab.start_all().await?;
    let nodes = ["deb1", "deb2"].map(|name| run.lab.node(name));
    for command in [
        "cat /etc/machine-id",
        "cat /proc/sys/kernel/random/boot_id",
        "head -c 16 /dev/urandom | od -An -tx1",
        "cat /sys/class/net/eth1/address",
        "hostname",
    ] {
        let said = [
            nodes[0].succeed(command).await?,
            nodes[1].succeed(command).await?,
        ];
        ensure!(said[0] != said[1], "both say {:?} to {command}", said[0]);
    }
    let mut known_keys = Vec::new();
    for node in nodes {
        let hostname = node.succeed("hostname").await?;
        ensure!(
            hostname.trim() == node.name(),
            "it calls itself {hostname:?}"
        );
        let id = node.succeed("cat /etc/machine-id").await?;
        let listed = "cd /var/log/journal && [ -e */system.journal ] && echo *";
        let journals = node.wait_until_succeeds(listed, ALLOWED).await?;
        ensure!(journals == id, "journals of {journals:?} on {id:?}");
        node.wait_until_succeeds("systemctl is-active ssh multi-user.target", ALLOWED)
            .await?;
        let keys = node
            .succeed("cut -d ' ' -f 2 /etc/ssh/ssh_host_*.pub")
            .await?;
        ensure!(keys.lines().count() == 1, "keys {keys:?}");
        ensure!(
            !known_keys.contains(&keys),
            "{} has another's keys",
            node.name()
        );
        known_keys.push(keys);
        // systemd itself knows who the machine is, though it was not started since.
        let told = node
            .succeed(
                "printf '[Service]\\nType=oneshot\\nExecStart=/bin/sh -c \"echo %%m >/run/id\"\\n' \\
                 >/etc/systemd/system/id.service && systemctl start id && cat /run/id",
            )
            .await?;
        ensure!(told == id, "systemd takes it for {told:?}, not {id:?}");
        let unit = node.unit("ssh", None).await?;
        let is_running = unit.active_state == "active" && unit.properties["SubState"] == "running";
        ensure!(is_running, "{unit:?}");
        let cards = node.succeed("ls /sys/class/net").await?;
        ensure!(cards == "eth0\neth1\nlo\n", "cards {cards:?}");
        node.wait_for_open_port(22, ALLOWED).await?;
        node.succeed("modprobe -a nf_tables sch_netem wireguard drbd nfsd")
            .await?;
        let other = match node.name() {
            "deb1" => "deb2",
            _ => "deb1",
        };
        node.succeed(&format!("ping -c 1 -W 5 {other} && ping -c 1 -W 5 small"))
            .await?;
    }
    let unit = nodes[0].unit("no-such", None).await?;
    let is_unknown = unit.active_state == "inactive" && unit.properties["LoadState"] == "not-found";
    ensure!(is_unknown, "{unit:?}");

    let own = nodes[1];
    own.wait_until_succeeds("systemctl is-active own.service", ALLOWED)
        .await?;
    let greeting = own
        .succeed("cat /home/alice/greeting && echo $GREETING")
        .await?;
    ensure!(greeting == "hello \"you\"\n".repeat(2), "{greeting:?}");
    let file = own.succeed("stat -c %a /etc/own && cat /etc/own").await?;
    ensure!(file == "640\nown\n", "{file:?}");
    let unit = own.unit("sshd", None).await?;
    ensure!(
        unit.name == "ssh.service" && unit.active_state == "active",
        "{unit:?}"
    );
    let stopped = own.systemctl("stop sshd.service", None).await?;
    ensure!(stopped.success(), "{stopped:?}");
    let unit = own.unit("sshd", None).await?;
    ensure!(unit.active_state == "inactive" && !unit.has_job, "{unit:?}");

    // What the agent runs has a unit's name and verbs as well.
    let state = async || Ok(nodes[0].unit("page.service", None).await?.active_state);
    let before: Outcome<String> = state().await;
    ensure!(before? == "active", "the agent's service is no unit");
    nodes[0].systemctl("stop page", None).await?;
    let after: Outcome<String> = state().await;
    ensure!(after? == "inactive", "the agent's service goes on");

    // What was flushed is there again, and the journal tells two boots apart.
    nodes[0]
        .succeed("echo kept > /etc/kept && echo kept > ~/kept && sync")
        .await?;
    nodes[0].crash().await;
    nodes[0].start().await?;
    nodes[0].succeed("grep kept /etc/kept ~/kept").await?;
    let boots = nodes[0]
        .succeed("journalctl --list-boots --no-pager | wc -l")
        .await?;
    ensure!(boots.trim() == "2", "{boots:?} boots in the journal");
    nodes[1].shutdown().await;
    a_fork_goes_on_by_itself(run).await
}

async fn a_fork_goes_on_by_itself(run: &Run) -> Outcome {
    let lab = &run.lab;
    lab.checkpoint("one off").await?;
    let forks = lab.fork("one off", 1, WallClock::Now).await?;
    let [parent, fork] = [lab, &forks[0]].map(|lab| lab.node("deb1"));
    let random = "head -c 16 /dev/urandom | od -An -tx1";
    let drawn = [parent.succeed(random).await?, fork.succeed(random).await?];
    ensure!(drawn[0] != drawn[1], "parent and fork drew {:?}", drawn[0]);
    let id = "cat /etc/machine-id";
    let ids = [parent.succeed(id).await?, fork.succeed(id).await?];
    ensure!(ids[0] == ids[1], "the fork became another: {ids:?}");
    fork.succeed("grep kept /etc/kept && rm /etc/kept && systemctl restart ssh")
        .await?;
    parent.succeed("grep kept /etc/kept").await?;
    for fork in &forks {
        fork.end().await;
    }
    Ok(())
}

#[test]
fn machines_of_one_snapshot_become_different_ones() {
    let warnings = support::check("debian", topology(), |run| -> ScenarioFuture<'_> {
        Box::pin(steps(run))
    });
    assert_eq!(warnings, [""; 0]);
}
