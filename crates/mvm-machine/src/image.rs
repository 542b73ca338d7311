//! What machines boot. The `minimal` image: an initramfs with the agent as PID 1, BusyBox and the modules asked for, and a
//! read-only disk with the host programs, shared by all machines.
//!
//! The initramfs stays small, since every machine unpacks it for itself: host programs ride on the shared
//! disk, mounted at `/host`, and the initramfs has a link for each of their files. The kernel is
//! [`crate::kernel`]'s; private disks are [`crate::data_disk`]'s. The root of a Debian image, to which a small initramfs
//! leads, is [`crate::debian`]'s.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use mvm_agent::boot::{BOOT_PLAN_PATH, BootPlan, INIT_PATH, Mount, MountSource, RootPlan};

use crate::{
    agent_binary,
    apt::{Apt, AptError},
    cache::{Cache, ContentKey, Lease, Shelf},
    data_disk,
    deb::{self, DebError},
    debian::{self, DebianError},
    elf::{self, ElfError},
    files::{self, FileError, Naming},
    initramfs::{Entry, Tree},
    kernel::{Kernel, ModuleError},
    qemu::SHARED_SERIAL,
    shared_image::{self, SharedImageError},
};

/// What every machine needs to talk to us and to its kin.
const BOOT_MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_console",
    "virtio_net",
    "virtio_blk",
    "virtio_rng",
    // For the folder in common.
    "fuse",
    // An eth0 for machines without a way out.
    "dummy",
];
const SHARED_MODULES: &[&str] = &["squashfs"];
const DATA_MODULES: &[&str] = &["ext4"];
/// Where the shared disk is mounted.
const SHARED_MOUNT: &str = "/host";
/// Where a program is found before the guest's own of the same name.
const FIRST_IN_PATH: &str = "/usr/local/bin";
/// Built quickly, and large: those unused for two weeks may go.
pub const IMAGES: Shelf = Shelf {
    name: "images",
    unused_max: Some(Duration::from_secs(14 * 24 * 3600)),
};
const FETCHED_BUSYBOX: Shelf = Shelf {
    name: "busybox",
    unused_max: None,
};
const CA_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Loaded by name at run time by glibc, so no ELF file asks for them (glibc before 2.34).
const NAME_SERVICE_LIBRARIES: &[&str] = &["libnss_files.so.2", "libnss_dns.so.2"];

/// An image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A kernel module is missing.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// A host program or its libraries are missing.
    #[error(transparent)]
    Program(#[from] ElfError),
    /// The host's package manager does not know a package.
    #[error("could not list the files of package {package}: {evidence}")]
    Package {
        /// The package.
        package: String,
        /// What `dpkg -L` said.
        evidence: String,
    },
    /// BusyBox does not say what it can do.
    #[error("could not ask {path:?} for its commands: {evidence}")]
    Busybox {
        /// The program.
        path: PathBuf,
        /// What it said.
        evidence: String,
    },
    /// BusyBox could not be fetched.
    #[error(transparent)]
    Apt(#[from] AptError),
    /// The BusyBox package could not be unpacked.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// The host has no CA certificates.
    #[error("could not find {CA_CERTIFICATES} on this host; install the package ca-certificates")]
    NoCertificates,
    /// The Debian root could not be built.
    #[error(transparent)]
    Debian(#[from] DebianError),
    /// The shared disk could not be written.
    #[error(transparent)]
    Shared(#[from] SharedImageError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// An image that is ready to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The kernel's ELF file.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// The disk all machines share, if there is anything on it.
    pub shared: Option<PathBuf>,
    /// The read-only disk with a root of its own, whose init is systemd.
    pub root: Option<PathBuf>,
    root_key: Option<ContentKey>,
    /// Changes with anything in the image.
    pub key: ContentKey,
}

impl Image {
    /// Begins a minimal image on `kernel`.
    pub fn minimal(kernel: &Kernel) -> ImageBuilder<'_> {
        ImageBuilder {
            kernel,
            base: Base::Minimal,
            modules: Vec::new(),
            programs: Vec::new(),
            packages: Vec::new(),
            certificates: false,
            data_disk: false,
        }
    }

    /// Begins an image of a Debian suite with systemd on `kernel`; its packages are the suite's. Its machines need a
    /// private disk.
    pub fn debian<'a>(kernel: &'a Kernel, suite: &str) -> ImageBuilder<'a> {
        ImageBuilder {
            base: Base::Debian {
                suite: suite.to_owned(),
            },
            ..Image::minimal(kernel).data_disk()
        }
    }

    /// Keeps what it consists of in the cache.
    pub fn leases(&self, cache: &Cache) -> Vec<Lease> {
        let root = self.root_key.as_ref();
        let root = root.and_then(|key| cache.lease(debian::ROOTS, key));
        let own = cache.lease(IMAGES, &self.key);
        own.into_iter().chain(root).collect()
    }

    /// Whether PID 1 of its machines is systemd.
    pub fn has_systemd(&self) -> bool {
        self.root.is_some()
    }
}

/// What there is before anything is asked for.
#[derive(Clone, Debug)]
enum Base {
    Minimal,
    Debian { suite: String },
}

/// What goes into an image.
#[derive(Clone, Debug)]
pub struct ImageBuilder<'a> {
    kernel: &'a Kernel,
    base: Base,
    modules: Vec<String>,
    programs: Vec<(String, Option<String>)>,
    packages: Vec<String>,
    certificates: bool,
    data_disk: bool,
}

impl ImageBuilder<'_> {
    /// Loads a kernel module at boot, after those it depends on.
    pub fn module(mut self, name: &str) -> Self {
        self.modules.push(name.to_owned());
        self
    }

    /// Brings a host program, by name or path, with the libraries it needs, to where the host has it.
    pub fn program(mut self, name: &str) -> Self {
        self.programs.push((name.to_owned(), None));
        self
    }

    /// Brings a host program to a path of the guest's own.
    pub fn program_as(mut self, host: &Path, guest: &str) -> Self {
        self.programs
            .push((host.to_string_lossy().into_owned(), Some(guest.to_owned())));
        self
    }

    /// Brings every file of an installed package, and the libraries its programs need: for programs with
    /// plug-ins or tables that no ELF file names. To a Debian image: installs the suite's package of this name.
    pub fn package(mut self, name: &str) -> Self {
        self.packages.push(name.to_owned());
        self
    }

    /// Brings the host's CA certificates.
    pub fn ca_certificates(mut self) -> Self {
        self.certificates = true;
        self
    }

    /// Makes it fit for machines with a private disk ([`crate::data_disk`]).
    pub fn data_disk(mut self) -> Self {
        self.data_disk = true;
        self
    }

    /// Builds the image or finds it in the cache. Blocks.
    pub fn build(&self, cache: &Cache) -> Result<Image, ImageError> {
        let shared = self.shared_content()?;
        let (tree, root) = match &self.base {
            Base::Minimal => (self.tree(cache, &shared)?, None),
            Base::Debian { suite } => {
                let root = debian::root(cache, self.kernel, suite, &self.packages)?;
                (self.debian_tree(&shared)?, Some(root))
            }
        };
        let archive = tree.archive();
        let mut key = ContentKey::of("minimal image 1")
            .key(&cache.file_key(self.kernel.elf())?)
            .bytes(&archive);
        for (guest, host) in &shared {
            key = key.text(guest).key(&cache.file_key(host)?);
        }
        if let Some(root) = &root {
            // By its content: one built anew is another, though it is asked for alike, and no frozen machine can go on with it.
            key = key.key(&cache.file_key(&root.path)?);
        }
        let key = key.finish();
        let entry = cache.entry::<ImageError>(IMAGES, &key, |place| {
            files::write(&place.join("initramfs.cpio"), &archive)?;
            if !shared.is_empty() {
                shared_image::write(&place.join("shared.squashfs"), &shared)?;
            }
            Ok(())
        })?;
        Ok(Image {
            kernel: self.kernel.elf().to_owned(),
            initramfs: entry.join("initramfs.cpio"),
            shared: (!shared.is_empty()).then(|| entry.join("shared.squashfs")),
            root_key: root.as_ref().map(|root| root.key.clone()),
            root: root.map(|root| root.path),
            key,
        })
    }

    /// Returns the shared disk's files: guest path to host path.
    fn shared_content(&self) -> Result<BTreeMap<String, PathBuf>, ImageError> {
        let mut content = BTreeMap::new();
        let mut roots = Vec::new();
        for (name, guest) in &self.programs {
            let host = elf::find_program(name)?;
            content.insert(guest.clone().unwrap_or_else(|| text(&host)), host.clone());
            roots.push(host);
        }
        let host_packages = match self.base {
            Base::Minimal => self.packages.as_slice(),
            Base::Debian { .. } => &[],
        };
        for package in host_packages {
            for file in package_files(package)? {
                content.insert(text(&file), file.clone());
                roots.push(file);
            }
        }
        for root in roots {
            let needed = elf::needed_files(&root)?;
            for file in needed.iter().cloned().chain(name_service(&needed)) {
                content.insert(text(&file), file);
            }
        }
        if self.certificates {
            let path = Path::new(CA_CERTIFICATES);
            if !path.is_file() {
                return Err(ImageError::NoCertificates);
            }
            content.insert(text(path), path.to_owned());
        }
        Ok(content)
    }

    fn tree(&self, cache: &Cache, shared: &BTreeMap<String, PathBuf>) -> Result<Tree, ImageError> {
        let mut tree = Tree::default();
        skeleton(&mut tree);
        tree.file(INIT_PATH, 0o755, agent_binary::BYTES);
        add_busybox(&mut tree, &busybox(cache)?)?;
        for guest in shared.keys() {
            tree.link(guest, &format!("{SHARED_MOUNT}{guest}"));
        }
        self.add_plan(&mut tree, !shared.is_empty(), None)?;
        Ok(tree)
    }

    /// The way to a root of its own: nothing but the agent and what it takes to get there.
    fn debian_tree(&self, shared: &BTreeMap<String, PathBuf>) -> Result<Tree, ImageError> {
        let mut tree = Tree::default();
        add_console(&mut tree);
        tree.file(INIT_PATH, 0o755, agent_binary::BYTES);
        let shared_links = shared
            .keys()
            .map(|guest| (guest.clone(), format!("{SHARED_MOUNT}{guest}")));
        let programs = self.programs.iter().map(|(name, guest)| match guest {
            Some(guest) => Ok(guest.clone()),
            None => Ok(text(&elf::find_program(name)?)),
        });
        let programs = programs.collect::<Result<Vec<_>, ElfError>>()?;
        let first = programs.iter().filter_map(|guest| {
            let name = Path::new(guest).file_name()?.to_str()?;
            let place = format!("{FIRST_IN_PATH}/{name}");
            (place != *guest).then(|| (place, format!("{SHARED_MOUNT}{guest}")))
        });
        let root = debian::plan(shared_links.chain(first));
        self.add_plan(&mut tree, !shared.is_empty(), Some(root))?;
        Ok(tree)
    }

    fn add_plan(
        &self,
        tree: &mut Tree,
        has_shared: bool,
        root: Option<RootPlan>,
    ) -> Result<(), ImageError> {
        let plan = BootPlan {
            modules: self.add_modules(tree, has_shared)?,
            mounts: self.mounts(has_shared),
            root,
        };
        tree.file(
            BOOT_PLAN_PATH,
            0o644,
            serde_json::to_vec_pretty(&plan).expect("boot plans serialize"),
        );
        Ok(())
    }

    fn add_modules(&self, tree: &mut Tree, has_shared: bool) -> Result<Vec<String>, ImageError> {
        let mut names = BOOT_MODULES.to_vec();
        if has_shared {
            names.extend(SHARED_MODULES);
        }
        if let Base::Debian { .. } = self.base {
            names.extend(debian::MODULES);
        }
        if self.data_disk {
            names.extend(DATA_MODULES);
        }
        names.extend(self.modules.iter().map(String::as_str));
        let mut paths = Vec::new();
        for module in self.kernel.resolve(&names)? {
            let path = format!("/lib/modules/{}.ko", module.name);
            let content = if self.kernel.takes_unsigned_modules() {
                module.read_unsigned()?
            } else {
                module.read()?
            };
            tree.file(&path, 0o644, content);
            paths.push(path);
        }
        Ok(paths)
    }

    /// The private disk is not among them: its machine's identity brings it.
    fn mounts(&self, has_shared: bool) -> Vec<Mount> {
        let shared = has_shared.then(|| Mount {
            source: MountSource::Disk {
                serial: SHARED_SERIAL.to_owned(),
            },
            target: SHARED_MOUNT.to_owned(),
            filesystem: "squashfs".to_owned(),
            read_only: true,
            optional: false,
        });
        shared.into_iter().collect()
    }
}

/// The kernel opens it for PID 1 before anything is mounted.
fn add_console(tree: &mut Tree) {
    tree.put(
        "/dev/console",
        Entry::CharacterDevice { major: 5, minor: 1 },
    );
}

/// Adds what every small Linux system has.
fn skeleton(tree: &mut Tree) {
    for folder in [
        "/proc",
        "/sys",
        "/dev",
        "/run",
        "/root",
        "/var/log",
        "/var/tmp",
        SHARED_MOUNT,
        data_disk::MOUNT_POINT,
    ] {
        tree.put(folder, Entry::Folder { mode: 0o755 });
    }
    tree.put("/tmp", Entry::Folder { mode: 0o1777 });
    add_console(tree);
    tree.file(
        "/etc/passwd",
        0o644,
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    );
    // Who has terminals in several machines wants to know where he is.
    tree.file("/etc/profile", 0o644, "PS1='\\h:\\w\\$ '\n");
    tree.file("/etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n");
    tree.file(
        "/etc/nsswitch.conf",
        0o644,
        "passwd: files\ngroup: files\nhosts: files\n",
    );
    tree.file("/etc/resolv.conf", 0o644, "");
    tree.file(
        "/etc/os-release",
        0o644,
        "ID=mvm-ci-minimal\nNAME=\"mvm-ci minimal guest\"\n",
    );
}

/// Finds the distribution's BusyBox in the cache or fetches its package, which need not be installed.
///
/// The dynamically linked one: a static glibc looks names up through plug-ins that must match it exactly,
/// and guests bring the host's. Blocks.
pub fn busybox(cache: &Cache) -> Result<PathBuf, ImageError> {
    let key = ContentKey::of("the distribution's busybox 2").finish();
    let entry = cache.entry::<ImageError>(FETCHED_BUSYBOX, &key, |place| {
        let fetched =
            cache.workspace(FETCHED_BUSYBOX, &ContentKey::of("fetch busybox").finish())?;
        let packages = Apt::attempt(fetched.path(), |apt| apt.download(&["busybox"]))?;
        for package in packages {
            deb::unpack(&package, place, |path| {
                path.ends_with("bin/busybox").then(|| "busybox".into())
            })?;
        }
        Ok(())
    })?;
    Ok(entry.join("busybox"))
}

/// Adds BusyBox, the libraries it may need, and a link for each of its commands.
fn add_busybox(tree: &mut Tree, path: &Path) -> Result<(), ImageError> {
    tree.file("/bin/busybox", 0o755, files::read(path)?);
    for library in elf::needed_files(path)? {
        tree.file(&text(&library), 0o755, files::read(&library)?);
    }
    let output = Command::new(path)
        .arg("--list")
        .output()
        .naming("run", path)?;
    if !output.status.success() {
        let evidence = format!(
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        return Err(ImageError::Busybox {
            path: path.to_owned(),
            evidence,
        });
    }
    for command in String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|name| !name.contains('/'))
    {
        if command != "busybox" {
            tree.link(&format!("/bin/{command}"), "busybox");
        }
    }
    for folder in ["/sbin", "/usr/bin", "/usr/sbin"] {
        if !tree.contains(folder) {
            tree.put(folder, Entry::Folder { mode: 0o755 });
        }
    }
    Ok(())
}

/// The libraries glibc loads by name lie beside libc.
fn name_service(needed: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let libc = needed.iter().find(|path| path.ends_with("libc.so.6"));
    let folder = libc.and_then(|path| path.parent());
    let beside = folder
        .into_iter()
        .flat_map(|folder| NAME_SERVICE_LIBRARIES.iter().map(|name| folder.join(name)));
    beside.filter(|path| path.is_file()).collect()
}

/// Lists an installed package's files, without its documentation.
fn package_files(package: &str) -> Result<Vec<PathBuf>, ImageError> {
    let output = Command::new("dpkg")
        .args(["-L", "--", package])
        .output()
        .naming("run", Path::new("dpkg"))?;
    if !output.status.success() {
        let evidence = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(ImageError::Package {
            package: package.to_owned(),
            evidence,
        });
    }
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let files = listed
        .lines()
        .map(PathBuf::from)
        .filter(|path| path.is_file());
    Ok(files
        .filter(|path| !path.starts_with("/usr/share/doc") && !path.starts_with("/usr/share/man"))
        .collect())
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
impl Image {
    /// An image of files that need not exist, for tests of what is done with it.
    pub(crate) fn for_test(
        kernel: &str,
        initramfs: &str,
        shared: Option<&str>,
    ) -> std::sync::Arc<Image> {
        std::sync::Arc::new(Image {
            kernel: kernel.into(),
            initramfs: initramfs.into(),
            shared: shared.map(PathBuf::from),
            root: None,
            root_key: None,
            key: ContentKey::of("test").finish(),
        })
    }
}
