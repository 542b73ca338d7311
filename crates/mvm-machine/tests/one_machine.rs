//! One real machine: its ends, good and bad, and programs with plug-ins in it.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::OpenOptions;

use mvm_machine::{
    data_disk::DataDisk,
    machine::{BootError, Booting, Memory},
    process::Exit,
};
use support::{BOOT_ALLOWED, Host};

/// Without ACPI a guest cannot switch its machine off; it resets, and QEMU takes that for the end.
#[tokio::test]
async fn a_machine_that_powers_off_ends_its_qemu_by_itself() {
    let host = Host::new();
    let _token = host.token().await;
    let booting = Booting::launch(host.spec(|image| image), Vec::new())
        .await
        .unwrap();
    let running = booting.ready(BOOT_ALLOWED).await.unwrap();
    let stopped = running.power_off(BOOT_ALLOWED).await;
    assert_eq!(
        stopped.exit,
        Exit::Code(0),
        "QEMU was killed instead of ending by itself"
    );
}

#[tokio::test]
async fn a_kernel_that_does_not_come_up_is_shown_with_its_last_words() {
    let host = Host::new();
    let _token = host.token().await;
    let mut spec = host.spec(|image| image);
    spec.kernel_parameters.push("rdinit=/no/such/init".into());
    let booting = Booting::launch(spec, Vec::new()).await.unwrap();
    let error = booting.ready(BOOT_ALLOWED).await.err().unwrap();
    assert!(matches!(error, BootError::Ended { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("Kernel panic"), "{text}");
    assert!(text.contains("console.log"), "{text}");
}

#[tokio::test]
async fn what_qemu_complains_of_is_shown() {
    let host = Host::new();
    let mut spec = host.spec(|image| image);
    spec.data_disk = Some(DataDisk {
        path: "/no/such/disk.qcow2".into(),
        bytes: 1 << 20,
    });
    let booting = Booting::launch(spec, Vec::new()).await.unwrap();
    let text = booting.ready(BOOT_ALLOWED).await.err().unwrap().to_string();
    assert!(text.contains("/no/such/disk.qcow2"), "{text}");
}

/// Perl loads this module's shared object from a folder that no ELF file names.
#[tokio::test]
async fn a_program_with_plug_ins_comes_with_its_package_s_files() {
    let host = Host::new();
    let _token = host.token().await;
    let spec = host.spec(|image| image.package("perl-base"));
    let booting = Booting::launch(spec, Vec::new()).await.unwrap();
    let running = booting.ready(BOOT_ALLOWED).await.unwrap();
    let perl = "use Socket; print inet_ntoa(inet_aton('10.1.2.3'))";
    let command = running.agent().command("perl").arg("-e").arg(perl);
    let output = command.output().await.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "10.1.2.3",
        "{output:?}"
    );
}

/// QEMU tells that it has saved a machine, or failed, before it is over it; in between it would refuse to go on.
#[tokio::test]
async fn a_machine_runs_on_right_after_it_was_saved_or_not() {
    const TIMES: usize = 100;
    let host = Host::new();
    let _token = host.token().await;
    let mut spec = host.spec(|image| image);
    spec.memory = Memory::Own(host.folder.path().join("memory"));
    let booting = Booting::launch(spec, Vec::new()).await.unwrap();
    let running = booting.ready(BOOT_ALLOWED).await.unwrap();
    let parted = running.part().await.map_err(|(_, error)| error).unwrap();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    for time in 1..=TIMES {
        parted.stop().await.unwrap();
        let error = parted.save(&full).await.unwrap_err();
        assert!(error.to_string().contains("No space left"), "{error}");
        let resumed = parted.resume().await;
        assert!(resumed.is_ok(), "failed at time {time}: {resumed:?}");
        parted.stop().await.unwrap();
        parted.save(&tempfile::tempfile().unwrap()).await.unwrap();
        let resumed = parted.resume().await;
        assert!(resumed.is_ok(), "saved at time {time}: {resumed:?}");
    }
    let running = parted.reconnect(BOOT_ALLOWED).await.unwrap();
    let echoed = running.agent().shell("echo here").output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&echoed.stdout), "here\n");
}
