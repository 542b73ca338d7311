//! Builds a root: mmdebstrap unpacks and installs, with the rights that the host has for us ([`super::rights`]), and what
//! it writes goes straight into a compressed file system. No loop device, no root needed.

use std::{
    fs::File,
    io::{self, PipeWriter},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    DebianError, machine,
    recipe::{Recipe, TAKEN},
    rights::Rights,
    sources,
};
use crate::{
    cache::Cache,
    elf::find_program,
    files::{self, FileError, Naming},
    kernel::Kernel,
    process::{Exit, Keeper},
};

/// A program that builds images.
#[derive(Debug)]
pub struct Tool {
    /// Its name.
    pub program: &'static str,
    /// The distribution's package that brings it.
    pub package: &'static str,
}

pub(super) const BUILDER: &str = "mmdebstrap";
const PACKER: &str = "sqfstar";
/// All of them, the builder first.
pub const BUILD_TOOLS: [Tool; 2] = [
    Tool {
        program: BUILDER,
        package: "mmdebstrap",
    },
    Tool {
        program: PACKER,
        package: "squashfs-tools",
    },
];
/// What lz4 unpacks costs an emulated guest the least of all that kernels know.
const COMPRESSOR: &str = "lz4";
/// The end of what a program said.
const EVIDENCE_LINES: usize = 4;
/// How apt complains of a package it does not know.
const UNKNOWN_PACKAGE: &[&str] = &[
    "E: Unable to locate package ",
    "has no installation candidate",
];
const FULL: &str = "No space left on device";

/// Builds the root into the file `target`. What else is made lies in `folder` and is removed. Blocks for minutes.
pub(super) fn build(
    cache: &Cache,
    kernel: &Kernel,
    recipe: &Recipe<'_>,
    folder: &Path,
    target: &Path,
) -> Result<(), DebianError> {
    let builder = check_tools()?;
    let rights = Rights::on_this_host(&builder);
    // In a user namespace it needs a folder that others may enter, which the cache may not be.
    let elsewhere = (rights == Rights::Namespace).then(std::env::temp_dir);
    let build = Build {
        builder,
        recipe,
        scratch: folder.join("scratch"),
        folders: elsewhere
            .into_iter()
            .chain([cache.root().to_owned()])
            .collect(),
    };
    files::create_dir_all(&build.scratch)?;
    let built = match rights {
        Rights::Root => build.on_host("root", target),
        Rights::Namespace => build.on_host("unshare", target),
        Rights::Machine { reason } => build.in_machine(cache, kernel, reason, target),
    };
    let removed = std::fs::remove_dir_all(&build.scratch).naming("remove", &build.scratch);
    built?;
    Ok(removed?)
}

/// The builder's path.
fn check_tools() -> Result<PathBuf, DebianError> {
    let tools = BUILD_TOOLS.iter().map(|tool| tool.program);
    let missing: Vec<_> = tools.filter(|name| find_program(name).is_err()).collect();
    match (missing.is_empty(), find_program(BUILDER)) {
        (true, Ok(builder)) => Ok(builder),
        _ => Err(DebianError::Tools { names: missing }),
    }
}

struct Build<'a> {
    builder: PathBuf,
    recipe: &'a Recipe<'a>,
    scratch: PathBuf,
    /// What may be full when no space is left.
    folders: Vec<PathBuf>,
}

/// How the program that writes the archive ended.
pub(super) struct Ending {
    pub(super) success: bool,
    pub(super) how: String,
}

impl From<Exit> for Ending {
    fn from(exit: Exit) -> Ending {
        Ending {
            success: exit == Exit::Code(0),
            how: exit.to_string(),
        }
    }
}

impl Build<'_> {
    fn on_host(&self, mode: &str, target: &Path) -> Result<(), DebianError> {
        self.announce("a minute or two");
        let script = self.scratch.join("customize.sh");
        files::write(&script, self.recipe.customize().as_bytes())?;
        let sources = sources::write(&sources::of(self.recipe.suite)?, &self.scratch)?;
        let options = sources::network_options();
        let arguments = self.recipe.arguments(mode, &options, &sources, &script);
        let own_folder = mode == "root";
        self.pack(target, |archive, said| {
            self.run_builder(arguments, own_folder, archive, said)
        })
    }

    /// The same in a machine, on a disk that holds whatever of the host it takes.
    fn in_machine(
        &self,
        cache: &Cache,
        kernel: &Kernel,
        reason: String,
        target: &Path,
    ) -> Result<(), DebianError> {
        tracing::info!(reason, "the image is built in a machine");
        self.announce("some ten minutes where machines are emulated");
        let taken = self.scratch.join("taken");
        files::create_dir_all(&taken)?;
        let script = taken.join("customize.sh");
        files::write(&script, self.recipe.customize_elsewhere().as_bytes())?;
        let of_suite = sources::of(self.recipe.suite)?;
        let seen = sources::write(&of_suite.clone().seen_by_machines(), &taken)?;
        let sources = sources::write(&of_suite, &self.scratch)?;
        let options = sources::network_options();

        let tools_script = self.scratch.join("tools.sh");
        files::write(&tools_script, self.recipe.tools_script(&taken).as_bytes())?;
        let arguments = self
            .recipe
            .tools_arguments(&options, &sources, &tools_script);
        let tools = self.scratch.join("tools.squashfs");
        self.pack(&tools, |archive, said| {
            self.run_builder(arguments, true, archive, said)
        })?;

        let options: Vec<String> = options
            .iter()
            .map(|option| sources::seen_by_machines(option))
            .collect();
        let inside = |path: &PathBuf| Path::new(TAKEN).join(path.file_name().unwrap_or_default());
        let seen: Vec<PathBuf> = seen.iter().map(inside).collect();
        let arguments = self
            .recipe
            .arguments("root", &options, &seen, &inside(&script));
        self.pack(target, |archive, said| {
            let built = machine::build(
                cache,
                kernel,
                &tools,
                &self.scratch,
                arguments,
                archive,
                said,
            );
            built.map_err(|source| DebianError::Machine { reason, source })
        })
    }

    fn announce(&self, time: &str) {
        tracing::info!(
            suite = self.recipe.suite,
            packages = self.recipe.packages.join(" "),
            "building a Debian image, which takes {time}; it is kept"
        );
    }

    fn run_builder(
        &self,
        arguments: Vec<String>,
        own_folder: bool,
        archive: PipeWriter,
        said: File,
    ) -> Result<Ending, DebianError> {
        let mut command = Command::new(&self.builder);
        command
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(archive)
            .stderr(said);
        if own_folder {
            command.env("TMPDIR", &self.scratch);
        }
        // In a user namespace it writes as users whose files we may not remove. When it fails it tells its group.
        let builder = Keeper::get()?.spawn_in_order(command)?;
        Ok(builder.join().into())
    }

    /// Packs the archive that `write` writes into a file system.
    fn pack(
        &self,
        target: &Path,
        write: impl FnOnce(PipeWriter, File) -> Result<Ending, DebianError>,
    ) -> Result<(), DebianError> {
        let builder_said = self.scratch.join("builder.log");
        let packer_said = self.scratch.join("packer.log");
        let (packed, archive) = io::pipe().naming("make a pipe for", target)?;
        let mut command = Command::new(PACKER);
        command
            .args(["-comp", COMPRESSOR, "-quiet", "-no-progress"])
            .arg(target)
            .stdin(packed)
            .stdout(log(&packer_said)?)
            .stderr(log(&packer_said)?);
        let packer = Keeper::get()?.spawn(command, Vec::new())?;
        let built = write(archive, log(&builder_said)?)?;
        let packed = packer.join().into();
        for (program, ending, said) in [
            (BUILDER, built, &builder_said),
            (PACKER, packed, &packer_said),
        ] {
            if !ending.success {
                let all = [&builder_said, &packer_said].map(|path| read(path));
                return Err(self.explain(program, ending, said, &all.concat()));
            }
        }
        Ok(())
    }

    /// Says what went wrong in the words of whoever asked for the image.
    fn explain(
        &self,
        program: &'static str,
        ending: Ending,
        said: &Path,
        all: &str,
    ) -> DebianError {
        let suite = self.recipe.suite.to_owned();
        if all.contains(FULL) {
            return DebianError::NoSpace {
                suite,
                folders: self.folders.clone(),
            };
        }
        if let Some(package) = unknown_package(all) {
            return DebianError::NoPackage { package, suite };
        }
        DebianError::Failed {
            suite,
            program,
            how: ending.how,
            evidence: evidence(&read(said)),
        }
    }
}

fn unknown_package(said: &str) -> Option<String> {
    said.lines().find_map(|line| {
        if let Some(package) = line.trim().strip_prefix(UNKNOWN_PACKAGE[0]) {
            return Some(package.trim().to_owned());
        }
        // E: Package 'a' has no installation candidate
        let (before, _) = line.split_once(UNKNOWN_PACKAGE[1])?;
        Some(before.split('\'').nth(1)?.to_owned())
    })
}

/// The last errors, or else the last lines.
fn evidence(said: &str) -> String {
    let is_error = |line: &&str| line.trim_start().to_ascii_lowercase().starts_with("e:");
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let errors: Vec<&str> = lines
        .iter()
        .copied()
        .filter(|line| is_error(line))
        .collect();
    let telling = if errors.is_empty() { lines } else { errors };
    let last = telling.len().saturating_sub(EVIDENCE_LINES);
    match telling.is_empty() {
        true => "it said nothing".to_owned(),
        false => telling[last..].join("; "),
    }
}

fn log(path: &Path) -> Result<File, FileError> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .naming("create", path)
}

fn read(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_package_is_named() {
        for said in [
            "I: installing\nE: Unable to locate package ngnix\nE: apt-get failed\n",
            "E: Package 'ngnix' has no installation candidate\n",
        ] {
            assert_eq!(unknown_package(said).as_deref(), Some("ngnix"), "{said}");
        }
        assert_eq!(unknown_package("E: something else\n"), None);
    }

    #[test]
    fn errors_are_told_before_other_lines() {
        assert_eq!(evidence("I: a\nE: b\nI: c\nE: d\n"), "E: b; E: d");
        assert_eq!(evidence("1\n2\n3\n4\n5\n"), "2; 3; 4; 5");
        assert_eq!(evidence("\n"), "it said nothing");
    }
}
