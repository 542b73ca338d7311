//! The distribution's kernel package: its name, fetching it, and which one in the cache is the current one.

use std::path::{Path, PathBuf};

use super::{
    ELF_NAME, KERNELS, Kernel, KernelError, MODULES_NAME, Origin, Record, write_elf, write_record,
};
use crate::apt::{Apt, AptError};
use crate::cache::{Cache, ContentKey};
use crate::deb;
use crate::files::{self, Naming};
use crate::host::Distribution;

/// Empty packages which depend on the newest kernel, in the order tried. Kernels made for virtual machines
/// are smaller and boot faster: Debian's cloud kernel by a quarter of a second.
const DEBIAN_NAMES: &[&str] = &["linux-image-cloud-amd64", "linux-image-amd64"];
const UBUNTU_NAMES: &[&str] = &["linux-image-virtual", "linux-image-generic"];

pub(super) fn obtain(cache: &Cache) -> Result<Kernel, KernelError> {
    if let Some(kernel) = cached(cache) {
        return Ok(kernel);
    }
    fetch(cache, Reuse::Current)
}

pub(super) fn refresh(cache: &Cache) -> Result<Kernel, KernelError> {
    fetch(cache, Reuse::SamePackages)
}

pub(super) fn cached(cache: &Cache) -> Option<Kernel> {
    let text = std::fs::read(pointer(cache, &Distribution::detect(Path::new("/")))).ok()?;
    let key: ContentKey = serde_json::from_slice(&text).ok()?;
    Kernel::open(&cache.find(KERNELS, &key)?).ok()
}

/// The file that names the current kernel's entry. A home directory may be shared by hosts of different
/// distributions, and the kernel follows the host's.
fn pointer(cache: &Cache, distribution: &Distribution) -> PathBuf {
    let name: String = format!("{}-{}", distribution.id, distribution.version)
        .chars()
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '-'
            }
        })
        .collect();
    cache.root().join(format!("kernel-of-{name}.json"))
}

/// Which kernel in the cache spares the fetching.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reuse {
    /// One that another process fetched while we waited for it.
    Current,
    /// Only one from the very packages offered now.
    SamePackages,
}

fn fetch(cache: &Cache, reuse: Reuse) -> Result<Kernel, KernelError> {
    let distribution = Distribution::detect(Path::new("/"));
    let workspace = cache.workspace(
        KERNELS,
        &ContentKey::of("fetch the distribution's kernel").finish(),
    )?;
    if reuse == Reuse::Current
        && let Some(kernel) = cached(cache)
    {
        return Ok(kernel);
    }
    let packages = Apt::attempt(workspace.path(), |apt| download(apt, &distribution))?;
    let mut key = ContentKey::of("distribution kernel 1");
    for package in &packages {
        key = key.key(&cache.file_key(package)?);
    }
    let key = key.finish();
    let entry = cache.entry::<KernelError>(KERNELS, &key, |place| unpack(&packages, place))?;
    let kernel = Kernel::open(&entry)?;
    files::replace(
        &pointer(cache, &distribution),
        format!("\"{key}\"").as_bytes(),
    )?;
    tracing::info!(release = kernel.release(), origin = %kernel.origin(), "the kernel is ready");
    Ok(kernel)
}

fn download(apt: &Apt, distribution: &Distribution) -> Result<Vec<PathBuf>, AptError> {
    let names = match distribution.id.as_str() {
        "ubuntu" => UBUNTU_NAMES.to_vec(),
        "debian" => DEBIAN_NAMES.to_vec(),
        _ => [DEBIAN_NAMES, UBUNTU_NAMES].concat(),
    };
    for name in &names {
        let Some(image) = apt
            .depends(name)?
            .into_iter()
            .find(|needed| needed.starts_with("linux-image-"))
        else {
            continue;
        };
        // Ubuntu keeps the modules in a package of their own; Debian does not.
        let needed = apt.depends(&image)?;
        let modules = needed
            .iter()
            .filter(|needed| needed.starts_with("linux-modules-"));
        let packages: Vec<&str> = std::iter::once(&image)
            .chain(modules)
            .map(String::as_str)
            .collect();
        return apt.download(&packages);
    }
    Err(AptError::Absent {
        names: names.into_iter().map(str::to_owned).collect(),
    })
}

/// Unpacks kernel image and modules, and makes an entry of them.
fn unpack(packages: &[PathBuf], place: &Path) -> Result<(), KernelError> {
    let mut image = None;
    for package in packages {
        let written = deb::unpack(package, place, wanted)?;
        image = image.or(written
            .into_iter()
            .find(|path| path.starts_with(place.join(IMAGES_NAME))));
    }
    let names = || {
        packages
            .iter()
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect()
    };
    let image = image.ok_or_else(|| KernelError::NoImage { packages: names() })?;
    let release = write_elf(&image, &place.join(ELF_NAME))?;
    std::fs::remove_dir_all(place.join(IMAGES_NAME)).naming("remove", &image)?;
    write_record(
        place,
        &Record {
            release,
            origin: Origin::Packages(names()),
            modules: None,
        },
    )
}

/// Where the compressed kernel lies while its ELF file is made of it.
const IMAGES_NAME: &str = "images";

/// Where in an entry a file of a package goes: the kernel, the modules, the list of built-in ones.
fn wanted(path: &Path) -> Option<PathBuf> {
    if path.to_str()?.starts_with("boot/vmlinu") {
        return Some(Path::new(IMAGES_NAME).join(path.file_name()?));
    }
    let path = path
        .strip_prefix("usr")
        .unwrap_or(path)
        .strip_prefix("lib/modules")
        .ok()?;
    let mut parts = path.components();
    // The release.
    parts.next()?;
    let below = parts.as_path();
    let name = below.file_name()?.to_str()?;
    (name.contains(".ko") || name == "modules.builtin").then(|| Path::new(MODULES_NAME).join(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_and_modules_are_wanted_wherever_they_lie() {
        for (path, expected) in [
            (
                "lib/modules/6.1/kernel/fs/a.ko",
                Some("modules/kernel/fs/a.ko"),
            ),
            (
                "usr/lib/modules/6.12/kernel/a.ko.xz",
                Some("modules/kernel/a.ko.xz"),
            ),
            (
                "lib/modules/6.1/modules.builtin",
                Some("modules/modules.builtin"),
            ),
            ("lib/modules/6.1/modules.order", None),
            ("lib/modules/6.1", None),
            ("boot/vmlinuz-6.1", Some("images/vmlinuz-6.1")),
            ("usr/share/doc/a.ko", None),
        ] {
            assert_eq!(
                wanted(Path::new(path)),
                expected.map(PathBuf::from),
                "{path}"
            );
        }
    }
}
