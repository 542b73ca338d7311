//! What a run takes from the host: QEMU, a kernel, an image and an accelerator.
//!
//! Looking at the host for people is `mvm_machine::host`'s work; here the same facts are put to use.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use mvm_machine::{
    accelerator::{self, Accelerator, Choice},
    cache::{Cache, CacheError, ContentKey, Lease},
    files::FileError,
    host::{self, HostView},
    image::{Image, ImageError},
    kernel::{Kernel, KernelError, KernelSource},
    pool::Pool,
};

use crate::topology::{ImageContents, ImageKind, Topology, TopologyError};

/// Which accelerator to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcceleratorRequest {
    /// KVM if a probe guest boots with it, else TCG.
    #[default]
    Auto,
    /// This one, whatever a probe says.
    Only(Accelerator),
}

/// What the caller wants of the environment.
#[derive(Clone, Debug, Default)]
pub struct EnvironmentOptions {
    /// The accelerator.
    pub accelerator: AcceleratorRequest,
    /// A kernel of the caller's instead of the distribution's.
    pub kernel: Option<PathBuf>,
    /// Machines kept ready, see [`warm`](crate::warm).
    pub warm: Option<Arc<Pool>>,
    /// Arguments of QEMU after ours, for all machines. Snapshots and checkpoints are those of the same arguments.
    pub qemu_options: Vec<String>,
}

/// Why the host cannot run a lab.
#[derive(Debug, thiserror::Error)]
pub enum UnfitError {
    /// Something required is missing or too old.
    #[error(
        "could not find what the lab needs on this host: {missing}; `mvm-ci doctor` tells more"
    )]
    Host {
        /// What is missing, what was found instead and what to do.
        missing: String,
    },
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// QEMU could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// An image could not be built.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The topology is wrong.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The preparing thread failed.
    #[error("could not prepare the environment: {0}")]
    Thread(#[source] io::Error),
}

/// A host that can run a lab, and what its machines boot.
pub struct Environment {
    pub(crate) cache: Cache,
    pub(crate) qemu: PathBuf,
    pub(crate) qemu_key: ContentKey,
    pub(crate) qemu_version: String,
    pub(crate) kernel_release: String,
    /// What machines boot, by what it holds.
    images: BTreeMap<ImageContents, Arc<Image>>,
    /// Keep the images in the cache.
    _image_leases: Vec<Lease>,
    pub(crate) accelerator: Choice,
    pub(crate) warm: Option<Arc<Pool>>,
    pub(crate) qemu_options: Vec<String>,
}

impl Environment {
    /// Where the host's boot tokens lie.
    pub(crate) fn tokens(&self) -> PathBuf {
        self.cache.root().join("locks")
    }

    /// Inspects the host and builds or finds the images of a topology's machines. `scratch` takes the accelerator probe's
    /// logs.
    pub async fn prepare(
        options: &EnvironmentOptions,
        topology: &Topology,
        scratch: &Path,
    ) -> Result<Environment, UnfitError> {
        let members = topology.members()?;
        let contents: BTreeSet<_> = members.into_values().map(|member| member.image).collect();
        let kernel_path = options.kernel.clone();
        let prepared =
            tokio::task::spawn_blocking(move || prepare_files(kernel_path, contents)).await;
        let prepared = prepared.map_err(|error| UnfitError::Thread(io::Error::other(error)))??;
        let Prepared {
            cache,
            qemu,
            qemu_key,
            qemu_version,
            kernel_release,
            images,
        } = prepared;
        let any = images.values().next().expect("a topology has a machine");
        let accelerator = match options.accelerator {
            AcceleratorRequest::Auto => {
                accelerator::choose(&cache, &qemu, &qemu_version, any, scratch).await
            }
            AcceleratorRequest::Only(accelerator) => Choice {
                accelerator,
                reason: "as asked".to_owned(),
            },
        };
        Ok(Environment {
            _image_leases: images
                .values()
                .flat_map(|image| image.leases(&cache))
                .collect(),
            cache,
            qemu,
            qemu_key: with_options(qemu_key, &options.qemu_options),
            qemu_version,
            kernel_release,
            images,
            accelerator,
            warm: options.warm.clone(),
            qemu_options: options.qemu_options.clone(),
        })
    }

    /// What a machine boots.
    ///
    /// # Panics
    ///
    /// If the environment was prepared for a topology without such a machine.
    pub(crate) fn image(&self, contents: &ImageContents) -> &Arc<Image> {
        let image = self.images.get(contents);
        image.expect("an environment is prepared for the machines it is used for")
    }

    /// Changes with anything in any image.
    pub(crate) fn images_key(&self) -> ContentKey {
        let images = self.images.values();
        let key = images.fold(ContentKey::of("images"), |key, image| key.key(&image.key));
        key.finish()
    }
}

/// What checkpoints know QEMU by: what was frozen with other devices cannot go on.
fn with_options(qemu: ContentKey, options: &[String]) -> ContentKey {
    if options.is_empty() {
        return qemu;
    }
    let key = ContentKey::of("QEMU with options").key(&qemu);
    options
        .iter()
        .fold(key, |key, option| key.text(option))
        .finish()
}

struct Prepared {
    cache: Cache,
    qemu: PathBuf,
    qemu_key: ContentKey,
    qemu_version: String,
    kernel_release: String,
    images: BTreeMap<ImageContents, Arc<Image>>,
}

fn prepare_files(
    kernel_path: Option<PathBuf>,
    contents: BTreeSet<ImageContents>,
) -> Result<Prepared, UnfitError> {
    let cache = Cache::for_user()?;
    let qemu =
        host::find_qemu(&HostView::of_this_host(cache.root().to_owned())).map_err(|finding| {
            UnfitError::Host {
                missing: finding.summary(),
            }
        })?;
    let source = kernel_path.map_or(KernelSource::Distribution, KernelSource::Path);
    let kernel = Kernel::obtain(&cache, &source)?;
    let mut images = BTreeMap::new();
    for contents in contents {
        let image = Arc::new(build(&cache, &kernel, &contents)?);
        images.insert(contents, image);
    }
    let qemu_key = cache.file_key(&qemu.path)?;
    Ok(Prepared {
        cache,
        qemu: qemu.path,
        qemu_key,
        qemu_version: qemu.version.to_string(),
        kernel_release: kernel.release().to_owned(),
        images,
    })
}

fn build(cache: &Cache, kernel: &Kernel, contents: &ImageContents) -> Result<Image, ImageError> {
    let mut image = match contents.kind {
        // Scripts are run by bash, in every machine.
        ImageKind::Minimal => Image::minimal(kernel).data_disk().program("bash"),
        ImageKind::Debian => Image::debian(kernel, &contents.suite),
    };
    for module in &contents.modules {
        image = image.module(module);
    }
    for program in &contents.programs {
        image = image.program(program);
    }
    for (host, guest) in &contents.renamed_programs {
        image = image.program_as(host, guest);
    }
    for package in &contents.packages {
        image = image.package(package);
    }
    image.build(cache)
}
