//! What a test script costs, on minimal machines and on Debian's: how soon machines are there, what a call takes and
//! where that time goes, how long a whole test takes, and what is kept in the cache for it.
//!
//! Measures each thing once, a call by the median of many, and prints one line of JSON per measurement; `cargo xtask bench
//! scripts` repeats it and prints the medians. The first run ever builds the Debian image, which takes minutes and is not
//! measured. Starts are in `starts`, calls in `calls` and `calls.py`, the whole test in `whole`.

// The lines are this program's output, and a measurement that cannot be made ends it.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod calls;
mod starts;
mod whole;

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use mvm_lab::{
    event::Stamped,
    lab::StartBy,
    runner::{self, RunOptions},
    scenario::Scenario,
    topology::{ImageContents, ImageKind, MachineConfig, Topology},
    verdict::Verdict,
};
use serde_json::json;

/// A Debian that boots cold, under an emulator, beside two others.
const BOOT_ALLOWED: Duration = Duration::from_secs(300);

/// What a machine is made of.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) image: ImageKind,
    pub(crate) memory_mib: u32,
    /// What the whole test needs, so that all machines of the kind have one image.
    packages: &'static [&'static str],
}

pub(crate) const MINIMAL: Kind = Kind {
    name: "minimal",
    image: ImageKind::Minimal,
    memory_mib: 128,
    packages: &[],
};
pub(crate) const DEBIAN: Kind = Kind {
    name: "debian",
    image: ImageKind::Debian,
    memory_mib: 320,
    packages: &["busybox", "curl", "iproute2", "iputils-ping", "iptables"],
};

impl Kind {
    /// So many machines.
    pub(crate) fn topology(self, machines: usize) -> Topology {
        let machines = (1..=machines).map(|number| MachineConfig {
            memory_mib: self.memory_mib,
            ..MachineConfig::new(format!("node{number}"))
        });
        self.imaged(Topology::new(machines.collect()), ImageContents::default())
    }

    /// A topology whose machines are of this kind; `minimal` tells what they have where that is minimal.
    pub(crate) fn imaged(self, topology: Topology, minimal: ImageContents) -> Topology {
        let image = match self.image {
            ImageKind::Minimal => minimal,
            ImageKind::Debian => ImageContents {
                kind: ImageKind::Debian,
                packages: self.packages.iter().copied().map(str::to_owned).collect(),
                firewall: true,
                ..ImageContents::default()
            },
        };
        Topology {
            image,
            boot_timeout: BOOT_ALLOWED,
            ..topology
        }
    }
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for kind in [MINIMAL, DEBIAN] {
        runtime.block_on(starts::measure(kind));
        runtime.block_on(calls::measure(kind));
        runtime.block_on(whole::measure(kind));
    }
}

pub(crate) fn print(name: &str, unit: &str, value: f64, at_most: Option<f64>) {
    println!(
        "{}",
        json!({ "name": name, "unit": unit, "value": value, "at_most": at_most })
    );
}

/// Runs a scenario, which must pass; returns what happened in it.
pub(crate) async fn run(scenario: &Scenario, start: StartBy) -> Vec<Stamped> {
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let runs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runs");
    let options = RunOptions {
        start,
        listeners: vec![Box::new(move |stamped| {
            heard.lock().unwrap().push(stamped.clone());
        })],
        ..RunOptions::new(runs, ["cargo", "xtask", "bench", "scripts"])
    };
    let report = runner::run(scenario, options).await.unwrap();
    assert_eq!(report.verdict, Verdict::Passed, "{:?}", report.message);
    let mut events = events.lock().unwrap();
    std::mem::take(&mut *events)
}
