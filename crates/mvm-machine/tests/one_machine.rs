//! One real machine: its ends, good and bad, and programs with plug-ins in it.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mvm_machine::{
    accelerator::Accelerator,
    boot_tokens::{self, BootToken},
    cache::Cache,
    console::Console,
    host::{self, HostView},
    image::{Image, ImageBuilder},
    kernel::{Kernel, KernelSource},
    machine::{BootError, Booting, MachineSpec},
    process::Exit,
};

/// Only a hang takes this long.
const BOOT_ALLOWED: Duration = Duration::from_secs(120);

struct Bench {
    cache: Cache,
    kernel: Kernel,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let cache = Cache::for_user().unwrap();
        let kernel = Kernel::obtain(&cache, &KernelSource::Distribution).unwrap();
        Bench {
            cache,
            kernel,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn spec(&self, contents: impl FnOnce(ImageBuilder<'_>) -> ImageBuilder<'_>) -> MachineSpec {
        let view = HostView::of_this_host(self.cache.root().to_owned());
        let image = contents(Image::minimal(&self.kernel))
            .build(&self.cache)
            .unwrap();
        MachineSpec {
            name: "one".to_owned(),
            memory_mib: 128,
            image: Arc::new(image),
            nics: Vec::new(),
            data_disk: None,
            accelerator: Accelerator::Tcg,
            kernel_parameters: Vec::new(),
            console: Console::new(self.folder.path().join("console.log"), Instant::now()),
            qemu: host::find_qemu(&view).unwrap().path,
            qemu_log: self.folder.path().join("qemu.log"),
        }
    }

    async fn token(&self) -> BootToken {
        boot_tokens::acquire(&self.cache.root().join("locks"))
            .await
            .unwrap()
    }
}

/// Without ACPI a guest cannot switch its machine off; it resets, and QEMU takes that for the end.
#[tokio::test]
async fn a_machine_that_powers_off_ends_its_qemu_by_itself() {
    let bench = Bench::new();
    let _token = bench.token().await;
    let booting = Booting::launch(bench.spec(|image| image), Vec::new())
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
    let bench = Bench::new();
    let _token = bench.token().await;
    let mut spec = bench.spec(|image| image);
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
    let bench = Bench::new();
    let mut spec = bench.spec(|image| image);
    spec.data_disk = Some("/no/such/disk.img".into());
    let booting = Booting::launch(spec, Vec::new()).await.unwrap();
    let text = booting.ready(BOOT_ALLOWED).await.err().unwrap().to_string();
    assert!(text.contains("/no/such/disk.img"), "{text}");
}

/// Perl loads this module's shared object from a folder that no ELF file names.
#[tokio::test]
async fn a_program_with_plug_ins_comes_with_its_package_s_files() {
    let bench = Bench::new();
    let _token = bench.token().await;
    let spec = bench.spec(|image| image.package("perl-base"));
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
