//! One function per requirement: looks through a [`HostView`] and answers with a [`Finding`]. Each stands alone;
//! their order and what follows from them together live in `survey`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::distribution::Distribution;
use super::finding::{Finding, Necessity, Remedy, Requirement, State};
use super::memory::memory_available_bytes;
use super::probe;
use super::version::Version;
use super::view::HostView;
use crate::debian::{BUILD_TOOLS, Rights, Tool};

/// The first QEMU with `-netdev stream`, by which machines are plugged into the switch.
const QEMU_OLDEST: Version = Version::new(7, 2);
/// The oldest Python that scenario scripts may count on.
const PYTHON_OLDEST: Version = Version::new(3, 9);
/// Three machines of the cluster scenario, measured at 150 MB each when cold, the node inside them, and the runner.
const MEMORY_BYTES_WANTED: u64 = 1 << 30;
/// A kernel package, what it unpacks to, and one image.
const CACHE_BYTES_WANTED: u64 = 512 << 20;
/// The private disks of three machines and a run folder with captures.
const TEMPORARY_BYTES_WANTED: u64 = 512 << 20;

/// A QEMU that can run machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu {
    /// The program.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
}

const QEMU_NAME: &str = "qemu-system-x86_64";

/// Finds a QEMU that is new enough; otherwise the finding tells what is wrong. Blocks some 20 ms.
pub fn find_qemu(view: &HostView) -> Result<Qemu, Box<Finding>> {
    match program(view, QEMU_NAME, QEMU_OLDEST) {
        Ok((path, version)) => Ok(Qemu { path, version }),
        Err(_) => Err(Box::new(qemu(view, &Distribution::detect(&view.root)))),
    }
}

pub(super) fn qemu(view: &HostView, distribution: &Distribution) -> Finding {
    let (state, found) = program_state(view, QEMU_NAME, QEMU_OLDEST);
    let remedy = match state {
        State::Ok => None,
        State::Missing => Some(package(
            "qemu-system-x86",
            "QEMU 7.2 or newer (qemu-system-x86_64)",
            distribution,
        )),
        State::TooOld => Some(Remedy::advice(format!(
            "put QEMU {QEMU_OLDEST} or newer, which has `-netdev stream`, first in PATH; Debian 12 and Ubuntu 24.04 package one"
        ))),
        State::Unfit => Some(Remedy::advice(
            "put a working qemu-system-x86_64 first in PATH, or reinstall its package",
        )),
    };
    let without =
        "no machine boots; a node can still be served and its loopback tests pass".to_owned();
    Finding {
        requirement: Requirement::Qemu,
        necessity: Necessity::Required,
        state,
        found,
        without,
        remedy,
    }
}

pub(super) fn mke2fs(view: &HostView, distribution: &Distribution) -> Finding {
    let (state, found) = presence(view, "mke2fs");
    Finding {
        requirement: Requirement::Mke2fs,
        necessity: Necessity::Required,
        state,
        found,
        without: "machines with a private disk do not boot".to_owned(),
        remedy: (state != State::Ok)
            .then(|| package("e2fsprogs", "mke2fs from e2fsprogs", distribution)),
    }
}

pub(super) fn busybox(view: &HostView, distribution: &Distribution) -> Finding {
    // The package's own file goes into guests, fetched into the cache; an installed one is only second best.
    let (state, found) = if can_download(view, distribution) {
        (
            State::Ok,
            "the busybox package, downloaded when needed".to_owned(),
        )
    } else {
        presence(view, "busybox")
    };
    Finding {
        requirement: Requirement::Busybox,
        necessity: Necessity::Advised,
        state,
        found,
        without: "machines boot and run the programs they are given, but have no shell".to_owned(),
        remedy: (state != State::Ok).then(|| package("busybox", "BusyBox", distribution)),
    }
}

pub(super) fn kernel(view: &HostView, distribution: &Distribution) -> Finding {
    let (state, found) = match &view.given_kernel {
        Some(path) => given_kernel(path),
        None => match kernel_source(view, distribution) {
            Some(source) => (State::Ok, source),
            None => (
                State::Missing,
                format!(
                    "nothing in the cache, no apt tools of a known distribution, nothing readable in {}",
                    view.root.join("boot").display()
                ),
            ),
        },
    };
    Finding {
        requirement: Requirement::Kernel,
        necessity: Necessity::Required,
        state,
        found,
        without: "no machine boots".to_owned(),
        remedy: (state != State::Ok)
            .then(|| Remedy::advice("name a readable Linux kernel with `--kernel PATH`, or make the host's own readable with `chmod a+r /boot/vmlinuz-$(uname -r)`")),
    }
}

pub(super) fn apt(view: &HostView) -> Finding {
    let (state, found) = presence(view, "apt-get");
    Finding {
        requirement: Requirement::Apt,
        necessity: Necessity::Advised,
        state,
        found,
        without: "what is installed and cached works; nothing missing can be fetched".to_owned(),
        remedy: (state != State::Ok)
            .then(|| Remedy::advice("use Debian 12 or newer or Ubuntu 24.04 or newer, or install the other rows' programs by hand")),
    }
}

pub(super) fn memory(view: &HostView) -> Finding {
    let (state, found) = match memory_available_bytes(&view.root) {
        None => (
            State::Unfit,
            "the kernel does not say how much is available".to_owned(),
        ),
        Some(bytes) => (
            enough(bytes, MEMORY_BYTES_WANTED),
            available(bytes, MEMORY_BYTES_WANTED),
        ),
    };
    Finding {
        requirement: Requirement::Memory,
        necessity: Necessity::Advised,
        state,
        found,
        without: "one machine boots in about 150 MB; three machines may not fit".to_owned(),
        remedy: (state != State::Ok).then(|| {
            Remedy::advice("end other programs, or give this host or container more memory")
        }),
    }
}

pub(super) fn cache_folder(view: &HostView) -> Finding {
    let without = "no kernel or image can be kept, so no machine boots".to_owned();
    folder(
        Requirement::CacheFolder,
        &view.cache,
        CACHE_BYTES_WANTED,
        without,
    )
}

pub(super) fn temporary_folder(view: &HostView) -> Finding {
    let without = "machines have no room for their disks, so none boots".to_owned();
    folder(
        Requirement::TemporaryFolder,
        &view.temporary,
        TEMPORARY_BYTES_WANTED,
        without,
    )
}

pub(super) fn python(view: &HostView, distribution: &Distribution) -> Finding {
    let (state, found) = program_state(view, "python3", PYTHON_OLDEST);
    Finding {
        requirement: Requirement::Python,
        necessity: Necessity::Advised,
        state,
        found,
        without: "everything works but scenarios written as Python scripts".to_owned(),
        remedy: (state != State::Ok)
            .then(|| package("python3", "Python 3.9 or newer", distribution)),
    }
}

pub(super) fn debian_images(view: &HostView, distribution: &Distribution) -> Finding {
    let missing: Vec<&Tool> = BUILD_TOOLS
        .iter()
        .filter(|tool| view.find_program(tool.program).is_none())
        .collect();
    let programs = |tools: &[&Tool]| {
        let names: Vec<&str> = tools.iter().map(|tool| tool.program).collect();
        names.join(", ")
    };
    let [builder, _] = &BUILD_TOOLS;
    let (state, found) = match view.find_program(builder.program) {
        Some(builder) if missing.is_empty() => (State::Ok, build_way(&builder)),
        _ => (State::Missing, not_found(&programs(&missing))),
    };
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    Finding {
        requirement: Requirement::DebianImages,
        necessity: Necessity::Advised,
        state,
        found,
        without: "machines with Debian and systemd do not boot unless their image is in the cache"
            .to_owned(),
        remedy: (state != State::Ok).then(|| Remedy {
            packages: packages.iter().map(|name| (*name).to_owned()).collect(),
            ..package(&packages.join(" "), &packages.join(" and "), distribution)
        }),
    }
}

/// How images are built here.
fn build_way(builder: &Path) -> String {
    let way = match Rights::on_this_host(builder) {
        Rights::Root => "built as root".to_owned(),
        Rights::Namespace => "built in a user namespace".to_owned(),
        Rights::Machine { reason } => format!(
            "built in a machine, which takes some ten minutes where it is emulated: {reason}; \
             quicker by the package uidmap and an entry in /etc/subuid and /etc/subgid"
        ),
    };
    format!("{}, {way}", builder.display())
}

/// Whether `name` is there and says it is at least `oldest`.
fn program_state(view: &HostView, name: &str, oldest: Version) -> (State, String) {
    match program(view, name, oldest) {
        Ok((path, version)) => (State::Ok, format!("{version} at {}", path.display())),
        Err(answer) => answer,
    }
}

/// Finds a program that is new enough; the error is its state and the evidence.
fn program(
    view: &HostView,
    name: &str,
    oldest: Version,
) -> Result<(PathBuf, Version), (State, String)> {
    let path = view
        .find_program(name)
        .ok_or_else(|| (State::Missing, not_found(name)))?;
    let shown = path.display();
    let output = probe::version_output(view, &path)
        .map_err(|error| (State::Unfit, format!("{shown}, which {error}")))?;
    let version = Version::in_output(&output).ok_or_else(|| {
        let evidence = format!(
            "{shown}, which does not tell its version{}",
            probe::quoted(&output)
        );
        (State::Unfit, evidence)
    })?;
    if version < oldest {
        return Err((
            State::TooOld,
            format!("{version} at {shown}; needed is {oldest} or newer"),
        ));
    }
    Ok((path, version))
}

fn presence(view: &HostView, name: &str) -> (State, String) {
    match view.find_program(name) {
        Some(path) => (State::Ok, path.display().to_string()),
        None => (State::Missing, not_found(name)),
    }
}

fn not_found(name: &str) -> String {
    format!("no {name} in PATH")
}

fn package(name: &str, what: &str, distribution: &Distribution) -> Remedy {
    if distribution.uses_apt() {
        let advice = format!("apt-get install --no-install-recommends {name}");
        Remedy {
            packages: vec![name.to_owned()],
            advice,
        }
    } else {
        Remedy::advice(format!(
            "install {what} with the package manager of {}",
            distribution.name
        ))
    }
}

/// Whether packages can be fetched and unpacked by us, as any user.
fn can_download(view: &HostView, distribution: &Distribution) -> bool {
    distribution.uses_apt() && view.find_program("apt-get").is_some()
}

fn given_kernel(path: &Path) -> (State, String) {
    match File::open(path).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_file() => (State::Ok, format!("{}, as given", path.display())),
        Ok(_) => (
            State::Unfit,
            format!("{}, as given, is not a file", path.display()),
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (
            State::Missing,
            format!("{}, as given, is not there", path.display()),
        ),
        Err(error) => (
            State::Unfit,
            format!("{}, as given, cannot be read: {error}", path.display()),
        ),
    }
}

/// The first source that the kernel module would use.
fn kernel_source(view: &HostView, distribution: &Distribution) -> Option<String> {
    if let Some(cached) = &view.cached_kernel {
        return Some(format!("{}, in the cache", cached.display()));
    }
    if can_download(view, distribution) {
        return Some(format!(
            "the kernel package of {}, downloaded when needed",
            distribution.name
        ));
    }
    readable_host_kernel(&view.root).map(|path| format!("the host's own, {}", path.display()))
}

/// The running kernel's image, if we may read it and its modules are installed.
fn readable_host_kernel(root: &Path) -> Option<PathBuf> {
    let release = fs::read_to_string(root.join("proc/sys/kernel/osrelease")).ok()?;
    let path = root
        .join("boot")
        .join(format!("vmlinuz-{}", release.trim()));
    let usable =
        root.join("lib/modules").join(release.trim()).is_dir() && File::open(&path).is_ok();
    usable.then_some(path)
}

fn folder(requirement: Requirement, path: &Path, wanted: u64, without: String) -> Finding {
    let (state, found) = folder_state(path, wanted);
    let remedy = (state != State::Ok).then(|| {
        let variable = if requirement == Requirement::CacheFolder {
            "MVM_CI_CACHE"
        } else {
            "TMPDIR"
        };
        Remedy::advice(format!("make room, or name another folder in {variable}"))
    });
    Finding {
        requirement,
        necessity: Necessity::Required,
        state,
        found,
        without,
        remedy,
    }
}

/// Looks at the nearest folder that exists: the rest is made when needed.
fn folder_state(path: &Path, wanted: u64) -> (State, String) {
    let shown = path.display();
    let Some(existing) = path.ancestors().find(|folder| folder.exists()) else {
        return (State::Missing, format!("{shown} is on no file system"));
    };
    if !existing.is_dir() {
        return (
            State::Unfit,
            format!("{shown}: {} is not a folder", existing.display()),
        );
    }
    if let Err(error) = rustix::fs::access(existing, Access::WRITE_OK | Access::EXEC_OK) {
        return (
            State::Unfit,
            format!(
                "{shown}: cannot write in {}: {}",
                existing.display(),
                io::Error::from(error)
            ),
        );
    }
    match rustix::fs::statvfs(existing) {
        Err(error) => (
            State::Unfit,
            format!("{shown}: free space unknown: {}", io::Error::from(error)),
        ),
        Ok(space) => {
            let bytes = space.f_bavail.saturating_mul(space.f_frsize);
            (
                enough(bytes, wanted),
                format!("{} in {shown}", available(bytes, wanted)),
            )
        }
    }
}

fn enough(bytes: u64, wanted: u64) -> State {
    if bytes >= wanted {
        State::Ok
    } else {
        State::Unfit
    }
}

fn available(bytes: u64, wanted: u64) -> String {
    let mib = |bytes: u64| bytes >> 20;
    match enough(bytes, wanted) {
        State::Ok => format!("{} MiB free", mib(bytes)),
        State::Missing | State::TooOld | State::Unfit => {
            format!("{} MiB free, wanted are {} MiB", mib(bytes), mib(wanted))
        }
    }
}
