//! The kernel a machine boots: where it comes from, its ELF file, and its modules.
//!
//! Sources, in order: a path the user gave; the distribution's own kernel package, fetched with apt as an
//! ordinary user and unpacked by us; the host's own kernel, where it may be read. What goes into an
//! initramfs beside the modules is decided in [`crate::image`].

mod bzimage;
mod modinfo;
mod modules;
mod package;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::bzimage::KernelImageError;
pub use self::modinfo::ModuleFileError;
use self::modules::ModuleTree;
pub use self::modules::{ModuleError, ModuleFile};
use crate::apt::AptError;
use crate::cache::{Cache, ContentKey, Shelf};
use crate::deb::DebError;
use crate::files::{self, FileError, Naming};

/// A kernel could not be obtained.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The file cannot be booted.
    #[error("could not use {} as a kernel: could not {cause}", path.display())]
    Image {
        /// The kernel's file.
        path: PathBuf,
        /// What is wrong with it.
        cause: KernelImageError,
    },
    /// The packages were fetched, but there is no kernel in them.
    #[error("could not find a kernel image in the packages {}", packages.join(", "))]
    NoImage {
        /// The packages looked into.
        packages: Vec<String>,
    },
    /// The packages could not be fetched.
    #[error(transparent)]
    Apt(#[from] AptError),
    /// A package could not be unpacked.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// Neither the distribution nor the host has a kernel for us.
    #[error(
        "could not obtain a kernel: {distribution}; the host's own cannot be used either: {host}; give one with --kernel PATH"
    )]
    Nowhere {
        /// What went wrong with the distribution's package.
        distribution: Box<KernelError>,
        /// What went wrong with the host's own kernel.
        host: Box<KernelError>,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Where a kernel is taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelSource {
    /// This file: a `vmlinux` ELF file or a bzImage.
    ///
    /// Its modules are looked for in `lib/modules/RELEASE` beside it, above it, and on the host. Where there
    /// are none the kernel is taken to have everything built in.
    Path(PathBuf),
    /// The distribution's kernel package; failing that, the host's own kernel.
    Distribution,
}

/// Which source a kernel came from, for the user to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A file the user named.
    Given(PathBuf),
    /// These package files of the distribution.
    Packages(Vec<String>),
    /// The kernel the host runs.
    Host(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Given(path) => write!(formatter, "{}", path.display()),
            Origin::Packages(names) => write!(formatter, "package {}", names.join(", ")),
            Origin::Host(path) => write!(formatter, "the host's own, {}", path.display()),
        }
    }
}

/// A kernel that is ready to boot.
#[derive(Debug, Clone)]
pub struct Kernel {
    elf: PathBuf,
    record: Record,
    modules: Option<ModuleTree>,
    modules_directory: Option<PathBuf>,
}

/// What is remembered about a kernel beside its ELF file.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    release: String,
    origin: Origin,
    /// Where the modules lie, if not in the entry itself.
    modules: Option<PathBuf>,
}

/// Kernels are never thrown away: without a network there would be no second one.
const KERNELS: Shelf = Shelf {
    name: "kernels",
    unused_max: None,
};

/// Unpacked from a file the user gave: easily made again.
pub const GIVEN_KERNELS: Shelf = Shelf {
    name: "given-kernels",
    unused_max: Some(Duration::from_secs(14 * 24 * 3600)),
};

const ELF_NAME: &str = "vmlinux";
const MODULES_NAME: &str = "modules";
const RECORD_NAME: &str = "kernel.json";

impl Kernel {
    /// Obtains a kernel, from the cache where it is there already; then nothing is fetched or asked.
    ///
    /// Blocks: on a first run it downloads some tens of megabytes.
    pub fn obtain(cache: &Cache, source: &KernelSource) -> Result<Self, KernelError> {
        match source {
            KernelSource::Path(path) => Self::import(cache, path, Origin::Given(path.clone())),
            KernelSource::Distribution => match package::obtain(cache) {
                Ok(kernel) => Ok(kernel),
                Err(distribution) => {
                    Self::of_host(cache, Path::new("/")).map_err(|host| KernelError::Nowhere {
                        distribution: Box::new(distribution),
                        host: Box::new(host),
                    })
                }
            },
        }
    }

    /// Looks for a newer kernel package of the distribution, and makes it the one [`Kernel::obtain`] gives.
    pub fn refresh(cache: &Cache) -> Result<Self, KernelError> {
        package::refresh(cache)
    }

    /// The distribution's kernel in the cache, if one was fetched before.
    pub fn cached(cache: &Cache) -> Option<Self> {
        package::cached(cache)
    }

    /// The ELF file, for QEMU's `-kernel`.
    pub fn elf(&self) -> &Path {
        &self.elf
    }

    /// The release, as `uname -r` prints it in the guest.
    pub fn release(&self) -> &str {
        &self.record.release
    }

    /// Where the kernel came from.
    pub fn origin(&self) -> &Origin {
        &self.record.origin
    }

    /// The module files to load, in order, for the named modules to work.
    ///
    /// Names are those of `modprobe`, without aliases. Built-in ones add nothing; all are built in where the
    /// kernel came without modules.
    pub fn resolve(&self, names: &[&str]) -> Result<Vec<ModuleFile>, ModuleError> {
        self.modules
            .as_ref()
            .map_or(Ok(Vec::new()), |tree| tree.resolve(names))
    }

    /// The folder of its modules on the host, laid out as `lib/modules/RELEASE`.
    pub fn modules_directory(&self) -> Option<&Path> {
        self.modules_directory.as_deref()
    }

    /// Whether this kernel may be handed modules without their signatures: the distributions' do not insist.
    pub(crate) fn takes_unsigned_modules(&self) -> bool {
        match self.record.origin {
            Origin::Packages(_) => true,
            Origin::Given(_) | Origin::Host(_) => false,
        }
    }

    fn of_host(cache: &Cache, root: &Path) -> Result<Self, KernelError> {
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        let path = root.join("boot").join(format!("vmlinuz-{release}"));
        tracing::info!(path = %path.display(), "trying the host's own kernel");
        Self::import(cache, &path, Origin::Host(path.clone()))
    }

    fn import(cache: &Cache, path: &Path, origin: Origin) -> Result<Self, KernelError> {
        let path = std::fs::canonicalize(path).naming("find the kernel", path)?;
        let key = ContentKey::of("given kernel 1")
            .key(&cache.file_key(&path)?)
            .text(&path.to_string_lossy())
            .finish();
        let entry = cache.entry::<KernelError>(GIVEN_KERNELS, &key, |place| {
            let release = write_elf(&path, &place.join(ELF_NAME))?;
            let modules = modules_beside(&path, &release);
            if modules.is_none() {
                tracing::warn!(
                    release,
                    "found no modules for the kernel, which must have all drivers built in"
                );
            }
            write_record(
                place,
                &Record {
                    release,
                    origin,
                    modules,
                },
            )
        })?;
        Self::open(&entry)
    }

    fn open(entry: &Path) -> Result<Self, KernelError> {
        let path = entry.join(RECORD_NAME);
        let record: Record = serde_json::from_slice(&files::read(&path)?)
            .map_err(std::io::Error::from)
            .naming("read the record", &path)?;
        let within = entry.join(MODULES_NAME);
        let directory = record
            .modules
            .clone()
            .or_else(|| within.is_dir().then_some(within));
        let modules = directory
            .as_ref()
            .map(|directory| ModuleTree::open(directory, &record.release))
            .transpose()?;
        Ok(Kernel {
            elf: entry.join(ELF_NAME),
            record,
            modules,
            modules_directory: directory,
        })
    }
}

/// Extracts the ELF file of a kernel image, and gives the kernel's release.
fn write_elf(image: &Path, place: &Path) -> Result<String, KernelError> {
    let content = files::read(image)?;
    let wrong = |cause| KernelError::Image {
        path: image.to_owned(),
        cause,
    };
    let elf = bzimage::extract_elf(&content).map_err(wrong)?;
    files::write(place, &elf)?;
    bzimage::release(&elf).map_err(wrong)
}

fn write_record(entry: &Path, record: &Record) -> Result<(), KernelError> {
    let path = entry.join(RECORD_NAME);
    let text = serde_json::to_vec_pretty(record)
        .map_err(std::io::Error::from)
        .naming("write the record", &path)?;
    Ok(files::write(&path, &text)?)
}

fn modules_beside(kernel: &Path, release: &str) -> Option<PathBuf> {
    let beside = kernel.parent()?;
    let above = beside.parent().unwrap_or(beside);
    [beside, above, Path::new("/")]
        .into_iter()
        .flat_map(|root| {
            ["lib/modules", "usr/lib/modules"].map(|part| root.join(part).join(release))
        })
        .find(|directory| directory.is_dir())
}

#[cfg(test)]
mod tests {
    use super::bzimage::tests::{bzimage, elf_kernel};
    use super::modules::tests::module;
    use super::*;

    fn host() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path().join("cache")).unwrap();
        (directory, cache)
    }

    #[test]
    fn a_given_kernel_comes_with_the_modules_beside_it() {
        let (directory, cache) = host();
        let path = directory.path().join("boot/vmlinuz");
        let elf = elf_kernel(b"Xen\0", 62);
        files::write(&path, &bzimage(&elf)).unwrap();
        files::write(
            &directory.path().join("lib/modules/6.1.0-9-test/virtio.ko"),
            &module(&[]),
        )
        .unwrap();
        for _ in 0..2 {
            let kernel = Kernel::obtain(&cache, &KernelSource::Path(path.clone())).unwrap();
            assert_eq!(std::fs::read(kernel.elf()).unwrap(), elf);
            assert_eq!(kernel.release(), "6.1.0-9-test");
            assert_eq!(kernel.resolve(&["virtio"]).unwrap().len(), 1);
            assert!(kernel.resolve(&["virtia"]).is_err());
        }
    }

    #[test]
    fn a_kernel_without_modules_has_everything_built_in() {
        let (directory, cache) = host();
        let path = directory.path().join("vmlinux");
        files::write(&path, &elf_kernel(b"Xen\0", 62)).unwrap();
        let kernel = Kernel::obtain(&cache, &KernelSource::Path(path)).unwrap();
        assert!(kernel.resolve(&["anything"]).unwrap().is_empty());
    }

    #[test]
    fn a_file_that_is_no_kernel_is_named() {
        let (directory, cache) = host();
        let path = directory.path().join("notes.txt");
        let obtain = || {
            Kernel::obtain(&cache, &KernelSource::Path(path.clone()))
                .unwrap_err()
                .to_string()
        };
        let message = obtain();
        assert!(
            message.starts_with("could not find the kernel /"),
            "{message}"
        );
        files::write(&path, b"hello").unwrap();
        let message = obtain();
        assert!(message.ends_with("notes.txt as a kernel: could not recognise it as an x86-64 kernel: it is neither an ELF file nor a bzImage"), "{message}");
    }
}
