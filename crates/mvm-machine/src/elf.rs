//! Which files a host program needs to run elsewhere: its interpreter and shared libraries, transitively.
//!
//! Resolved as the dynamic linker would (ld.so(8)), by reading: the program is never run, nor `ldd`, which
//! runs it. Programs that open plug-ins by name need their package's file list instead
//! ([`crate::image::ImageBuilder::package`]).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use object::{
    LittleEndian,
    elf::{self, FileHeader64},
    read::elf::{Dyn, FileHeader, ProgramHeader},
};

use crate::files::{self, FileError};

/// Where ld.so looks at last, on Debian's multiarch and elsewhere.
const DEFAULT_FOLDERS: [&str; 6] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];
/// Where ldconfig notes the libraries of the folders that the configuration adds.
const LINKER_CACHE: &str = "/etc/ld.so.cache";
/// The kernel's limit of a `#!` line (BINPRM_BUF_SIZE).
const SCRIPT_LINE_BYTES_MAX: usize = 256;
/// A program needs dozens of files; a cycle or a trap needs more.
const FILES_MAX: usize = 2000;

/// The files of a program could not be told.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// There is no such program.
    #[error("could not find the program {name} on this host{}", whence(name))]
    NotFound {
        /// The name looked for.
        name: String,
    },
    /// A library is nowhere.
    #[error("could not find the shared library {library}, which {needed_by:?} needs")]
    MissingLibrary {
        /// The library's name.
        library: String,
        /// Who needs it.
        needed_by: PathBuf,
    },
    /// A file is damaged or for another processor.
    #[error("could not read {path:?} as an x86-64 program: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Finds a program by path or in `PATH`, in the system's folders also where `PATH` leaves them out.
pub fn find_program(name: &str) -> Result<PathBuf, ElfError> {
    let missing = || ElfError::NotFound {
        name: name.to_owned(),
    };
    if name.contains('/') {
        return Path::new(name)
            .is_file()
            .then(|| name.into())
            .ok_or_else(missing);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    let folders = std::env::split_paths(&path).chain(system);
    folders
        .map(|folder| folder.join(name))
        .find(|candidate| is_executable(candidate))
        .ok_or_else(missing)
}

/// Where a program was looked for, and what to do when it is not there.
fn whence(name: &str) -> &'static str {
    match name.contains('/') {
        true => "; install the package that it belongs to",
        false => "'s PATH",
    }
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Returns every file `program` needs beside itself: interpreters and shared libraries, by the paths
/// under which they are looked up, and the linker's cache where a library is found only through it.
pub fn needed_files(program: &Path) -> Result<BTreeSet<PathBuf>, ElfError> {
    Search {
        configured: configured_folders(Path::new("/etc/ld.so.conf")),
        ..Search::default()
    }
    .needed_by(program)
}

/// The search for one program's files, which goes breadth first as ld.so's does.
#[derive(Default)]
struct Search {
    configured: Vec<PathBuf>,
    /// The folders of the program's own `DT_RPATH`, which hold for its libraries' libraries too.
    inherited: Vec<PathBuf>,
    /// Libraries by the name they were asked for: ld.so loads a name once, and whoever asks for it later
    /// gets that one, even where its own search would not find it.
    loaded: BTreeMap<String, PathBuf>,
    found: BTreeSet<PathBuf>,
}

impl Search {
    fn needed_by(mut self, program: &Path) -> Result<BTreeSet<PathBuf>, ElfError> {
        let mut pending = VecDeque::from([program.to_owned()]);
        while let Some(path) = pending.pop_front() {
            for needed in self.directly_needed(&path, path == program)? {
                if self.found.len() >= FILES_MAX {
                    let reason = format!("it needs more than {FILES_MAX} files");
                    return Err(ElfError::Malformed {
                        path: program.to_owned(),
                        reason,
                    });
                }
                if self.found.insert(needed.clone()) {
                    pending.push_back(needed);
                }
            }
        }
        Ok(self.found)
    }

    fn directly_needed(&mut self, path: &Path, is_program: bool) -> Result<Vec<PathBuf>, ElfError> {
        let content = files::read(path)?;
        if let Some(interpreter) = script_interpreter(&content) {
            return Ok(vec![find_program(&interpreter)?]);
        }
        if !content.starts_with(&elf::ELFMAG) {
            // A data file of a package; nothing to load.
            return Ok(Vec::new());
        }
        let links = Links::of(&content).map_err(|reason| ElfError::Malformed {
            path: path.to_owned(),
            reason,
        })?;
        let expand = |folders: &[String]| {
            folders
                .iter()
                .map(|folder| expand_origin(folder, path))
                .collect::<Vec<_>>()
        };
        let mut own = expand(&links.runpath);
        if links.runpath.is_empty() {
            own = expand(&links.rpath);
            if is_program {
                self.inherited.clone_from(&own);
            }
            own.extend(self.inherited.iter().cloned());
        }
        let mut needed: Vec<PathBuf> = links.interpreter.iter().map(PathBuf::from).collect();
        for library in &links.libraries {
            let missing = || ElfError::MissingLibrary {
                library: library.clone(),
                needed_by: path.to_owned(),
            };
            let place = match self.loaded.get(library) {
                Some(place) => place.clone(),
                None => self.locate(library, &own).ok_or_else(missing)?,
            };
            self.loaded.insert(library.clone(), place.clone());
            needed.push(place);
        }
        Ok(needed)
    }

    fn locate(&mut self, library: &str, own: &[PathBuf]) -> Option<PathBuf> {
        let within = |folders: &[PathBuf]| {
            folders
                .iter()
                .map(|folder| folder.join(library))
                .find(|place| is_library(place))
        };
        if let Some(place) = within(own) {
            return Some(place);
        }
        let place = within(&self.configured);
        let default = within(&DEFAULT_FOLDERS.map(PathBuf::from));
        // In a guest the linker knows its default folders, and the others from this file only. What the
        // file names beyond the guest's content does no harm.
        if place.as_ref().is_some_and(|place| !is_default(place))
            && Path::new(LINKER_CACHE).is_file()
        {
            self.found.insert(LINKER_CACHE.into());
        }
        place.or(default)
    }
}

fn is_default(library: &Path) -> bool {
    library.parent().is_some_and(|folder| {
        DEFAULT_FOLDERS
            .iter()
            .any(|default| folder == Path::new(default))
    })
}

/// A library for another processor may bear the same name; ld.so passes over it, and so do we.
fn is_library(path: &Path) -> bool {
    let mut head = [0; 20];
    let read = fs::File::open(path).and_then(|mut file| io::Read::read_exact(&mut file, &mut head));
    read.is_ok() && head.starts_with(&elf::ELFMAG) && head[18..20] == elf::EM_X86_64.to_le_bytes()
}

/// What an ELF file says of the files it needs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Links {
    interpreter: Option<String>,
    libraries: Vec<String>,
    rpath: Vec<String>,
    /// Where it is there, ld.so passes over every rpath.
    runpath: Vec<String>,
}

impl Links {
    fn of(content: &[u8]) -> Result<Links, String> {
        let wrong = |error: object::read::Error| error.to_string();
        let header = FileHeader64::<LittleEndian>::parse(content).map_err(wrong)?;
        let mut links = Links::default();
        if !matches!(header.e_type(LittleEndian), elf::ET_EXEC | elf::ET_DYN) {
            // An object file, as BPF programs and kernel modules are: nothing that ld.so loads.
            return Ok(links);
        }
        if header.e_machine(LittleEndian) != elf::EM_X86_64 {
            return Err(format!(
                "it is for machine type {}",
                header.e_machine(LittleEndian)
            ));
        }
        for segment in header
            .program_headers(LittleEndian, content)
            .map_err(wrong)?
        {
            if let Some(name) = segment.interpreter(LittleEndian, content).map_err(wrong)? {
                links.interpreter = Some(String::from_utf8_lossy(name).into_owned());
            }
        }
        let sections = header.sections(LittleEndian, content).map_err(wrong)?;
        let Some((entries, link)) = sections.dynamic(LittleEndian, content).map_err(wrong)? else {
            return Ok(links);
        };
        let strings = sections
            .strings(LittleEndian, content, link)
            .map_err(wrong)?;
        let text = |entry: &elf::Dyn64<LittleEndian>| {
            entry
                .string(LittleEndian, strings)
                .map(|name| String::from_utf8_lossy(name).into_owned())
                .map_err(wrong)
        };
        let folders = |entry| {
            Ok::<_, String>(
                text(entry)?
                    .split(':')
                    .filter(|folder| !folder.is_empty())
                    .map(str::to_owned)
                    .collect(),
            )
        };
        for entry in entries {
            match entry.tag32(LittleEndian) {
                Some(elf::DT_NEEDED) => links.libraries.push(text(entry)?),
                Some(elf::DT_RPATH) => links.rpath = folders(entry)?,
                Some(elf::DT_RUNPATH) => links.runpath = folders(entry)?,
                _ => {}
            }
        }
        Ok(links)
    }
}

fn expand_origin(folder: &str, path: &Path) -> PathBuf {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let origin = real
        .parent()
        .unwrap_or(Path::new("/"))
        .to_string_lossy()
        .into_owned();
    folder
        .replace("${ORIGIN}", &origin)
        .replace("$ORIGIN", &origin)
        .into()
}

/// Reads the interpreter from a `#!` line; `#!/usr/bin/env NAME` gives the name.
fn script_interpreter(content: &[u8]) -> Option<String> {
    let line = content.strip_prefix(b"#!")?;
    let line = &line[..line.len().min(SCRIPT_LINE_BYTES_MAX)];
    let line = String::from_utf8_lossy(line.split(|byte| *byte == b'\n').next()?).into_owned();
    let mut words = line.split_ascii_whitespace();
    let first = words.next()?;
    if first.ends_with("/env") {
        words.next().map(str::to_owned)
    } else {
        Some(first.to_owned())
    }
}

/// The folders of ld.so.conf, with its one level of `include`s.
fn configured_folders(configuration: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for line in fs::read_to_string(configuration)
        .unwrap_or_default()
        .lines()
    {
        let line = line.split('#').next().unwrap_or_default().trim();
        match line.strip_prefix("include ") {
            Some(pattern) => folders.extend(included(Path::new(pattern.trim()))),
            None if line.starts_with('/') => folders.push(line.into()),
            None => {}
        }
    }
    folders
}

/// Patterns are `FOLDER/*.conf` in every distribution.
fn included(pattern: &Path) -> Vec<PathBuf> {
    let Some(folder) = pattern.parent() else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "conf")
    });
    paths
        .iter()
        .flat_map(|path| {
            fs::read_to_string(path)
                .unwrap_or_default()
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .map(|line| line.trim().to_owned())
        .filter(|line| line.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_dynamic_program_needs_its_interpreter_and_libc() {
        let needed = needed_files(&find_program("apt-get").unwrap()).unwrap();
        let names: Vec<_> = needed
            .iter()
            .filter_map(|path| path.file_name()?.to_str())
            .collect();
        assert!(
            names.contains(&"libc.so.6") && names.contains(&"ld-linux-x86-64.so.2"),
            "{names:?}"
        );
        // Needed only through another library.
        assert!(
            names.iter().any(|name| name.starts_with("libapt-pkg.so")),
            "{names:?}"
        );
        assert!(needed.iter().all(|path| path.is_file()));
    }

    /// Links an empty ELF file with the C compiler, which Rust needs anyway.
    fn link(folder: &Path, output: &str, arguments: &[&str]) {
        let output = folder.join(output);
        fs::create_dir_all(output.parent().unwrap()).unwrap();
        let name = output.file_name().unwrap().to_str().unwrap();
        let result = std::process::Command::new("cc")
            .args([
                "-shared",
                "-nostdlib",
                "-x",
                "c",
                "/dev/null",
                "-x",
                "none",
                "-Wl,--no-as-needed",
            ])
            .arg(format!("-Wl,-soname,{name}"))
            .args(arguments)
            .arg("-o")
            .arg(&output)
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(result.status.success(), "{result:?}");
    }

    /// A program which needs `libone.so`, which needs `libtwo.so`; each lies in a folder of its own.
    #[track_caller]
    fn check_search(linking: &[&str], expected: Result<&[&str], &str>) {
        let folder = tempfile::tempdir().unwrap();
        let folder = fs::canonicalize(folder.path()).unwrap();
        link(&folder, "two/libtwo.so", &[]);
        link(&folder, "one/libone.so", &["two/libtwo.so"]);
        link(
            &folder,
            "program",
            &[
                &["one/libone.so", "-Wl,-rpath,$ORIGIN/one:${ORIGIN}/two"],
                linking,
            ]
            .concat(),
        );
        let found = needed_files(&folder.join("program")).map_err(|error| error.to_string());
        match (found, expected) {
            (Ok(found), Ok(expected)) => {
                assert_eq!(
                    found,
                    expected
                        .iter()
                        .map(|path| folder.join(path))
                        .collect::<BTreeSet<_>>()
                );
            }
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_search_is_the_linker_s() {
        let both = Ok(["one/libone.so", "two/libtwo.so"].as_slice());
        // An rpath holds for the libraries' libraries, a runpath does not.
        check_search(&["-Wl,--disable-new-dtags"], both);
        check_search(&["-Wl,--enable-new-dtags"], Err("library libtwo.so, which"));
        // What is loaded already serves whoever asks for it by name.
        check_search(&["-Wl,--enable-new-dtags", "two/libtwo.so"], both);
    }

    #[test]
    fn a_library_known_by_configuration_brings_the_linker_s_cache() {
        let folder = tempfile::tempdir().unwrap();
        link(folder.path(), "lib/libodd.so", &[]);
        link(folder.path(), "program", &["lib/libodd.so"]);
        let program = folder.path().join("program");
        assert!(
            needed_files(&program)
                .unwrap_err()
                .to_string()
                .contains("library libodd.so")
        );
        let search = Search {
            configured: vec![folder.path().join("lib")],
            ..Search::default()
        };
        let found = search.needed_by(&program).unwrap();
        let expected = [folder.path().join("lib/libodd.so"), LINKER_CACHE.into()];
        assert_eq!(found, expected.into_iter().collect::<BTreeSet<_>>());
    }

    #[test]
    fn object_files_need_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("object.o");
        let endian = object::Endianness::Little;
        let object = object::write::Object::new(
            object::BinaryFormat::Elf,
            object::Architecture::Bpf,
            endian,
        );
        fs::write(&path, object.write().unwrap()).unwrap();
        assert_eq!(needed_files(&path).unwrap(), BTreeSet::new());
    }

    #[test]
    fn a_script_needs_its_interpreter() {
        #[track_caller]
        fn check(content: &str, expected: Option<&str>) {
            assert_eq!(script_interpreter(content.as_bytes()).as_deref(), expected);
        }
        check("#!/bin/sh -e\n", Some("/bin/sh"));
        check("#! /usr/bin/env python3\nx", Some("python3"));
        check("#!", None);
        check("plain", None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = find_program("no-such-program-here").unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not find the program no-such-program-here on this host's PATH"
        );
        let error = find_program("/usr/sbin/no-such-program-here").unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not find the program /usr/sbin/no-such-program-here on this host; install the package that it belongs to"
        );
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(cut in 0usize..4096, at in 0usize..4096, value: u8) {
            let mut content = crate::agent_binary::BYTES[..cut.max(64)].to_vec();
            let index = at % content.len();
            content[index] = value;
            let _ = Links::of(&content);
        }
    }
}
