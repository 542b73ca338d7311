//! How soon machines are there whose snapshot is, and what the cache keeps for them.

use std::{
    sync::Mutex,
    time::{Instant, SystemTime},
};

use mvm_lab::{
    event::{Event, Way},
    lab::StartBy,
    scenario::{Outcome, Run, Scenario, ScenarioFuture},
    topology::ImageKind,
};
use mvm_machine::{
    cache::{Cache, Shelf},
    debian::ROOTS,
    image::IMAGES,
    snapshot::SNAPSHOTS,
};

use super::{Kind, print, run};

const MIB: f64 = (1 << 20) as f64;
const SHELVES: [(Shelf, &str); 3] = [
    (IMAGES, "kernel's first file system"),
    (ROOTS, "root"),
    (SNAPSHOTS, "snapshot"),
];

/// What the start of some machines took, in seconds.
struct Started {
    /// Until all answered as themselves.
    answering: f64,
    /// Until services were let go, too.
    serving: f64,
}

pub(crate) async fn measure(kind: Kind) {
    let goals = match kind.image {
        ImageKind::Minimal => [None, None],
        ImageKind::Debian => [Some(0.5), Some(1.2)],
    };
    // The first of its kind is built, booted and frozen; what follows is not to be charged with that.
    start(kind, 1).await;
    let looked = SystemTime::now();
    for (machines, at_most) in [(1, goals[0]), (3, goals[1])] {
        let started = start(kind, machines).await;
        let named = |what: &str| format!("{}, {machines} resumed: {what}", kind.name);
        let name = named("until they answer as themselves");
        print(&name, "s", started.answering, at_most);
        if kind.image == ImageKind::Debian {
            let name = named("until services are let go");
            print(&name, "s", started.serving, None);
        }
    }
    kept(kind, looked);
}

async fn start(kind: Kind, machines: usize) -> Started {
    static SERVING: Mutex<f64> = Mutex::new(0.0);
    async fn steps(run: &Run) -> Outcome {
        let began = Instant::now();
        run.lab.start_all().await?;
        *SERVING.lock().unwrap() = began.elapsed().as_secs_f64();
        Ok(())
    }
    let scenario = Scenario {
        name: "starts".into(),
        about: "machines that are there and do nothing".into(),
        topology: kind.topology(machines),
        prepare: None,
        run: Box::new(|run| -> ScenarioFuture<'_> { Box::pin(steps(run)) }),
    };
    let (mut first, mut last) = (f64::INFINITY, 0.0_f64);
    for stamped in run(&scenario, StartBy::Snapshot).await {
        if let Event::CameUp {
            way, duration_ms, ..
        } = stamped.event
        {
            assert_eq!(way, Way::Resumed);
            first = first.min(stamped.at_ms - duration_ms);
            last = last.max(stamped.at_ms);
        }
    }
    Started {
        answering: (last - first) / 1000.0,
        serving: *SERVING.lock().unwrap(),
    }
}

/// What the cache keeps of all that was used since `looked`.
fn kept(kind: Kind, looked: SystemTime) {
    let cache = Cache::for_user().unwrap();
    for (shelf, what) in SHELVES {
        let entries = cache.entries(&[shelf]).into_iter();
        let bytes: u64 = entries
            .filter(|entry| entry.used >= looked)
            .map(|entry| entry.bytes)
            .sum();
        if bytes > 0 {
            let name = format!("{}, in the cache: {what}", kind.name);
            print(&name, "MiB", bytes as f64 / MIB, None);
        }
    }
}
