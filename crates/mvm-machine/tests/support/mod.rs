//! What tests of real machines share: a cache, a kernel, and specifications.

// Each test file uses a part of this.
#![allow(dead_code)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mvm_agent::client::{Identity, Interface};
use mvm_machine::{
    accelerator::Accelerator,
    boot_tokens::{self, BootToken},
    cache::Cache,
    console::Console,
    data_disk::DataDisk,
    host::{self, HostView},
    image::{Image, ImageBuilder},
    kernel::{Kernel, KernelSource},
    machine::{MacAddress, MachineSpec, Memory},
};

/// Only a hang takes this long.
pub(crate) const BOOT_ALLOWED: Duration = Duration::from_secs(120);

pub(crate) struct Host {
    pub(crate) cache: Cache,
    pub(crate) kernel: Kernel,
    pub(crate) folder: tempfile::TempDir,
}

impl Host {
    pub(crate) fn new() -> Host {
        let cache = Cache::for_user().unwrap();
        let kernel = Kernel::obtain(&cache, &KernelSource::Distribution).unwrap();
        Host {
            cache,
            kernel,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A small machine without cards and disks.
    pub(crate) fn spec(
        &self,
        contents: impl FnOnce(ImageBuilder<'_>) -> ImageBuilder<'_>,
    ) -> MachineSpec {
        let view = HostView::of_this_host(self.cache.root().to_owned());
        let image = contents(Image::minimal(&self.kernel))
            .build(&self.cache)
            .unwrap();
        MachineSpec {
            name: "one".to_owned(),
            memory_mib: 128,
            cpus: 1,
            memory: Memory::Anonymous,
            image: Arc::new(image),
            nics: Vec::new(),
            gateway: None,
            data_disk: None,
            accelerator: Accelerator::Tcg,
            kernel_parameters: Vec::new(),
            qemu_options: Vec::new(),
            console: Console::new(self.folder.path().join("console.log"), Instant::now()),
            qemu: host::find_qemu(&view).unwrap().path,
            qemu_log: self.folder.path().join("qemu.log"),
        }
    }

    pub(crate) async fn token(&self) -> BootToken {
        boot_tokens::acquire(&self.cache.root().join("locks"))
            .await
            .unwrap()
    }
}

/// Who a machine is to be that has siblings: one of this number, with one card.
pub(crate) fn sibling(number: u8) -> Identity {
    Identity {
        hostname: format!("sibling{number}"),
        machine_id: Some(format!("{number:032x}")),
        interfaces: vec![Interface {
            mac: MacAddress::of_card(0).0,
            address: Some([0x52, 0x54, 0, 0x12, 1, number]),
            name: Some("eth1".to_owned()),
            addresses: vec![
                (format!("192.168.1.{number}").parse().unwrap(), 24),
                (format!("2001:db8:1::{number}").parse().unwrap(), 64),
            ],
            gateways: Vec::new(),
            announce: true,
        }],
        name_servers: Vec::new(),
        layers: None,
        hosts: vec![(
            format!("192.168.1.{number}").parse().unwrap(),
            format!("sibling{number}"),
        )],
        mounts: vec![DataDisk::mount()],
    }
}
