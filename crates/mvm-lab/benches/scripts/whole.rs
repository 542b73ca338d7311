//! A whole test, `scenarios/simple-network`, from the decision to run it to its verdict.

use std::{path::Path, time::Instant};

use mvm_lab::{lab::StartBy, script::ScriptTest, topology::ImageKind};

use super::{Kind, print, run};

pub(crate) async fn measure(kind: Kind) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios/simple-network");
    let mut test = ScriptTest::load(&folder).unwrap();
    let minimal = test.topology.image.clone();
    test.topology = kind.imaged(test.topology, minimal);
    if kind.image == ImageKind::Debian {
        for machine in &mut test.topology.machines {
            machine.memory_mib = kind.memory_mib;
            let services = machine.services.iter_mut();
            for argument in services.flat_map(|service| &mut service.command) {
                // There, BusyBox has no links to its applets.
                *argument = argument.replace("exec httpd", "exec busybox httpd");
            }
        }
    }
    let scenario = test.scenario();
    // Once for what is kept: images, and machines booted and frozen.
    run(&scenario, StartBy::Snapshot).await;
    for (start, word) in [(StartBy::Snapshot, "warm"), (StartBy::ColdBoot, "cold")] {
        let began = Instant::now();
        run(&scenario, start).await;
        let name = format!("{}, simple-network, {word}", kind.name);
        print(&name, "s", began.elapsed().as_secs_f64(), None);
    }
}
