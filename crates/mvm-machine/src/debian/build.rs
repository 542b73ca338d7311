//! Builds a root: mmdebstrap unpacks and installs, as root or in a user namespace, and what it writes goes straight into
//! a compressed file system. No loop device, no root needed.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use super::{recipe::Recipe, sources};
use crate::{
    elf::find_program,
    files::{self, FileError, Naming},
};

/// A Debian root could not be built.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    /// Programs are missing on this host.
    #[error(
        "could not find {}, which Debian images are built with; `apt-get install --no-install-recommends mmdebstrap squashfs-tools uidmap` brings them",
        names.join(" and ")
    )]
    Tools {
        /// Their names.
        names: Vec<&'static str>,
    },
    /// The suite has no such package.
    #[error("could not install {package}: Debian {suite} has no package of this name{suggestion}")]
    NoPackage {
        /// The package.
        package: String,
        /// The suite.
        suite: String,
        /// How to go on.
        suggestion: String,
    },
    /// The disk is full.
    #[error("could not build an image of Debian {suite}: no space is left in {folder:?}")]
    NoSpace {
        /// The suite.
        suite: String,
        /// Where it was built.
        folder: PathBuf,
    },
    /// A program failed.
    #[error(
        "could not build an image of Debian {suite}: {program} ended with {status}: {evidence}"
    )]
    Failed {
        /// The suite.
        suite: String,
        /// Which one.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// What it said last.
        evidence: String,
    },
    /// A program could not be started.
    #[error("could not start {program}: {cause}")]
    Start {
        /// Which one.
        program: &'static str,
        /// Why.
        cause: io::Error,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A program that builds images.
#[derive(Debug)]
pub struct Tool {
    /// Its name.
    pub program: &'static str,
    /// The distribution's package that brings it.
    pub package: &'static str,
}

const BUILDER: &str = "mmdebstrap";
const PACKER: &str = "sqfstar";
/// What a user who is not root needs besides.
const MAPPER: &str = "newuidmap";
/// All of them.
pub const BUILD_TOOLS: [Tool; 3] = [
    Tool {
        program: BUILDER,
        package: "mmdebstrap",
    },
    Tool {
        program: PACKER,
        package: "squashfs-tools",
    },
    Tool {
        program: MAPPER,
        package: "uidmap",
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
pub(super) fn build(recipe: &Recipe<'_>, folder: &Path, target: &Path) -> Result<(), DebianError> {
    check_tools()?;
    let scratch = folder.join("scratch");
    files::create_dir_all(&scratch)?;
    tracing::info!(
        suite = recipe.suite,
        packages = recipe.packages.join(" "),
        "building a Debian image, which takes a minute or two; it is kept"
    );
    let built = run(recipe, &scratch, target);
    let removed = std::fs::remove_dir_all(&scratch).naming("remove", &scratch);
    built?;
    Ok(removed?)
}

fn check_tools() -> Result<(), DebianError> {
    let tools = BUILD_TOOLS.iter().map(|tool| tool.program);
    let needed = tools.filter(|program| *program != MAPPER || mode() == UNSHARE);
    let missing: Vec<_> = needed.filter(|name| find_program(name).is_err()).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(DebianError::Tools { names: missing }),
    }
}

const UNSHARE: &str = "unshare";

/// How mmdebstrap comes by the rights of root in the tree it builds.
fn mode() -> &'static str {
    match rustix::process::geteuid().is_root() {
        true => "root",
        false => UNSHARE,
    }
}

fn run(recipe: &Recipe<'_>, scratch: &Path, target: &Path) -> Result<(), DebianError> {
    let script = scratch.join("customize.sh");
    files::write(&script, recipe.customize().as_bytes())?;
    let sources = sources::write_sources(recipe.suite, scratch)?;
    let arguments = recipe.arguments(mode(), &sources::network_options(), &sources, &script);
    let builder_said = scratch.join("builder.log");
    let packer_said = scratch.join("packer.log");

    let mut command = Command::new(BUILDER);
    command
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log(&builder_said)?);
    if mode() != UNSHARE {
        // In a user namespace it needs a folder that others may enter, which the cache may not be.
        command.env("TMPDIR", scratch);
    }
    let mut builder = Started::spawn(BUILDER, command)?;
    let mut command = Command::new(PACKER);
    command.args(["-comp", COMPRESSOR, "-quiet", "-no-progress"]);
    command
        .arg(target)
        .stdin(
            builder
                .child
                .stdout
                .take()
                .map_or(Stdio::null(), Stdio::from),
        )
        .stdout(log(&packer_said)?)
        .stderr(log(&packer_said)?);
    let mut packer = Started::spawn(PACKER, command)?;

    let packed = packer.wait()?;
    let built = builder.wait()?;
    for (program, status, said) in [
        (BUILDER, built, &builder_said),
        (PACKER, packed, &packer_said),
    ] {
        if !status.success() {
            let texts = [&builder_said, &packer_said].map(|path| read(path));
            return Err(explain(
                recipe,
                scratch,
                program,
                status,
                said,
                &texts.concat(),
            ));
        }
    }
    Ok(())
}

/// A program that is killed where it is not waited for.
struct Started {
    program: &'static str,
    child: Child,
}

impl Started {
    fn spawn(program: &'static str, mut command: Command) -> Result<Started, DebianError> {
        let child = command
            .spawn()
            .map_err(|cause| DebianError::Start { program, cause })?;
        Ok(Started { program, child })
    }

    fn wait(&mut self) -> Result<ExitStatus, DebianError> {
        self.child.wait().map_err(|cause| DebianError::Start {
            program: self.program,
            cause,
        })
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // One that has ended cannot be killed, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says what went wrong in the words of whoever asked for the image.
fn explain(
    recipe: &Recipe<'_>,
    folder: &Path,
    program: &'static str,
    status: ExitStatus,
    said: &Path,
    all: &str,
) -> DebianError {
    let suite = recipe.suite.to_owned();
    if all.contains(FULL) {
        return DebianError::NoSpace {
            suite,
            folder: folder.parent().unwrap_or(folder).to_owned(),
        };
    }
    if let Some(package) = unknown_package(all) {
        return DebianError::NoPackage {
            package,
            suite,
            suggestion: "; `apt-cache search` on a host of this suite finds names".to_owned(),
        };
    }
    DebianError::Failed {
        suite,
        program,
        status,
        evidence: evidence(&read(said)),
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
