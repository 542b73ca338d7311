//! Real machines kept ready: who takes one has a machine of its own, and nothing of the pool stays.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::HashSet,
    fs,
    os::fd::OwnedFd,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use mvm_agent::client::Agent;
use mvm_machine::{
    cache::Cache,
    data_disk::DataDisk,
    machine::{MachineSpec, Memory, Nic},
    pool::{Cable, Pool, PoolOptions, Warm},
    snapshot::Snapshot,
};
use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
    process::{Pid, Signal, kill_process},
};
use support::{BOOT_ALLOWED, Host, sibling};

/// Says in the environment of this program, started again, that it is the one to be killed.
const VICTIM: &str = "MVM_TEST_VICTIM";
/// What is to happen soon has this long; only a hang takes it.
const SOON: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
const DISK_BYTES: u64 = 64 << 20;

fn options(machines_per_kind: usize) -> PoolOptions {
    PoolOptions {
        machines_per_kind,
        memory_mib_max: 1024,
        unused_max: Duration::from_secs(600),
        boot_allowed: BOOT_ALLOWED,
        cable: Cable::plain,
    }
}

/// A machine with a card and a disk, named so; its disk is made.
fn spec(host: &Host, name: &str) -> MachineSpec {
    let file = |kind: &str| host.folder.path().join(format!("{name}.{kind}"));
    let mut spec = host.spec(|image| image.data_disk());
    spec.nics = vec![Nic::default()];
    let (disk, _lease) = DataDisk::create(&host.cache, &file("data"), DISK_BYTES).unwrap();
    MachineSpec {
        name: name.to_owned(),
        data_disk: Some(disk),
        console: spec.console.elsewhere(file("console")),
        qemu_log: file("qemu"),
        ..spec
    }
}

async fn succeed(agent: &Agent, script: &str) -> String {
    let output = agent.shell(script).output().await.unwrap();
    assert!(output.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn wait_until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in {SOON:?}: {what}");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// A pool that has this many machines like `spec`.
async fn filled(host: &Host, spec: &MachineSpec, machines: usize) -> Pool {
    let pool = Pool::new(&host.cache, options(machines)).unwrap();
    pool.expect(spec).await;
    wait_ready(&pool, spec, machines).await;
    pool
}

async fn wait_ready(pool: &Pool, spec: &MachineSpec, machines: usize) {
    wait_until("the pool is full", async || {
        pool.ready(spec).await == machines
    })
    .await;
}

/// The processes that were started with this folder in their arguments.
fn users(folder: &Path) -> Vec<u32> {
    let folder = folder.to_string_lossy().into_owned();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| {
            let line = fs::read(process.path().join("cmdline")).ok()?;
            let pid = process.file_name().to_str()?.parse().ok()?;
            String::from_utf8_lossy(&line)
                .contains(&folder)
                .then_some(pid)
        })
        .collect()
}

/// Reads what has arrived.
fn arrived(end: &OwnedFd) -> Vec<u8> {
    let mut bytes = vec![0; 64 << 10];
    match recv(end, &mut bytes, RecvFlags::DONTWAIT) {
        Ok((read, _)) => bytes.truncate(read),
        Err(Errno::WOULDBLOCK) => bytes.clear(),
        Err(error) => panic!("{error}"),
    }
    bytes
}

#[tokio::test]
async fn who_takes_a_machine_has_one_of_its_own() {
    let host = Host::new();
    let pool = filled(&host, &spec(&host, "any"), 2).await;
    let mut warm = Vec::new();
    for number in [1, 2] {
        let spec = spec(&host, &format!("taker{number}"));
        let taken = pool.take(&spec).await.unwrap();
        assert_eq!(taken.running.spec().name, spec.name);
        assert_eq!(taken.switch_ends.len(), 1);
        let early = arrived(&taken.switch_ends[0]);
        assert!(early.is_empty(), "it is nobody yet, and said {early:?}");
        warm.push((number, spec, taken));
    }
    let mut seen = HashSet::new();
    for (number, _, Warm { running, .. }) in &warm {
        let agent = running.agent();
        agent.configure(sibling(*number)).await.unwrap();
        agent.set_clock().await.unwrap();
        // The very first bytes: what the kernel had drawn beforehand must not come out twice.
        for command in [
            "head -c 16 /dev/urandom | xxd -p",
            "cat /proc/sys/kernel/random/uuid",
            "hostname",
            "cat /etc/machine-id",
            "cat /sys/class/net/eth1/address",
            "ip -4 addr show eth1 | grep inet",
            "ip -6 addr show eth1 | grep 'scope link'",
        ] {
            let told = succeed(agent, command).await;
            assert!(
                seen.insert((command, told.clone())),
                "two siblings say {told:?} to {command}"
            );
        }
        let mark = format!("test ! -e /data/mark && echo {number} > /data/mark && sync");
        succeed(agent, &mark).await;
        succeed(agent, &format!("echo I am {number} > /dev/ttyS0")).await;
    }
    for (
        number,
        spec,
        Warm {
            running,
            switch_ends,
        },
    ) in warm
    {
        // It has announced itself, as who it has become.
        assert!(!arrived(&switch_ends[0]).is_empty());
        let said = || fs::read_to_string(spec.console.path()).unwrap();
        let wanted = format!("I am {number}");
        wait_until("the console is in the taker's file", async || {
            said().contains(&wanted)
        })
        .await;
        assert!(spec.console.tail(9).contains(&wanted));
        // The signal is one of the few things that QEMU says something about.
        let pid = Pid::from_raw(running.pid().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let stopped = running.wait().await;
        assert_eq!(stopped.spec.data_disk, spec.data_disk);
        let log = fs::read_to_string(&spec.qemu_log).unwrap();
        assert!(log.contains("terminating on signal 15"), "{log:?}");
    }
    pool.close().await;
}

#[tokio::test]
async fn a_machine_has_the_disk_of_its_taker_and_later_layers_over_it() {
    let host = Host::new();
    let spec = spec(&host, "first");
    let pool = filled(&host, &spec, 2).await;
    let Warm { running, .. } = pool.take(&spec).await.unwrap();
    running.agent().configure(sibling(1)).await.unwrap();
    succeed(running.agent(), "echo one > /data/one && sync").await;
    let mut parted = running.part().await.map_err(|(_, error)| error).unwrap();
    parted.stop().await.unwrap();
    let over = host.folder.path().join("over");
    let frozen = parted.freeze_disk(&over).await.unwrap();
    assert_eq!(frozen, spec.data_disk);
    parted.resume().await.unwrap();
    let running = parted.reconnect(BOOT_ALLOWED).await.unwrap();
    succeed(running.agent(), "echo two > /data/two && sync").await;
    let stopped = running.crash().await;
    assert!(
        spec.data_disk
            .unwrap()
            .has_layers_in(host.cache.root())
            .unwrap()
    );
    let layered = stopped.spec.data_disk.clone().unwrap();
    assert!(layered.has_layers_in(host.folder.path()).unwrap());

    // A machine that starts again from the pool finds all of it.
    let Warm { running, .. } = pool.take(&stopped.spec).await.unwrap();
    running.agent().configure(sibling(1)).await.unwrap();
    let told = succeed(running.agent(), "cat /data/one /data/two").await;
    assert_eq!(told, "one\ntwo\n");
    pool.close().await;
}

#[tokio::test]
async fn the_memory_goes_to_where_its_taker_wants_it() {
    let host = Host::new();
    // The pool's file system, which need not be that of temporary files.
    let folder = tempfile::tempdir_in(host.cache.root().join("running")).unwrap();
    let file = folder.path().join("ram");
    let spec = MachineSpec {
        memory: Memory::Own(file.clone()),
        ..spec(&host, "own")
    };
    let pool = filled(&host, &spec, 1).await;
    let shared = MachineSpec {
        memory: Memory::Anonymous,
        ..spec.clone()
    };
    assert_eq!(pool.ready(&shared).await, 0, "it is another kind");
    let elsewhere = MachineSpec {
        memory: Memory::Own("/proc/ram".into()),
        ..spec.clone()
    };
    assert!(pool.take(&elsewhere).await.is_none());
    assert_eq!(pool.ready(&spec).await, 1, "it is as good as before");
    let Warm { running, .. } = pool.take(&spec).await.unwrap();
    assert_eq!(running.spec().memory, Memory::Own(file.clone()));
    assert!(file.exists());
    running.agent().configure(sibling(1)).await.unwrap();
    // Its state can be saved without a detour.
    let parted = running.part().await.map_err(|(_, error)| error).unwrap();
    parted.stop().await.unwrap();
    let state = fs::File::create(folder.path().join("state")).unwrap();
    parted.save(&state).await.unwrap();
    assert!(
        state.metadata().unwrap().len() < 8 << 20,
        "no memory is in it"
    );
    pool.close().await;
}

#[tokio::test]
async fn a_machine_that_died_is_not_handed_out_and_another_is_made() {
    let host = Host::new();
    let spec = spec(&host, "taker");
    let pool = filled(&host, &spec, 2).await;
    let mut waiting = users(pool.folder());
    assert_eq!(waiting.len(), 2);
    let dead = waiting.remove(0);
    let pid = Pid::from_raw(dead.try_into().unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    let taken = pool.take(&spec).await.unwrap();
    assert_eq!(taken.running.pid(), waiting[0]);
    wait_ready(&pool, &spec, 2).await;
    let another = self::spec(&host, "another");
    assert!(pool.take(&another).await.is_some());
    pool.close().await;
}

#[tokio::test]
async fn who_cannot_have_a_machine_does_not_cost_all_of_them() {
    let host = Host::new();
    let spec = spec(&host, "taker");
    let pool = filled(&host, &spec, 3).await;
    let nowhere = MachineSpec {
        qemu_log: "/no/such/folder/log".into(),
        ..spec.clone()
    };
    assert!(pool.take(&nowhere).await.is_none());
    let mut without = spec.clone();
    without.data_disk.as_mut().unwrap().path = "/no/such/disk".into();
    assert!(pool.take(&without).await.is_none());
    assert_eq!(pool.ready(&spec).await, 3);
    let _first = pool.take(&spec).await.unwrap();
    // Two machines on one disk would destroy it.
    assert!(pool.take(&spec).await.is_none());
    assert_eq!(pool.ready(&spec).await, 1);
    pool.close().await;
}

#[tokio::test]
async fn another_kind_is_none_and_is_kept_from_then_on() {
    let host = Host::new();
    let usual = spec(&host, "usual");
    let other = MachineSpec {
        memory_mib: usual.memory_mib + 1,
        ..usual.clone()
    };
    let pool = filled(&host, &usual, 1).await;
    assert!(pool.take(&other).await.is_none());
    wait_ready(&pool, &other, 1).await;
    assert_eq!(pool.ready(&usual).await, 1);
    assert!(pool.take(&other).await.is_some());
    drop(pool);
    let key = Snapshot::key(&host.cache, &other).unwrap();
    host.cache.remove(mvm_machine::snapshot::SNAPSHOTS, &key);
}

#[tokio::test]
async fn a_pool_that_is_closed_or_dropped_leaves_nothing() {
    let host = Host::new();
    let spec = spec(&host, "any");
    let pool = filled(&host, &spec, 2).await;
    let folder = pool.folder().to_owned();
    assert_eq!(users(&folder).len(), 2);
    pool.close().await;
    assert!(users(&folder).is_empty() && !folder.exists());

    // One that is making a machine.
    let pool = Pool::new(&host.cache, options(2)).unwrap();
    let folder = pool.folder().to_owned();
    pool.expect(&spec).await;
    wait_until("a machine is under way", async || {
        !users(&folder).is_empty()
    })
    .await;
    pool.close().await;
    assert!(users(&folder).is_empty() && !folder.exists());

    let pool = filled(&host, &spec, 1).await;
    let folder = pool.folder().to_owned();
    let taken = pool.take(&spec).await.unwrap();
    drop(pool);
    wait_until("all is gone", async || {
        !folder.exists() && users(&folder).iter().all(|pid| *pid == taken.running.pid())
    })
    .await;
    // What was taken does not go with it.
    taken.running.agent().configure(sibling(1)).await.unwrap();
}

#[tokio::test]
async fn kinds_that_nobody_asks_for_are_let_go() {
    let host = Host::new();
    let spec = spec(&host, "any");
    let unused_max = Duration::from_millis(100);
    let pool = Pool::new(
        &host.cache,
        PoolOptions {
            unused_max,
            ..options(1)
        },
    )
    .unwrap();
    // Asked for until it is there.
    wait_until("the pool is full", async || {
        pool.expect(&spec).await;
        pool.ready(&spec).await == 1
    })
    .await;
    wait_until("it is let go", async || users(pool.folder()).is_empty()).await;
    assert_eq!(pool.ready(&spec).await, 0);
    pool.close().await;
}

/// Keeps machines ready until it is killed.
async fn keep() {
    let host = Host::new();
    let _pool = filled(&host, &spec(&host, "any"), 1).await;
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_process_killed_with_a_pool_leaves_nothing() {
    if std::env::var_os(VICTIM).is_some() {
        return keep().await;
    }
    let cache = Cache::for_user().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_killed_with_a_pool_leaves_nothing"])
        .env(VICTIM, "1")
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let prefix = format!("mvm-ci-{}-pool-", victim.id());
    let folder = || {
        let folders = fs::read_dir(cache.root().join("running")).ok()?;
        let mut folders = folders.flatten().map(|folder| folder.path());
        folders.find(|path| path.to_string_lossy().contains(&prefix))
    };
    wait_until("a machine waits", async || {
        folder().is_some_and(|folder| !users(&folder).is_empty())
    })
    .await;
    let kept = folder().unwrap();
    victim.kill().unwrap();
    victim.wait().unwrap();
    wait_until("its folder is gone", async || folder().is_none()).await;
    wait_until("its machine is gone", async || users(&kept).is_empty()).await;
}
