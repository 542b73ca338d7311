//! What may befall a lab from outside: a QEMU that hangs, a checkpoint at a bad moment, a cache that takes nothing.
//! Machines go on or come up cold, and somebody is told.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]
// What is skipped is said where the test's output goes.
#![allow(clippy::print_stdout)]

mod support;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use mvm_lab::{
    checkpoint::{CheckpointError, WallClock},
    ensure,
    lab::Lab,
    scenario::{Failure, Outcome, Run},
    topology::{MachineConfig, MemoryPlan, Topology},
};
use mvm_machine::{cache::Cache, snapshot::sealed};
use support::{ALLOWED, check, signal, two_machines};

/// A monitor is given 10 s.
const REFUSAL_ALLOWED: Duration = Duration::from_secs(25);
/// Loading is given 20 s, and a cold boot follows.
const FOREIGN_ALLOWED: Duration = Duration::from_secs(100);

async fn all_answer(lab: &Lab) -> Outcome {
    for node in lab.nodes() {
        node.succeed("true").await?;
    }
    let node1 = lab.node("node1");
    node1
        .wait_until_succeeds("ping -c 1 -W 5 node2", ALLOWED)
        .await?;
    Ok(())
}

async fn a_qemu_that_hangs_is_named_and_disturbs_nobody(run: &Run) -> Outcome {
    let lab = &run.lab;
    lab.start_all().await?;
    let pid = lab.node("node2").pid().await?;
    signal("STOP", pid);
    let began = Instant::now();
    let refused = tokio::time::timeout(REFUSAL_ALLOWED, lab.checkpoint("hanging")).await;
    signal("CONT", pid);
    match refused {
        Ok(Err(CheckpointError::Monitor { machine, .. })) if machine == "node2" => {}
        other => return Err(Failure::broken(format!("not refused but {other:?}"))),
    }
    run.note(format!(
        "refused after {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    all_answer(lab).await?;
    lab.checkpoint("well again").await?;
    lab.restore("well again", WallClock::Now).await?;
    all_answer(lab).await
}

#[test]
fn a_machine_that_does_not_pause() {
    check("no-pause", two_machines(MemoryPlan::Own), |run| {
        Box::pin(a_qemu_that_hangs_is_named_and_disturbs_nobody(run))
    });
}

/// Large enough that checkpoints are tried in the middle of it.
const TRANSFER_BYTES: usize = 48 << 20;

/// Bytes of which no two pages are alike.
fn content() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..TRANSFER_BYTES / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}

/// Tries to take checkpoints until `transfer` is done; each is refused or completed. Returns how many were refused.
async fn checkpoints_during<T>(
    lab: &Lab,
    transfer: impl Future<Output = Outcome<T>>,
) -> Outcome<(T, usize)> {
    let done = AtomicBool::new(false);
    let transfer = async {
        let result = transfer.await;
        done.store(true, Ordering::Relaxed);
        result
    };
    let attempts = async {
        let mut refused = 0;
        while !done.load(Ordering::Relaxed) {
            match lab.checkpoint("amid").await {
                Ok(()) => {}
                Err(CheckpointError::Busy { machine, .. }) if machine == "node1" => refused += 1,
                Err(error) => return Err(Failure::from(error)),
            }
            // The transfer shares this thread.
            tokio::task::yield_now().await;
        }
        Ok(refused)
    };
    let (result, refused) = tokio::join!(transfer, attempts);
    Ok((result?, refused?))
}

async fn transfers_are_whole(run: &Run) -> Outcome {
    let lab = &run.lab;
    lab.start_all().await?;
    let node1 = lab.node("node1");
    let content = content();
    let agent = node1.agent()?;
    let upload = async {
        let sent = agent.upload("/data/file", 0o644, &content).await;
        sent.map_err(|error| Failure::trouble(&error))
    };
    let ((), up) = checkpoints_during(lab, upload).await?;
    let agent = node1.agent()?;
    let download = async {
        let got = agent.download("/data/file", TRANSFER_BYTES as u64).await;
        got.map_err(|error| Failure::trouble(&error))
    };
    let ((back, _), down) = checkpoints_during(lab, download).await?;
    ensure!(back == content, "what came back is not what was sent");
    run.note(format!("{up} and {down} checkpoints were refused"));
    ensure!(up > 0 && down > 0, "no checkpoint was tried meanwhile");

    // A completed one holds the file as a whole too.
    lab.checkpoint("after").await?;
    lab.restore("after", WallClock::Now).await?;
    let agent = node1.agent()?;
    let got = agent.download("/data/file", TRANSFER_BYTES as u64).await;
    let (back, _) = got.map_err(|error| Failure::trouble(&error))?;
    ensure!(back == content, "what was restored is not what was sent");
    Ok(())
}

#[test]
fn a_checkpoint_during_a_transfer() {
    let mut topology = two_machines(MemoryPlan::Own);
    topology.machines[0].memory_mib = 256;
    check("transfer", topology, |run| {
        Box::pin(transfers_are_whole(run))
    });
}

async fn later_checkpoints_hold_what_earlier_ones_froze(run: &Run) -> Outcome {
    let lab = &run.lab;
    lab.start_all().await?;
    let node1 = lab.node("node1");
    for name in ["one", "two", "three"] {
        node1
            .succeed(&format!("echo {name} > /data/{name} && sync"))
            .await?;
        lab.checkpoint(name).await?;
    }
    for (name, expected) in [
        ("three", "one three two"),
        ("one", "one"),
        ("two", "one two"),
    ] {
        lab.restore(name, WallClock::Now).await?;
        let found = node1.succeed("cd /data && echo $(cat [ot]*)").await?;
        ensure!(
            found.trim() == expected,
            "after the restore of {name} the disk holds {found:?}"
        );
    }
    // Based on one that is based on another.
    lab.checkpoint("two again").await?;
    lab.restore("two again", WallClock::Now).await?;
    let found = node1.succeed("cd /data && echo $(cat [ot]*)").await?;
    ensure!(found.trim() == "one two", "the disk holds {found:?}");
    Ok(())
}

#[test]
fn disks_of_several_checkpoints() {
    check("several", two_machines(MemoryPlan::Own), |run| {
        Box::pin(later_checkpoints_hold_what_earlier_ones_froze(run))
    });
}

/// Says in the environment of this program, started again, that its cache is already as the test wants it.
const ARRANGED: &str = "MVM_TEST_CACHE_ARRANGED";
/// No other test has a machine of this size, so nobody has a snapshot of it.
const ODD_MEMORY_MIB: u32 = 131;

async fn without_a_cache(run: &Run) -> Outcome {
    let lab = &run.lab;
    lab.start_all().await?;
    all_answer(lab).await?;
    let kept = lab.checkpoint("unkept").await;
    ensure!(kept.is_err(), "a checkpoint was kept somewhere");
    run.note(format!("refused: {}", kept.unwrap_err()));
    all_answer(lab).await
}

/// Runs machines where nothing can be kept: in this program as started by [`started_again`].
fn check_cold() {
    check_cold_with(MemoryPlan::Shared);
    check_cold_with(MemoryPlan::Own);
}

fn check_cold_with(memory: MemoryPlan) {
    let machine = |name: &str| MachineConfig {
        memory_mib: ODD_MEMORY_MIB,
        data_disk: true,
        ..MachineConfig::new(name)
    };
    let topology = Topology {
        memory,
        ..Topology::new(vec![machine("node1"), machine("node2")])
    };
    let warnings = check("no-cache", topology, |run| Box::pin(without_a_cache(run)));
    let cold = warnings
        .iter()
        .filter(|warning| warning.contains("is booted cold"));
    assert_eq!(cold.count(), 2, "one warning per machine: {warnings:?}");
}

/// Runs one test of this program again, under `command`.
#[track_caller]
fn started_again(test: &str, mut command: Command, what: &str) {
    let ended = command
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ARRANGED, "1")
        .output()
        .unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    println!("with {what}:\n{said}");
    assert!(ended.status.success(), "{what}: {}", ended.status);
}

#[test]
fn shelves_that_are_plain_files() {
    if std::env::var_os(ARRANGED).is_some() {
        return check_cold();
    }
    let cache = Cache::for_user().unwrap();
    let other = tempfile::tempdir().unwrap();
    // All there is but what is to be spoilt.
    for entry in std::fs::read_dir(cache.root()).unwrap() {
        let path = entry.unwrap().path();
        std::os::unix::fs::symlink(&path, other.path().join(path.file_name().unwrap())).unwrap();
    }
    for shelf in ["snapshots", "checkpoints", "running"] {
        // Absent in a cache that is new.
        let _ = std::fs::remove_file(other.path().join(shelf));
        std::fs::write(other.path().join(shelf), "not a folder").unwrap();
    }
    let mut command = Command::new("env");
    command.env("MVM_CI_CACHE", other.path());
    started_again("shelves_that_are_plain_files", command, "plain files");
}

/// A command that runs another with mounts of its own, if this host lets us.
fn with_mounts(script: &str, cache: &Path) -> Option<Command> {
    let ways: [&[&str]; 2] = [&["--mount"], &["--map-root-user", "--mount"]];
    let possible = ways.into_iter().find(|way| {
        let tried = Command::new("unshare")
            .args(*way)
            .args(["mount", "-t", "tmpfs", "none", "/mnt"])
            .output();
        tried.is_ok_and(|output| output.status.success())
    })?;
    let mut command = Command::new("unshare");
    command
        .args(possible)
        .args(["sh", "-e", "-c"])
        .arg(format!("cd \"$0\"; {script}; cd /; exec \"$@\""))
        .arg(cache);
    Some(command)
}

#[test]
fn a_cache_that_is_full_or_read_only() {
    if std::env::var_os(ARRANGED).is_some() {
        return check_cold();
    }
    let cache = Cache::for_user().unwrap();
    for shelf in ["snapshots", "checkpoints", "running"] {
        std::fs::create_dir_all(cache.root().join(shelf)).unwrap();
    }
    let shelves = "for shelf in snapshots checkpoints; do mount -t tmpfs -o";
    for (what, script) in [
        ("no room", format!("{shelves} size=4m none $shelf; done")),
        (
            "read-only shelves",
            format!("{shelves} ro none $shelf; done"),
        ),
        (
            "a read-only cache",
            "mount --bind . . && mount -o remount,bind,ro \"$0\"".to_owned(),
        ),
    ] {
        let Some(command) = with_mounts(&script, cache.root()) else {
            println!("skipped: this host lets nobody but root mount file systems");
            return;
        };
        started_again("a_cache_that_is_full_or_read_only", command, what);
    }
}

/// Where the snapshot of the machine that ran last lies: QEMU's command line names its memory.
static SNAPSHOT: Mutex<Option<PathBuf>> = Mutex::new(None);

async fn where_its_snapshot_lies(run: &Run) -> Outcome {
    run.lab.start_all().await?;
    let node = run.lab.node("node1");
    node.succeed("true").await?;
    let line = format!("/proc/{}/cmdline", node.pid().await?);
    let line = std::fs::read_to_string(line).unwrap_or_default();
    let path = line
        .split(['\0', ',', '='])
        .map(Path::new)
        .find(|word| word.ends_with("ram") && word.is_absolute());
    *SNAPSHOT.lock().unwrap() = path.and_then(Path::parent).map(Path::to_owned);
    Ok(())
}

#[test]
fn a_snapshot_that_another_program_wrote() {
    let warnings = || {
        let topology = Topology::new(vec![MachineConfig {
            // No other test uses this one's snapshot.
            memory_mib: ODD_MEMORY_MIB + 2,
            ..MachineConfig::new("node1")
        }]);
        check("foreign-snapshot", topology, |run| {
            Box::pin(where_its_snapshot_lies(run))
        })
    };
    assert_eq!(warnings(), [""; 0]);
    let Some(folder) = SNAPSHOT.lock().unwrap().take() else {
        println!("skipped: this QEMU's snapshots have their memory in the state");
        return;
    };
    // Sealed anew, so that only QEMU can tell.
    let manifest = std::fs::read(folder.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    for file in ["manifest.json", "verified.json"] {
        std::fs::remove_file(folder.join(file)).unwrap();
    }
    std::fs::write(folder.join("state"), "not what this QEMU writes").unwrap();
    sealed::seal(&folder, &manifest["content"]).unwrap();

    let began = Instant::now();
    let found_out = warnings();
    assert!(began.elapsed() < FOREIGN_ALLOWED, "{:?}", began.elapsed());
    assert!(
        matches!(&found_out[..], [one] if one.contains("is booted cold: could not load the saved state")),
        "{found_out:?}"
    );
    assert_eq!(warnings(), [""; 0], "it was made anew");
}
