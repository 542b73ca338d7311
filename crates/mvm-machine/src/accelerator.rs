//! Which accelerator a machine can use here, found out by booting a real guest.
//!
//! A `/dev/kvm` that opens proves nothing: there are hosts where a virtual machine can be made under
//! KVM and an ordinary kernel then crawls. So `auto` boots our own image under KVM with an agent that
//! resets at once, and gives it a bound. The answer is kept in the cache, per host, kernel and QEMU.

use std::{
    fmt,
    path::Path,
    time::{Duration, Instant},
};

use mvm_agent::boot::PROBE_WORD;
use serde::{Deserialize, Serialize};

use crate::{
    cache::Cache,
    console::Console,
    image::Image,
    machine::{Booting, LaunchError, MachineSpec, Memory},
    process::Exit,
};
use std::sync::Arc;

/// A working KVM boots the probe in well under a second; TCG needs 1.2 s; a crawling KVM needs minutes.
const PROBE_ALLOWED: Duration = Duration::from_secs(5);
/// The probe needs no more: kernel, initramfs and nothing running.
const PROBE_MEMORY_MIB: u32 = 128;

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The host's processor, through the kernel's virtual machine monitor.
    Kvm,
    /// QEMU's translator; works everywhere.
    Tcg,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Accelerator::Kvm => "KVM",
            Accelerator::Tcg => "TCG",
        })
    }
}

/// The accelerator to use and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The accelerator.
    pub accelerator: Accelerator,
    /// A sentence's end for people: "a probe guest booted in 0.4 s".
    pub reason: String,
}

impl fmt::Display for Choice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.accelerator, self.reason)
    }
}

/// Finds the accelerator for this host, by a remembered or a new probe.
///
/// Never fails: whatever goes wrong with KVM is the reason for TCG. `scratch` is a folder for the
/// probe's console and log.
pub async fn choose(
    cache: &Cache,
    qemu: &Path,
    qemu_version: &str,
    image: &Arc<Image>,
    scratch: &Path,
) -> Choice {
    if let Err(error) = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
    {
        return Choice {
            accelerator: Accelerator::Tcg,
            reason: format!("/dev/kvm could not be opened ({error})"),
        };
    }
    let remembered = cache
        .root()
        .join(format!("accelerator-{}.json", host_key(qemu_version)));
    if let Some(choice) = std::fs::read(&remembered)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
    {
        return choice;
    }
    let choice = probe(qemu, image, scratch).await;
    if let Err(error) = remember(&remembered, &choice) {
        tracing::warn!(path = %remembered.display(), %error, "could not remember the accelerator probe");
    }
    choice
}

async fn probe(qemu: &Path, image: &Arc<Image>, scratch: &Path) -> Choice {
    let started = Instant::now();
    let spec = MachineSpec {
        name: "accelerator-probe".into(),
        memory_mib: PROBE_MEMORY_MIB,
        cpus: 1,
        memory: Memory::Anonymous,
        image: Arc::clone(image),
        nics: Vec::new(),
        gateway: None,
        data_disk: None,
        accelerator: Accelerator::Kvm,
        kernel_parameters: vec![PROBE_WORD.into()],
        qemu_options: Vec::new(),
        console: Console::new(scratch.join("console-accelerator-probe.log"), started),
        qemu: qemu.to_owned(),
        qemu_log: scratch.join("qemu-accelerator-probe.log"),
    };
    let (accelerator, reason) = match run_probe(spec).await {
        Ok(Some(Exit::Code(0))) => (
            Accelerator::Kvm,
            format!("a probe guest booted in {:.1?}", started.elapsed()),
        ),
        Ok(Some(exit)) => (
            Accelerator::Tcg,
            format!("QEMU ended with {exit} while a probe guest booted under KVM"),
        ),
        Ok(None) => (
            Accelerator::Tcg,
            format!("a probe guest did not boot under KVM within {PROBE_ALLOWED:?}"),
        ),
        Err(error) => (
            Accelerator::Tcg,
            format!("the probe under KVM failed: {error}"),
        ),
    };
    Choice {
        accelerator,
        reason,
    }
}

async fn run_probe(spec: MachineSpec) -> Result<Option<Exit>, LaunchError> {
    let machine = Booting::launch(spec, Vec::new()).await?;
    Ok(tokio::time::timeout(PROBE_ALLOWED, machine.wait())
        .await
        .ok())
}

/// Changes with anything that could change the answer: the host's kernel and processor, and QEMU.
fn host_key(qemu_version: &str) -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo");
    let model = processor
        .lines()
        .find(|line| line.starts_with("model name"))
        .unwrap_or_default();
    let facts = [
        read("/etc/machine-id"),
        read("/proc/sys/kernel/osrelease"),
        model.into(),
        qemu_version.into(),
    ];
    blake3::hash(facts.join("\0").as_bytes()).to_hex()[..16].to_owned()
}

fn remember(path: &Path, choice: &Choice) -> std::io::Result<()> {
    let file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    serde_json::to_writer(&file, choice)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
