//! Builds a root in a machine of ours, for hosts that let their plain users be root nowhere else.
//!
//! ```text
//!   host: mmdebstrap extracts itself and what it runs with ── a disk
//!                                                              │ read by
//!   machine, its root: mmdebstrap as ever ── an archive over the agent's channel ── host: packed as ever
//! ```

use std::{
    error::Error,
    fs::File,
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use mvm_agent::{
    boot::{Mount, MountSource},
    client::{Agent, Event, Identity},
};

use super::{
    build::{BUILDER, Ending},
    recipe::BUILD_FOLDER,
    sources,
};
use crate::{
    accelerator, boot_tokens,
    cache::Cache,
    console::Console,
    data_disk::DataDisk,
    host::{self, HostView},
    image::Image,
    kernel::Kernel,
    machine::{Booting, Gateway, MachineSpec, Memory},
};

/// The serial number of the disk that mmdebstrap is on.
const TOOLS_SERIAL: &str = "tools";
/// Where it is mounted.
const TOOLS: &str = "/tools";
/// Enough for a suite's larger packages, twice: as they come and installed. It takes the space that is written.
const DISK_BYTES: u64 = 16 << 30;
/// apt reads the lists of a whole suite.
const MEMORY_MIB: u32 = 1024;
/// Of an image of ours, on a loaded host.
const BOOT_ALLOWED: Duration = Duration::from_secs(120);
/// Only a hang takes this long, under an emulator too.
const BUILD_ALLOWED: Duration = Duration::from_secs(2 * 3600);
/// Runs its arguments on the tools' disk. The machine's own disk is written without care: nobody asks for it after a
/// power cut.
const ON_TOOLS: &str = "\
set -e
mount -o remount,barrier=0 /data
for folder in proc sys; do mount -o bind /$folder /tools/$folder; done
mount -o bind /data /tools/build
mount -o bind /etc/resolv.conf /tools/etc/resolv.conf
exec chroot /tools \"$@\"
";
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs mmdebstrap in a machine that has the file system `tools`, and writes its archive. Blocks for as long as it takes.
pub(super) fn build(
    cache: &Cache,
    kernel: &Kernel,
    tools: &Path,
    scratch: &Path,
    arguments: Vec<String>,
    archive: impl Write,
    said: File,
) -> Result<Ending, Box<dyn Error + Send + Sync>> {
    let image = Image::minimal(kernel).module("squashfs").data_disk();
    let image = Arc::new(image.build(cache)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (disk, _lease) = DataDisk::create(cache, &scratch.join("disk.qcow2"), DISK_BYTES)?;
        let spec = spec(cache, image, disk, tools, scratch).await?;
        let token = boot_tokens::acquire(&cache.root().join("locks")).await;
        let running = Booting::launch(spec, Vec::new()).await?;
        let running = running.ready(BOOT_ALLOWED).await?;
        drop(token);
        running.agent().configure(identity()).await?;
        running.agent().set_clock().await?;
        let ended = run(running.agent(), arguments, archive, said).await;
        running.crash().await;
        ended
    })
}

async fn spec(
    cache: &Cache,
    image: Arc<Image>,
    disk: DataDisk,
    tools: &Path,
    scratch: &Path,
) -> Result<MachineSpec, Box<dyn Error + Send + Sync>> {
    let view = HostView::of_this_host(cache.root().to_owned());
    let qemu = host::find_qemu(&view).map_err(|finding| finding.summary())?;
    let version = qemu.version.to_string();
    let choice = accelerator::choose(cache, &qemu.path, &version, &image, scratch).await;
    let file = tools.display().to_string().replace(',', ",,");
    let drive = format!("if=none,id=tools,format=raw,readonly=on,file.locking=off,file={file}");
    let options = [
        ["-drive", &drive],
        [
            "-device",
            &format!("virtio-blk-pci,drive=tools,serial={TOOLS_SERIAL}"),
        ],
        // A full disk of the host is an error of the build's, not a machine that waits for somebody to make room.
        ["-global", "virtio-blk-device.werror=report"],
    ];
    Ok(MachineSpec {
        name: "builder".to_owned(),
        memory_mib: MEMORY_MIB,
        cpus: 1,
        memory: Memory::Anonymous,
        image,
        nics: Vec::new(),
        gateway: Some(Gateway),
        data_disk: Some(disk),
        accelerator: choice.accelerator,
        kernel_parameters: Vec::new(),
        qemu_options: options.concat().into_iter().map(str::to_owned).collect(),
        console: Console::new(scratch.join("console.log"), Instant::now()),
        qemu: qemu.path,
        qemu_log: scratch.join("qemu.log"),
    })
}

fn identity() -> Identity {
    let tools = Mount {
        source: MountSource::Disk {
            serial: TOOLS_SERIAL.to_owned(),
        },
        target: TOOLS.to_owned(),
        filesystem: "squashfs".to_owned(),
        read_only: true,
        optional: false,
    };
    Identity {
        hostname: "builder".to_owned(),
        machine_id: None,
        interfaces: vec![Gateway.interface()],
        hosts: Vec::new(),
        name_servers: Gateway.name_servers(),
        mounts: vec![DataDisk::mount(), tools],
        layers: None,
    }
}

async fn run(
    agent: &Agent,
    arguments: Vec<String>,
    mut archive: impl Write,
    mut said: File,
) -> Result<Ending, Box<dyn Error + Send + Sync>> {
    let mut command = agent
        .command("/bin/sh")
        .args(["-c", ON_TOOLS, "sh", BUILDER])
        .args(arguments)
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .env("TMPDIR", BUILD_FOLDER)
        .timeout(BUILD_ALLOWED);
    for (name, proxy) in sources::proxies() {
        command = command.env(name, sources::seen_by_machines(&proxy));
    }
    let mut running = command.spawn().await?;
    let mut ending = None;
    while let Some(event) = running.next_event().await? {
        match event {
            Event::Stdout(bytes) => match archive.write_all(&bytes) {
                // Why it ended, the packer tells.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                written => written?,
            },
            Event::Stderr(bytes) => said.write_all(&bytes)?,
            Event::StdoutClosed => {}
            Event::Exit(status) => ending = Some(status),
        }
    }
    Ok(Ending {
        success: ending.is_some_and(|status| status.success()),
        how: ending.map_or("no end".to_owned(), |status| status.to_string()),
    })
}
