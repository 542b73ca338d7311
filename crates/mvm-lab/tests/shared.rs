//! The folder that machines and host have in common, on real machines of both kinds: whoever writes, all others read at once,
//! and after a crash, a checkpoint and a restore they still do.
//!
//! What a green run does not prove: anything about kernels of guests other than these, and how fast it is on other hosts.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    time::{Duration, Instant},
};

use futures_util::future::try_join;
use mvm_lab::{
    checkpoint::WallClock,
    ensure,
    node::Node,
    scenario::{Outcome, Run, ScenarioFuture},
    topology::{ImageKind, MachineConfig, MemoryPlan, Topology},
};
use support::{check, two_machines};

/// A first boot under an emulator on a loaded host.
const BOOT_ALLOWED: Duration = Duration::from_secs(240);

/// Runs a command whose output must be this.
async fn says(node: &Node, command: &str, expected: &str) -> Outcome {
    let said = node.succeed(command).await?;
    ensure!(said == expected, "{said:?} to {command} on {}", node.name());
    Ok(())
}

/// Each of the three writes what the two others read.
async fn all_read_what_one_writes(run: &Run, round: &str) -> Outcome {
    let [node1, node2] = ["node1", "node2"].map(|name| run.lab.node(name));
    let host = run.folder.shared();
    for (writer, reader) in [(node1, node2), (node2, node1)] {
        let text = format!("{} {round}", writer.name());
        writer
            .succeed(&format!("echo '{text}' > /tmp/shared/word"))
            .await?;
        says(reader, "cat /tmp/shared/word", &format!("{text}\n")).await?;
        let read = fs::read_to_string(host.join("word")).unwrap();
        ensure!(read == format!("{text}\n"), "the host reads {read:?}");
    }
    fs::write(host.join("word"), round).unwrap();
    says(node1, "cat /tmp/shared/word", round).await?;
    says(node2, "cat /tmp/shared/word", round).await
}

async fn everything_is_as_it_was_written(run: &Run) -> Outcome {
    let [node1, node2] = ["node1", "node2"].map(|name| run.lab.node(name));
    let host = run.folder.shared();
    node1
        .succeed(
            "cd /tmp/shared && mkdir -p a/b && echo c >a/b/c && chmod 640 a/b/c && ln -s b/c a/link && ln a/b/c hard && \
             mv a moved && touch -d @1000000000 moved/b && chown 33:33 hard && cp -a moved copy && echo more >>moved/link",
        )
        .await?;
    says(
        node2,
        "cd /tmp/shared && cat moved/link hard copy/b/c && readlink copy/link && stat -c '%a %u:%g %h' hard && \
         stat -c %Y copy/b && test ! -e a && rm -r copy && ls",
        "c\nmore\nc\nmore\nc\nb/c\n640 0:0 2\n1000000000\nhard\nmoved\nword\n",
    )
    .await?;
    let mode = fs::metadata(host.join("moved/b/c")).unwrap().mode();
    ensure!(
        mode & 0o7777 == 0o640 && !host.join("copy").exists(),
        "mode {mode:o}"
    );
    // Whoever is first has it.
    node1.succeed("mkdir /tmp/shared/lock").await?;
    node2.fail("mkdir /tmp/shared/lock").await?;
    // Programs run from there, and the agent itself writes there.
    let run_there = "cp $(readlink -f /bin/sh) /tmp/shared/sh && /tmp/shared/sh -c 'echo ran'";
    says(node1, run_there, "ran\n").await?;
    let uploaded = node2
        .agent()?
        .upload("/tmp/shared/uploaded", 0o600, b"up")
        .await;
    ensure!(uploaded.is_ok(), "{uploaded:?}");
    says(node1, "cat /tmp/shared/uploaded", "up").await?;

    let write = "dd if=/dev/urandom of=/tmp/shared/large bs=1M count=5 2>&1";
    node1.succeed(write).await?;
    let sum = node1.succeed("sha256sum </tmp/shared/large").await?;
    says(node2, "sha256sum </tmp/shared/large", &sum).await?;
    node2
        .succeed("cat /tmp/shared/large >/tmp/shared/again")
        .await?;
    let [large, again] = ["large", "again"].map(|name| fs::read(host.join(name)).unwrap());
    ensure!(
        large.len() == 5 << 20 && large == again,
        "{} bytes and others",
        large.len()
    );

    let append = |name| format!("for i in $(seq 100); do echo {name} $i >>/tmp/shared/log; done");
    let (command1, command2) = (append("one"), append("two"));
    try_join(node1.succeed(&command1), node2.succeed(&command2)).await?;
    let log = fs::read_to_string(host.join("log")).unwrap();
    let lines: std::collections::BTreeSet<&str> = log.lines().collect();
    ensure!(lines.len() == 200, "{} lines of 200", lines.len());
    Ok(())
}

/// Nothing leads from the folder to anything else of the host's.
async fn the_host_is_out_of_reach(run: &Run) -> Outcome {
    let node1 = run.lab.node("node1");
    fs::write(run.folder.path().join("secret"), "secret").unwrap();
    let secret = fs::canonicalize(run.folder.path().join("secret")).unwrap();
    let secret = secret.display();
    node1
        .succeed(&format!(
            "cd /tmp/shared && ln -s ../secret up && ln -s {secret} out && ln -s /etc/hostname own"
        ))
        .await?;
    for way in ["up", "out", "../secret", "moved/../../secret"] {
        node1.fail(&format!("cat /tmp/shared/{way}")).await?;
    }
    says(node1, "cat /tmp/shared/own", "node1\n").await?;
    node1.fail("mknod /tmp/shared/device c 1 3").await?;
    node1.succeed("cd /tmp/shared && rm up out own").await?;
    Ok(())
}

async fn measure(run: &Run) -> Outcome {
    let node1 = run.lab.node("node1");
    for (what, command) in [
        (
            "write 16 MiB",
            "dd if=/dev/zero of=/tmp/shared/16 bs=64k count=256 2>&1",
        ),
        (
            "read 16 MiB",
            "dd if=/tmp/shared/16 of=/dev/null bs=64k 2>&1",
        ),
        (
            "write and read 50 small files",
            "for i in $(seq 50); do echo $i >/tmp/shared/small; read x </tmp/shared/small; test $x = $i; done",
        ),
    ] {
        let began = Instant::now();
        node1.succeed(command).await?;
        run.note(format!("{what}: {:.0?}", began.elapsed()));
    }
    Ok(())
}

async fn steps(run: &Run) -> Outcome {
    run.lab.start_all().await?;
    let node1 = run.lab.node("node1");
    all_read_what_one_writes(run, "at first").await?;
    everything_is_as_it_was_written(run).await?;
    the_host_is_out_of_reach(run).await?;
    measure(run).await?;

    node1.crash().await;
    node1.start().await?;
    all_read_what_one_writes(run, "after a crash").await?;

    what_is_open_holds_nothing_up(run).await
}

/// What is open there does not hold up a checkpoint, and does not hang after it. Neither does it in a fork.
async fn what_is_open_holds_nothing_up(run: &Run) -> Outcome {
    let node1 = run.lab.node("node1");
    let all_is_well = async |when: &str| {
        all_read_what_one_writes(run, when).await?;
        let ended = "test -e /tmp/ended";
        node1.wait_until_succeeds(ended, support::ALLOWED).await?;
        Outcome::Ok(())
    };
    node1
        .succeed("(while echo; do sleep 0.1; done >/tmp/shared/open; echo ended >/tmp/ended) >/dev/null 2>&1 &")
        .await?;
    run.lab.checkpoint("shared").await?;
    all_is_well("after a checkpoint").await?;
    let forks = run.lab.fork("shared", 1, WallClock::Now).await?;
    for fork in &forks {
        let node1 = fork.node("node1");
        node1
            .wait_until_succeeds("test -e /tmp/ended && ls /tmp/shared", support::ALLOWED)
            .await?;
        fork.end().await;
    }
    run.lab.restore("shared", WallClock::Now).await?;
    all_is_well("after a restore").await
}

#[test]
fn whoever_writes_all_others_read() {
    let topology = two_machines(MemoryPlan::Own);
    let warnings = check("shared", topology, |run| -> ScenarioFuture<'_> {
        Box::pin(steps(run))
    });
    assert_eq!(warnings, [""; 0]);
}

async fn steps_with_debian(run: &Run) -> Outcome {
    run.lab.start_all().await?;
    let node1 = run.lab.node("node1");
    all_read_what_one_writes(run, "at first").await?;
    everything_is_as_it_was_written(run).await?;
    measure(run).await?;
    node1.crash().await;
    node1.start().await?;
    all_read_what_one_writes(run, "after a crash").await?;
    what_is_open_holds_nothing_up(run).await
}

#[test]
fn machines_with_systemd_have_it_too() {
    let mut machines: Vec<_> = ["node1", "node2"].map(MachineConfig::new).into();
    machines[0].memory_mib = 512;
    machines[0].image = Some(ImageKind::Debian);
    let topology = Topology {
        boot_timeout: BOOT_ALLOWED,
        memory: MemoryPlan::Own,
        ..Topology::new(machines)
    };
    let warnings = check("shared-debian", topology, |run| -> ScenarioFuture<'_> {
        Box::pin(steps_with_debian(run))
    });
    assert_eq!(warnings, [""; 0]);
}
