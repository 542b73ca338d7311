//! Real machines resumed from one snapshot: each is itself, and what is wrong with a snapshot is found out.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::HashSet,
    os::unix::net::UnixStream,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mvm_agent::client::Agent;
use mvm_machine::{
    data_disk::DataDisk,
    machine::{Booting, MachineSpec, Nic, Running},
    snapshot::{Obtained, SNAPSHOTS, Snapshot},
};
use support::{BOOT_ALLOWED, Host, sibling};

/// A host under load sets a clock within this; in the quiet it takes a few milliseconds.
const CLOCK_ERROR_MAX: Duration = Duration::from_millis(50);

async fn succeed(agent: &Agent, script: &str) -> String {
    let output = agent.shell(script).output().await.unwrap();
    assert!(output.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Resumes a machine with one card that is connected to nothing.
async fn resume(host: &Host, spec: &MachineSpec, number: u8) -> (Running, UnixStream) {
    let (snapshot, _) = Snapshot::obtain(&host.cache, spec, BOOT_ALLOWED)
        .await
        .unwrap();
    let file = |kind: &str| host.folder.path().join(format!("{kind}-{number}"));
    let data_disk = spec.data_disk.as_ref().map(|disk| {
        let created = DataDisk::create(&host.cache, &file("data"), disk.bytes);
        created.unwrap().0
    });
    let spec = MachineSpec {
        name: format!("sibling{number}"),
        data_disk,
        console: spec.console.elsewhere(file("console")),
        qemu_log: file("qemu"),
        ..spec.clone()
    };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let loaded = snapshot.resume(spec, vec![theirs.into()]).await.unwrap();
    let running = loaded
        .go()
        .await
        .unwrap()
        .ready(BOOT_ALLOWED)
        .await
        .unwrap();
    (running, ours)
}

/// What no two siblings may share.
const TELLING: [&str; 7] = [
    "hostname",
    "cat /etc/machine-id",
    "cat /sys/class/net/eth1/address",
    "ip -4 addr show eth1 | grep inet",
    "ip -6 addr show eth1 | grep 'scope global'",
    "ip -6 addr show eth1 | grep 'scope link'",
    "grep sibling /etc/hosts",
];

#[tokio::test]
async fn siblings_are_themselves() {
    let host = Host::new();
    let mut spec = host.spec(|image| image.data_disk());
    spec.nics = vec![Nic::default()];
    spec.data_disk = Some(DataDisk {
        path: "not made yet".into(),
        bytes: 64 << 20,
    });
    let mut seen = HashSet::new();
    let mut random = HashSet::new();
    for number in 1..=3 {
        let (running, _cable) = resume(&host, &spec, number).await;
        let agent = running.agent();
        agent.configure(sibling(number)).await.unwrap();
        // The very first bytes: what the kernel had drawn beforehand must not come out twice.
        let first = succeed(
            agent,
            "head -c 16 /dev/urandom | xxd -p; cat /proc/sys/kernel/random/uuid",
        )
        .await;
        assert!(random.insert(first.clone()), "two siblings drew {first}");
        for command in TELLING {
            let told = succeed(agent, command).await;
            assert!(
                seen.insert((command, told.clone())),
                "two siblings say {told:?} to {command}"
            );
        }
        let told = succeed(agent, "ip -6 addr show eth1").await;
        assert!(!told.contains("dadfailed"), "{told}");
        agent.set_clock().await.unwrap();
        let off = clock_error(agent).await;
        assert!(off < CLOCK_ERROR_MAX, "the wall clock is off by {off:?}");
        // The folder in common was mounted before it was frozen. Nobody serves it here, and nobody who looks hangs.
        let looked = "grep -c ' /tmp/shared fuse ' /proc/mounts; ls /tmp/shared 2>&1 || true";
        let told = succeed(agent, looked).await;
        assert!(
            told.starts_with("1\n") && told.contains("not connected"),
            "{told}"
        );
        // Its disk is its own, and whole.
        succeed(
            agent,
            &format!("test ! -e /data/mark && echo {number} > /data/mark && sync"),
        )
        .await;
    }
}

/// How far the guest's wall clock is from the host's, beyond the time it takes to ask.
async fn clock_error(agent: &Agent) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let before = now();
        // BusyBox's date has no nanoseconds; adjtimex tells the time as the kernel has it.
        let told = succeed(agent, "adjtimex | grep -E 'time.tv_(sec|usec)'").await;
        let after = now();
        let number = |name: &str| -> u64 {
            let line = told.lines().find(|line| line.contains(name)).unwrap();
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        let guest = Duration::new(number("tv_sec"), 0) + Duration::from_micros(number("tv_usec"));
        // It was read between the two.
        let off = before
            .saturating_sub(guest)
            .max(guest.saturating_sub(after));
        best = best.min(off);
    }
    best
}

#[tokio::test]
async fn monotonic_time_goes_on_where_it_stood() {
    let host = Host::new();
    let mut spec = host.spec(|image| image);
    spec.nics = vec![Nic::default()];
    let (one, _cable) = resume(&host, &spec, 1).await;
    let uptime = |agent: Agent| async move {
        let told = succeed(&agent, "cut -d ' ' -f 1 /proc/uptime").await;
        told.trim().parse::<f64>().unwrap()
    };
    let began = Instant::now();
    let first = uptime(one.agent().clone()).await;
    // A cold boot takes a second and more; days would be a clock that jumped.
    assert!(first < 60.0, "a machine just frozen is up for {first} s");
    let second = uptime(one.agent().clone()).await;
    let passed = began.elapsed().as_secs_f64();
    assert!(
        second >= first && second - first < passed + 1.0,
        "{first} s, then {second} s, {passed} s apart"
    );
}

#[tokio::test]
async fn a_machine_resumed_is_made_once_and_found_then() {
    let host = Host::new();
    let mut spec = host.spec(|image| image);
    // Nobody else has a machine of this size, so the first is made here.
    spec.memory_mib = 137;
    spec.kernel_parameters
        .push(format!("mvm.test={}", std::process::id()));
    let obtain = || Snapshot::obtain(&host.cache, &spec, BOOT_ALLOWED);
    let (both, other) = tokio::join!(obtain(), obtain());
    let made = [both.unwrap().1, other.unwrap().1]
        .iter()
        .filter(|obtained| matches!(obtained, Obtained::Made { .. }))
        .count();
    assert_eq!(made, 1, "two at once make one");
    let (snapshot, obtained) = obtain().await.unwrap();
    assert_eq!(obtained, Obtained::Found);

    // Whatever is done to its files, it is noticed, and the machine is made anew.
    let memory = snapshot.memory_file().unwrap();
    drop(snapshot);
    let file = std::fs::File::options().write(true).open(memory).unwrap();
    file.set_len(1 << 20).unwrap();
    let (snapshot, obtained) = obtain().await.unwrap();
    assert!(matches!(obtained, Obtained::Made { .. }), "{obtained:?}");
    let booting = snapshot
        .resume(spec.clone(), Vec::new())
        .await
        .unwrap()
        .go();
    booting.await.unwrap().ready(BOOT_ALLOWED).await.unwrap();
    drop(snapshot);
    let removed = host
        .cache
        .remove(SNAPSHOTS, &Snapshot::key(&host.cache, &spec).unwrap());
    assert!(removed, "nobody uses it any more");
}

#[tokio::test]
async fn a_state_that_does_not_fit_is_an_error_and_no_hang() {
    let host = Host::new();
    let mut spec = host.spec(|image| image);
    spec.nics = vec![Nic::default()];
    let (snapshot, _) = Snapshot::obtain(&host.cache, &spec, BOOT_ALLOWED)
        .await
        .unwrap();
    spec.nics = Vec::new();
    let error = snapshot
        .resume(spec, Vec::new())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("could not load the saved state"), "{error}");
    assert!(
        error.contains("qemu: "),
        "QEMU's own words are shown: {error}"
    );
}

#[tokio::test]
async fn a_cold_machine_becomes_itself_the_same_way() {
    let host = Host::new();
    let mut spec = host.spec(|image| image.data_disk());
    spec.nics = vec![Nic::default()];
    let disk = host.folder.path().join("data");
    let (disk, _lease) = DataDisk::create(&host.cache, &disk, 64 << 20).unwrap();
    spec.data_disk = Some(disk);
    let _token = host.token().await;
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let booting = Booting::launch(spec, vec![theirs.into()]).await.unwrap();
    let running = booting.ready(BOOT_ALLOWED).await.unwrap();
    running.agent().configure(sibling(9)).await.unwrap();
    // Configuring again changes nothing and is no error.
    running.agent().configure(sibling(9)).await.unwrap();
    let address = succeed(running.agent(), "cat /sys/class/net/eth1/address").await;
    assert_eq!(address.trim(), "52:54:00:12:01:09");
    succeed(running.agent(), "echo kept > /data/mark && sync").await;
}
