//! The modules of one kernel: which file has which name, and what must be loaded before what.
//!
//! Dependencies are read from the modules themselves. `modules.dep` is a copy of them that `depmod` makes
//! when a package is installed, which ours never is; reading the handful of modules asked for costs
//! less than keeping a second source of truth.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::modinfo::{Modinfo, ModuleFileError, plain_name, without_signature};
use crate::codec::Codec;
use crate::files::{self, FileError, Naming};

/// A set of modules could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The kernel has no module and nothing built in of that name.
    #[error("could not find the kernel module {name} for {release}{}", among(near))]
    Unknown {
        /// The name asked for.
        name: String,
        /// The kernel's release.
        release: String,
        /// Modules with a similar name.
        near: Vec<String>,
    },
    /// A module's file is not one.
    #[error("could not use the kernel module {}: could not {cause}", path.display())]
    File {
        /// The module's file.
        path: PathBuf,
        /// What is wrong with it.
        cause: ModuleFileError,
    },
    /// A module's file could not be read or unpacked.
    #[error(transparent)]
    Read(#[from] FileError),
}

fn among(near: &[String]) -> String {
    if near.is_empty() {
        String::new()
    } else {
        format!("; there is {}", near.join(", "))
    }
}

/// No module unpacks to more; the largest drivers are some tens of megabytes.
const MODULE_BYTES_MAX: u64 = 256 << 20;

/// The modules that lie under one `lib/modules/RELEASE` directory.
#[derive(Debug, Clone)]
pub(crate) struct ModuleTree {
    release: String,
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
}

/// One module to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleFile {
    /// Its name as the kernel spells it, with underscores.
    pub name: String,
    /// Where it lies on the host, perhaps compressed.
    pub path: PathBuf,
}

impl ModuleFile {
    /// The module uncompressed, as the guest's kernel wants it.
    pub fn read(&self) -> Result<Vec<u8>, FileError> {
        let packed = files::read(&self.path)?;
        match Codec::of(&packed) {
            Codec::Plain => Ok(packed),
            codec => codec
                .decode(&packed, MODULE_BYTES_MAX)
                .naming("unpack", &self.path),
        }
    }

    /// The module uncompressed and without its signature.
    ///
    /// Checking a signature costs an emulated guest 4 ms, a third of loading a module. Kernels which do not
    /// insist on signatures (`CONFIG_MODULE_SIG_FORCE`, or lockdown) load it all the same.
    pub fn read_unsigned(&self) -> Result<Vec<u8>, FileError> {
        let mut module = self.read()?;
        module.truncate(without_signature(&module).len());
        Ok(module)
    }
}

impl ModuleTree {
    /// Lists the modules under a directory. Only names are read.
    pub(crate) fn open(directory: &Path, release: &str) -> Result<Self, FileError> {
        let mut files = BTreeMap::new();
        for path in files::walk(directory)? {
            if let Some(name) = module_name(&path) {
                files.entry(name).or_insert(path);
            }
        }
        let list = directory.join("modules.builtin");
        let builtin = match std::fs::read_to_string(&list) {
            Ok(text) => text
                .lines()
                .filter_map(|line| module_name(Path::new(line.trim())))
                .collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(error).naming("read", &list),
        };
        Ok(ModuleTree {
            release: release.to_owned(),
            files,
            builtin,
        })
    }

    /// The files to load, in order, so that the named modules work; names of built-in ones add nothing.
    pub(crate) fn resolve(&self, names: &[&str]) -> Result<Vec<ModuleFile>, ModuleError> {
        let mut order = Order {
            tree: self,
            seen: BTreeSet::new(),
            files: Vec::new(),
        };
        for name in names {
            order.add(&plain_name(name))?;
        }
        Ok(order.files)
    }

    fn has(&self, name: &str) -> bool {
        self.files.contains_key(name) || self.builtin.contains(name)
    }

    fn unknown(&self, name: &str) -> ModuleError {
        let limit = 1 + name.len() / 4;
        let mut near: Vec<(usize, &String)> = self
            .files
            .keys()
            .chain(&self.builtin)
            .filter_map(|known| {
                let distance = if known.contains(name) {
                    1
                } else {
                    distance(known, name)
                };
                (distance <= limit).then_some((distance, known))
            })
            .collect();
        near.sort();
        let near = near
            .into_iter()
            .take(5)
            .map(|(_, known)| known.clone())
            .collect();
        ModuleError::Unknown {
            name: name.to_owned(),
            release: self.release.clone(),
            near,
        }
    }
}

/// Walks dependencies depth first, so that each module comes after all it needs.
struct Order<'a> {
    tree: &'a ModuleTree,
    seen: BTreeSet<String>,
    files: Vec<ModuleFile>,
}

impl Order<'_> {
    fn add(&mut self, name: &str) -> Result<(), ModuleError> {
        if !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(path) = self.tree.files.get(name) else {
            return if self.tree.builtin.contains(name) {
                Ok(())
            } else {
                Err(self.tree.unknown(name))
            };
        };
        let file = ModuleFile {
            name: name.to_owned(),
            path: path.clone(),
        };
        let info = Modinfo::of(&file.read()?).map_err(|cause| ModuleError::File {
            path: path.clone(),
            cause,
        })?;
        for soft in info.before.iter().filter(|name| self.tree.has(name)) {
            self.add(soft)?;
        }
        for needed in &info.depends {
            self.add(needed)?;
        }
        self.files.push(file);
        for soft in info.after.iter().filter(|name| self.tree.has(name)) {
            self.add(soft)?;
        }
        Ok(())
    }
}

/// `virtio_rng` for `kernel/drivers/char/hw_random/virtio-rng.ko.xz`.
fn module_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let stem = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))?;
    Some(plain_name(stem))
}

/// The number of letters to add, drop or change to make one word of the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, letter) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (column, other) in right.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use object::write::Object;
    use object::{Architecture, BinaryFormat, Endianness, SectionKind};

    use super::*;

    /// An ELF file with a `.modinfo` section of the given lines.
    pub(crate) fn module(lines: &[&str]) -> Vec<u8> {
        let mut file = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let section = file.add_section(Vec::new(), b".modinfo".to_vec(), SectionKind::ReadOnlyData);
        file.append_section_data(section, format!("{}\0", lines.join("\0")).as_bytes(), 1);
        file.write().unwrap()
    }

    fn tree() -> (tempfile::TempDir, ModuleTree) {
        let directory = tempfile::tempdir().unwrap();
        let put = |path: &str, content: &[u8]| {
            files::write(&directory.path().join(path), content).unwrap()
        };
        put("kernel/net.ko", &module(&["depends=ring,fail-over"]));
        put(
            "kernel/fail-over.ko.zst",
            &zstd::encode_all(&module(&["depends="])[..], 1).unwrap(),
        );
        put(
            "kernel/deep/ring.ko",
            &module(&["softdep=pre: crc missing post: late"]),
        );
        put("kernel/crc.ko", &module(&[]));
        put("kernel/late.ko", &module(&["depends=ring"]));
        put("kernel/loop_a.ko", &module(&["depends=loop_b"]));
        put("kernel/loop_b.ko", &module(&["depends=loop_a"]));
        put("kernel/orphan.ko", &module(&["depends=nowhere"]));
        put("kernel/broken.ko", b"not ELF");
        put("modules.builtin", b"kernel/fs/ext4/ext4.ko\n\n");
        let tree = ModuleTree::open(directory.path(), "6.1").unwrap();
        (directory, tree)
    }

    #[track_caller]
    fn check(names: &[&str], expected: &[&str]) {
        let (_directory, tree) = tree();
        let found: Vec<_> = tree
            .resolve(names)
            .unwrap()
            .into_iter()
            .map(|file| file.name)
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn dependencies_come_first_and_once() {
        check(&[], &[]);
        check(&["ext4"], &[]);
        check(&["crc"], &["crc"]);
        check(&["net"], &["crc", "ring", "late", "fail_over", "net"]);
        check(
            &["late", "net", "ring"],
            &["crc", "ring", "late", "fail_over", "net"],
        );
        check(&["fail-over", "fail_over"], &["fail_over"]);
        check(&["loop_a"], &["loop_b", "loop_a"]);
    }

    #[track_caller]
    fn refuses(name: &str, expected: &str) {
        let (_directory, tree) = tree();
        let message = tree.resolve(&[name]).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn what_is_missing_is_named_with_what_is_near() {
        refuses("rin", "find the kernel module rin for 6.1; there is ring");
        refuses("ext5", "there is ext4");
        refuses("orphan", "find the kernel module nowhere");
        refuses("zzzzzz", "zzzzzz for 6.1");
        refuses("broken", "broken.ko: could not read it as an ELF file");
    }

    #[test]
    fn a_packed_module_is_read_unpacked() {
        let (_directory, tree) = tree();
        let files = tree.resolve(&["fail_over"]).unwrap();
        assert_eq!(files[0].read().unwrap(), module(&["depends="]));
    }

    #[test]
    fn distances() {
        for (left, right, expected) in [
            ("", "", 0),
            ("a", "", 1),
            ("kitten", "sitting", 3),
            ("ring", "rin", 1),
        ] {
            assert_eq!(distance(left, right), expected);
        }
    }
}
