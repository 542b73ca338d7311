//! One machine, and three beside one another, by themselves: no lab, no network.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use super::print;
use mvm_agent::{boot::PROBE_WORD, client::Identity};
use mvm_machine::{
    accelerator::{self, Accelerator},
    cache::{Cache, ContentKey},
    console::Console,
    host::{self, HostView},
    image::{IMAGES, Image},
    kernel::{Kernel, KernelSource},
    machine::{Booting, MachineSpec, Memory, Running},
    pool::{Cable, Pool, PoolOptions},
    snapshot::{Obtained, SNAPSHOTS, Snapshot},
};

const BOOT_ALLOWED: Duration = Duration::from_secs(120);
const MIB: f64 = (1 << 20) as f64;
/// One round trip is too short to measure alone.
const ROUND_TRIPS: u32 = 200;
/// A few milliseconds are too short to measure once.
const TAKES: usize = 15;
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

pub(crate) async fn measure() {
    let host = Host::look().await;
    let bare = host.bare_kernel().await;
    print("bare kernel, an init that ends at once", "ms", bare, None);
    let (running, took) = host.boot("one").await;
    print("one minimal machine, cold", "ms", took, Some(1400.0));
    let round_trip = round_trip(&running).await;
    print("agent round trip", "ms", round_trip, Some(3.0));
    drop(running);
    host.snapshot().await;
    let resumed = host.resumed().await;
    print("one minimal machine, resumed", "ms", resumed, Some(150.0));
    let (taken, itself) = host.warm().await;
    let name = "one minimal machine, from the warm pool";
    print(name, "ms", taken, Some(20.0));
    let name = "one minimal machine, from the warm pool, as itself";
    print(name, "ms", itself, None);
    let three = host.three().await;
    print("three machines at once, cold", "ms", three, Some(4000.0));
}

struct Host {
    image: Arc<Image>,
    accelerator: Accelerator,
    qemu: PathBuf,
    scratch: tempfile::TempDir,
    cache: Cache,
}

impl Host {
    async fn look() -> Host {
        let scratch = tempfile::tempdir().unwrap();
        let cache = Cache::for_user().unwrap();
        let qemu = host::find_qemu(&HostView::of_this_host(cache.root().to_owned())).unwrap();
        let kernel = Kernel::obtain(&cache, &KernelSource::Distribution).unwrap();
        let image = Arc::new(Image::minimal(&kernel).build(&cache).unwrap());
        let version = qemu.version.to_string();
        let choice =
            accelerator::choose(&cache, &qemu.path, &version, &image, scratch.path()).await;
        Host {
            image,
            accelerator: choice.accelerator,
            qemu: qemu.path,
            scratch,
            cache,
        }
    }

    fn spec(&self, name: &str) -> MachineSpec {
        let file = |kind| self.scratch.path().join(format!("{kind}-{name}.log"));
        MachineSpec {
            name: name.to_owned(),
            memory_mib: 256,
            cpus: 1,
            image: Arc::clone(&self.image),
            nics: Vec::new(),
            gateway: None,
            memory: Memory::Anonymous,
            data_disk: None,
            accelerator: self.accelerator,
            kernel_parameters: Vec::new(),
            qemu_options: Vec::new(),
            console: Console::new(file("console"), Instant::now()),
            qemu: self.qemu.clone(),
            qemu_log: file("qemu"),
        }
    }

    async fn boot(&self, name: &str) -> (Running, f64) {
        let started = Instant::now();
        let booting = Booting::launch(self.spec(name), Vec::new()).await.unwrap();
        let running = booting.ready(BOOT_ALLOWED).await.unwrap();
        (running, milliseconds(started.elapsed()))
    }

    /// A machine frozen for the first time, and what it takes in the cache.
    async fn snapshot(&self) {
        let mut spec = self.spec("frozen");
        // Nobody else has one like it.
        spec.kernel_parameters
            .push(format!("mvm.bench={}", std::process::id()));
        let obtained = Snapshot::obtain(&self.cache, &spec, BOOT_ALLOWED).await;
        let Obtained::Made { saved_in, .. } = obtained.unwrap().1 else {
            panic!("a machine that was never frozen before was found frozen");
        };
        print(
            "a snapshot taken",
            "ms",
            milliseconds(saved_in),
            Some(100.0),
        );
        let key = Snapshot::key(&self.cache, &spec).unwrap();
        let entries = self.cache.entries(&[IMAGES, SNAPSHOTS]);
        let mib = |key: &ContentKey| {
            let entry = entries.iter().find(|entry| entry.key == *key).unwrap();
            entry.bytes as f64 / MIB
        };
        print("an image in the cache", "MiB", mib(&self.image.key), None);
        print("its snapshot in the cache", "MiB", mib(&key), None);
        self.cache.remove(SNAPSHOTS, &key);
    }

    /// From the decision to start it to a machine that answers as itself; the snapshot is there.
    async fn resumed(&self) -> f64 {
        let spec = self.spec("resumed");
        let obtained = Snapshot::obtain(&self.cache, &spec, BOOT_ALLOWED).await;
        drop(obtained.unwrap());
        let started = Instant::now();
        let (snapshot, _) = Snapshot::obtain(&self.cache, &spec, BOOT_ALLOWED)
            .await
            .unwrap();
        let loaded = snapshot.resume(spec, Vec::new()).await.unwrap();
        let booting = loaded.go().await.unwrap();
        let running = booting.ready(BOOT_ALLOWED).await.unwrap();
        become_somebody(&running).await;
        milliseconds(started.elapsed())
    }

    /// From the decision to take it to a machine that answers, and to one that answers as itself: the medians.
    async fn warm(&self) -> (f64, f64) {
        let options = PoolOptions {
            machines_per_kind: 1,
            memory_mib_max: 1024,
            unused_max: BOOT_ALLOWED,
            boot_allowed: BOOT_ALLOWED,
            cable: Cable::plain,
        };
        let spec = self.spec("taker");
        let pool = Pool::new(&self.cache, options).unwrap();
        pool.expect(&spec).await;
        let (mut taken, mut itself) = (Vec::new(), Vec::new());
        for _ in 0..TAKES {
            while pool.ready(&spec).await == 0 {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            let started = Instant::now();
            let warm = pool.take(&spec).await.unwrap();
            taken.push(milliseconds(started.elapsed()));
            become_somebody(&warm.running).await;
            itself.push(milliseconds(started.elapsed()));
        }
        pool.close().await;
        (median(taken), median(itself))
    }

    async fn three(&self) -> f64 {
        let started = Instant::now();
        let _all = tokio::join!(self.boot("a"), self.boot("b"), self.boot("c"));
        milliseconds(started.elapsed())
    }

    /// The same kernel and initramfs with an init that resets before it does anything.
    async fn bare_kernel(&self) -> f64 {
        let mut spec = self.spec("bare");
        spec.kernel_parameters.push(PROBE_WORD.to_owned());
        let started = Instant::now();
        let booting = Booting::launch(spec, Vec::new()).await.unwrap();
        booting.wait().await;
        milliseconds(started.elapsed())
    }
}

async fn become_somebody(running: &Running) {
    let identity = Identity {
        hostname: "somebody".to_owned(),
        machine_id: Some("0".repeat(32)),
        interfaces: Vec::new(),
        hosts: Vec::new(),
        name_servers: Vec::new(),
        layers: None,
        mounts: Vec::new(),
    };
    running.agent().configure(identity).await.unwrap();
    running.agent().set_clock().await.unwrap();
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn round_trip(running: &Running) -> f64 {
    let started = Instant::now();
    for _ in 0..ROUND_TRIPS {
        running.agent().ping(BOOT_ALLOWED).await.unwrap();
    }
    milliseconds(started.elapsed() / ROUND_TRIPS)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
