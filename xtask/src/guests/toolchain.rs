//! A Rust compiler for WebAssembly, without installing anything: Debian's `rustc-web` and its linker, unpacked into the
//! cache, and a standard library built from Debian's sources, because no package brings one for `wasm32-unknown-unknown`.
//!
//! Which versions is asked of apt once, and kept beside the modules that were built with them: only the same compiler
//! makes the same modules.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs, io};

use anyhow::Context;
use mvm_machine::apt::{Apt, AptError};
use mvm_machine::cache::{Cache, ContentKey, Lease, Shelf, Workspace};
use mvm_machine::deb;

use crate::cargo::cargo;
use crate::runner::Runner;
use crate::stop::Stop;
use crate::talk;

pub(super) const TARGET: &str = "wasm32-unknown-unknown";

/// A toolchain takes half a gigabyte and two minutes.
pub(super) const SHELF: Shelf = Shelf {
    name: "guest-toolchains",
    unused_max: Some(Duration::from_secs(60 * 24 * 3600)),
};

/// Packages with their versions, as apt takes them: `name=version`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packages(Vec<String>);

impl Packages {
    /// Reads what [`Packages::record`] wrote; `None` where there is no such file.
    pub(super) fn recorded(file: &Path) -> anyhow::Result<Option<Self>> {
        match fs::read_to_string(file) {
            Ok(text) => Ok(Some(Self::parse(&text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("could not read {}", file.display())),
        }
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(str::to_owned).collect())
    }

    pub(super) fn record(&self) -> String {
        let lines = self.0.join("\n");
        format!("# What the modules were built with, written by `cargo xtask guests`.\n{lines}\n")
    }

    /// Files are named `name_version_architecture.deb`, with what a file's name cannot have in percent signs.
    fn of_files(files: &[PathBuf]) -> Option<Self> {
        let package = |file: &PathBuf| {
            let mut parts = file.file_stem()?.to_str()?.split('_');
            let (name, version) = (parts.next()?, parts.next()?.replace("%3a", ":"));
            Some(format!("{name}={version}"))
        };
        files.iter().map(package).collect::<Option<_>>().map(Self)
    }

    fn key(&self) -> ContentKey {
        ContentKey::of("toolchain of guests 1")
            .text(&self.0.join("\n"))
            .finish()
    }
}

/// Which toolchain.
pub(super) enum Wanted {
    /// What apt offers now.
    Newest,
    These(Packages),
}

/// A compiler, its linker and its libraries, which stay while this lives.
pub(super) struct Toolchain {
    packages: Packages,
    lease: Lease,
}

/// What is there after unpacking.
enum Unpacked {
    Whole(Toolchain),
    /// The library for [`TARGET`] is missing yet.
    Sources(Packages, Workspace),
}

impl Toolchain {
    /// Fails with [`Stop::Unfit`] where the packages are not to be had, or do not run on this host.
    pub(super) async fn obtain(
        runner: &mut Runner,
        cache: &Cache,
        wanted: Wanted,
    ) -> anyhow::Result<Self> {
        let place = cache.clone();
        let work = tokio::task::spawn_blocking(move || unpack(&place, &wanted));
        let (packages, workspace) = match runner
            .until_interrupted("guests: compiler", work)
            .await???
        {
            Unpacked::Whole(toolchain) => return Ok(toolchain),
            Unpacked::Sources(packages, workspace) => (packages, workspace),
        };
        build_library(runner, workspace.path()).await?;
        let lease = cache.publish(SHELF, &packages.key(), workspace)?;
        Ok(Self { packages, lease })
    }

    pub(super) fn packages(&self) -> &Packages {
        &self.packages
    }

    /// Has a cargo command use it, whatever compiler, flags and profiles the user's environment names.
    pub(super) fn apply(&self, command: &mut Command, places: &[(&Path, &str)], flags: &[&str]) {
        apply(self.lease.path(), command, places, flags);
    }
}

fn unpack(cache: &Cache, wanted: &Wanted) -> anyhow::Result<Unpacked> {
    if let Wanted::These(packages) = wanted
        && let Some(lease) = cache.lease(SHELF, &packages.key())
    {
        return Ok(Unpacked::Whole(Toolchain {
            packages: packages.clone(),
            lease,
        }));
    }
    talk::say(
        "xtask: guests: will fetch a compiler into the cache: Debian's packages, as this user",
    );
    let fetched = cache.workspace(SHELF, &ContentKey::of("fetch a toolchain").finish())?;
    let files = match wanted {
        Wanted::Newest => Apt::fresh(fetched.path(), |apt| download(apt, &offered(apt)?)),
        Wanted::These(packages) => Apt::attempt(fetched.path(), |apt| download(apt, &packages.0)),
    }
    .map_err(|error| Stop::Unfit {
        reason: format!("no compiler for the guests: {error}"),
    })?;
    let packages = Packages::of_files(&files)
        .context("could not tell packages' versions from their files' names")?;
    let workspace = cache.workspace(SHELF, &packages.key())?;
    if let Some(lease) = cache.lease(SHELF, &packages.key()) {
        return Ok(Unpacked::Whole(Toolchain { packages, lease }));
    }
    for file in &files {
        deb::unpack(file, workspace.path(), place)?;
    }
    Ok(Unpacked::Sources(packages, workspace))
}

/// The compiler's packages by name. Its libraries and its LLVM have versions in their names.
fn offered(apt: &Apt) -> Result<Vec<String>, AptError> {
    let depends = |package: &str, prefix: &str| {
        let mut names = apt.depends(package)?.into_iter();
        names
            .find(|name| name.starts_with(prefix))
            .ok_or_else(|| AptError::Absent {
                names: vec![format!("{prefix}*")],
            })
    };
    let library = depends("rustc-web", "libstd-rust-web")?;
    let driver = depends(&library, "libstd-rust-web")?;
    let llvm = depends(&driver, "libllvm")?;
    let linker = llvm.replace("libllvm", "lld-");
    let names = [
        "rustc-web",
        "rust-web-src",
        &library,
        &driver,
        &llvm,
        &linker,
    ];
    Ok(names.map(str::to_owned).to_vec())
}

fn download(apt: &Apt, packages: &[String]) -> Result<Vec<PathBuf>, AptError> {
    apt.download(&packages.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Where a package's file goes: all libraries of the compiler into one folder, the linker under the name by which rustc
/// knows what it links.
fn place(path: &Path) -> Option<PathBuf> {
    let parts: Vec<&str> = path
        .iter()
        .map(|part| part.to_str())
        .collect::<Option<_>>()?;
    match parts.as_slice() {
        ["usr", "bin", "rustc"] => Some("bin/rustc".into()),
        ["usr", "lib", _, "bin", "lld"] => Some("bin/wasm-ld".into()),
        // The name without the full version is a link.
        ["usr", "lib", _, name]
            if name.starts_with("librustc_driver-") || name.starts_with("libLLVM.so.") =>
        {
            Some(Path::new("lib").join(name))
        }
        ["usr", "lib", "rustlib", host, "lib", name] => {
            Some(Path::new("lib/rustlib").join(host).join("lib").join(name))
        }
        ["usr", "src", _, "library", inside @ ..] => {
            Some(Path::new("library").join(inside.iter().collect::<PathBuf>()))
        }
        _ => None,
    }
}

/// Builds the standard library for [`TARGET`] and puts it where the compiler looks for it.
///
/// `-Z build-std` would do it with the guests, each time, and derive names in it from where its sources lie, so that no
/// two machines made the same modules.
async fn build_library(runner: &mut Runner, toolchain: &Path) -> anyhow::Result<()> {
    starts(toolchain)?;
    let (sources, target) = (toolchain.join("library"), toolchain.join("target"));
    let mut command = cargo([
        "build",
        "--package",
        "std",
        "--release",
        "--offline",
        "--target",
        TARGET,
    ]);
    command
        .current_dir(&sources)
        .args([
            "--no-default-features",
            "--features",
            "compiler-builtins-mem,optimize_for_size",
        ])
        // Its sources come with all that it depends on, except for its own tests.
        .args(["-Z", "avoid-dev-deps"])
        .args(["--config", "source.crates-io.replace-with='vendored'"])
        .args(["--config", "source.vendored.directory='vendor'"])
        .arg("--target-dir")
        .arg(&target);
    let places = [(sources.as_path(), "library"), (target.as_path(), "target")];
    apply(
        toolchain,
        &mut command,
        &places,
        &["-Zforce-unstable-if-unmarked", "-Cembed-bitcode=yes"],
    );
    command
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "z")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort");
    runner.run("guests: standard library", command).await?;
    let library = toolchain.join("lib/rustlib").join(TARGET).join("lib");
    fs::create_dir_all(&library)?;
    for entry in fs::read_dir(target.join(TARGET).join("release/deps"))? {
        let path = entry?.path();
        if let (Some(name), Some("rlib")) = (
            path.file_name(),
            path.extension().and_then(|end| end.to_str()),
        ) {
            fs::rename(&path, library.join(name))?;
        }
    }
    fs::remove_dir_all(&target)?;
    fs::remove_dir_all(&sources)?;
    Ok(())
}

/// The packages' own dependencies are not fetched: libraries that almost every host has.
fn starts(toolchain: &Path) -> anyhow::Result<()> {
    for program in ["rustc", "wasm-ld"] {
        let program = toolchain.join("bin").join(program);
        let output = Command::new(&program)
            .arg("--version")
            .env("LD_LIBRARY_PATH", libraries(toolchain))
            .output()
            .with_context(|| format!("could not start {}", program.display()))?;
        if !output.status.success() {
            let reason = format!(
                "{} does not start: {}; the packages that libllvm* depends on must be installed",
                program.display(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
            return Err(Stop::Unfit { reason }.into());
        }
    }
    Ok(())
}

fn libraries(toolchain: &Path) -> OsString {
    let mut libraries = toolchain.join("lib").into_os_string();
    if let Some(others) = env::var_os("LD_LIBRARY_PATH") {
        libraries.push(":");
        libraries.push(others);
    }
    libraries
}

fn apply(toolchain: &Path, command: &mut Command, places: &[(&Path, &str)], flags: &[&str]) {
    for (name, _) in env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PROFILE_"))
        {
            command.env_remove(name);
        }
    }
    let mut all: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    all.extend(
        places
            .iter()
            .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())),
    );
    command
        .env("RUSTC", toolchain.join("bin/rustc"))
        .env("LD_LIBRARY_PATH", libraries(toolchain))
        .env(
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER",
            toolchain.join("bin/wasm-ld"),
        )
        // The separator lets paths have spaces; these flags win over any that the user has set.
        .env("CARGO_ENCODED_RUSTFLAGS", all.join("\u{1f}"))
        .env("CARGO_INCREMENTAL", "0")
        // Empty is none.
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_WORKSPACE_WRAPPER", "");
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{Packages, place};

    #[test]
    fn a_record_is_read_back() {
        let files = [
            "x/libllvm22_1%3a22.1.8-1~deb12u1_amd64.deb",
            "rustc-web_1.96.0+dfsg1-1~deb12u2_amd64.deb",
        ];
        let packages = Packages::of_files(&files.map(PathBuf::from)).unwrap();
        assert_eq!(
            packages.0,
            [
                "libllvm22=1:22.1.8-1~deb12u1",
                "rustc-web=1.96.0+dfsg1-1~deb12u2"
            ]
        );
        assert_eq!(Packages::parse(&packages.record()), packages);
        assert_eq!(Packages::of_files(&["odd.deb".into()]), None);
    }

    #[track_caller]
    fn check(path: &str, expected: Option<&str>) {
        assert_eq!(place(Path::new(path)).as_deref(), expected.map(Path::new));
    }

    #[test]
    fn files_go_where_the_compiler_looks_for_them() {
        check("usr/bin/rustc", Some("bin/rustc"));
        check("usr/bin/rustdoc", None);
        check("usr/lib/llvm-22/bin/lld", Some("bin/wasm-ld"));
        check(
            "usr/lib/x86_64-linux-gnu/libLLVM.so.22.1",
            Some("lib/libLLVM.so.22.1"),
        );
        check("usr/lib/x86_64-linux-gnu/libLLVM-22.so", None);
        check("usr/lib/rustlib/src/rust", None);
        check(
            "usr/lib/rustlib/x86_64-unknown-linux-gnu/lib/libstd-1.rlib",
            Some("lib/rustlib/x86_64-unknown-linux-gnu/lib/libstd-1.rlib"),
        );
        check(
            "usr/src/rustc-1.96.0/library/std/src/lib.rs",
            Some("library/std/src/lib.rs"),
        );
        check("usr/src/rustc-1.96.0/compiler/x.rs", None);
    }
}
