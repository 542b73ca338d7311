//! `cargo xtask guests`: builds the modules of `guests/` and keeps them in `guests/built`, so that nobody needs a compiler
//! for WebAssembly to run them. `--check` builds them anew and compares.
//!
//! The compiler is [`toolchain`]'s. The same sources and compiler give the same bytes wherever they are built: every path
//! of this machine is mapped to one that all machines have. What differs where they do not is told by [`difference`].

mod difference;
mod toolchain;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, bail};
use mvm_machine::cache::{Cache, ContentKey};
use serde::Deserialize;

use crate::cargo::{cargo, root};
use crate::cli::GuestsOptions;
use crate::runner::Runner;
use crate::stop::Stop;
use crate::talk;
use toolchain::{Packages, TARGET, Toolchain, Wanted};

/// A module is copied to every node of a cluster; one that has grown beyond this has taken in something large.
const BYTES_MAX: usize = 300 << 10;

/// Modules by the name of their crate.
type Modules = BTreeMap<String, Vec<u8>>;

pub(crate) async fn guests(runner: &mut Runner, options: GuestsOptions) -> anyhow::Result<()> {
    let tests = in_workspace(["test", "--locked"]);
    runner.run("guests: test", tests).await?;
    let cache = Cache::for_user()?;
    if options.check {
        check(runner, &cache).await
    } else {
        build(runner, &cache).await
    }
}

/// Builds with the compiler that the modules were built with before; where that cannot be had, with the newest.
async fn build(runner: &mut Runner, cache: &Cache) -> anyhow::Result<()> {
    let toolchain = match Packages::recorded(&record())? {
        None => Toolchain::obtain(runner, cache, Wanted::Newest).await?,
        Some(packages) => match Toolchain::obtain(runner, cache, Wanted::These(packages)).await {
            Err(error) if is_unfit(&error) => {
                talk::say(format_args!(
                    "xtask: guests: taking the newest compiler: {error:#}"
                ));
                Toolchain::obtain(runner, cache, Wanted::Newest).await?
            }
            obtained => obtained?,
        },
    };
    let modules = compile(runner, &toolchain, &target_folder()).await?;
    for (name, bytes) in &modules {
        fs::write(built(name), bytes)?;
        talk::say(format_args!(
            "xtask: guests: {name}.wasm, {} bytes",
            bytes.len()
        ));
    }
    fs::write(record(), toolchain.packages().record())?;
    Ok(())
}

/// Builds elsewhere, with the compiler that the modules were built with, and compares.
async fn check(runner: &mut Runner, cache: &Cache) -> anyhow::Result<()> {
    let packages = Packages::recorded(&record())?
        .with_context(|| format!("could not find {}", record().display()))?;
    let toolchain = match Toolchain::obtain(runner, cache, Wanted::These(packages)).await {
        Err(error) if is_unfit(&error) => {
            talk::say(format_args!("xtask: guests: not compared: {error:#}"));
            return Ok(());
        }
        obtained => obtained?,
    };
    let place = cache.workspace(
        toolchain::SHELF,
        &ContentKey::of("check of the guests").finish(),
    )?;
    let modules = compile(runner, &toolchain, place.path()).await?;
    let complaints = complaints(&modules, &committed()?);
    if !complaints.is_empty() {
        bail!(
            "could not build the modules of {} from their sources:\n  {}\nbuild them with `cargo xtask guests`",
            built_folder().display(),
            complaints.join("\n  ")
        );
    }
    talk::say(format_args!(
        "xtask: guests: {} modules are what their sources make",
        modules.len()
    ));
    Ok(())
}

fn is_unfit(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Stop::Unfit { .. }))
}

fn complaints(built: &Modules, committed: &Modules) -> Vec<String> {
    let names: BTreeSet<_> = built.keys().chain(committed.keys()).collect();
    let complaint = |name: &String| match (committed.get(name), built.get(name)) {
        (None, _) => Some(format!("{name}.wasm is missing")),
        (_, None) => Some(format!("{name}.wasm has no sources")),
        (Some(committed), Some(built)) => {
            difference::difference(committed, built).map(|text| format!("{name}.wasm: {text}"))
        }
    };
    names.into_iter().filter_map(complaint).collect()
}

/// A cargo command in the guests' workspace.
pub(crate) fn in_workspace<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = cargo(arguments);
    command
        .current_dir(sources())
        .env("CARGO_TARGET_DIR", target_folder());
    command
}

fn sources() -> PathBuf {
    root().join("guests")
}

fn built_folder() -> PathBuf {
    sources().join("built")
}

fn built(name: &str) -> PathBuf {
    built_folder().join(format!("{name}.wasm"))
}

/// Tells which compiler the modules were built with.
fn record() -> PathBuf {
    built_folder().join("toolchain")
}

fn target_folder() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    root().join(target).join("guests")
}

fn committed() -> anyhow::Result<Modules> {
    let mut modules = Modules::new();
    for entry in fs::read_dir(built_folder())? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "wasm")
            && let Some(name) = path.file_stem().and_then(|name| name.to_str())
        {
            modules.insert(name.to_owned(), fs::read(&path)?);
        }
    }
    Ok(modules)
}

/// What `cargo metadata` tells, as far as it is of use here.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    /// What is built where nothing is named: the modules. Other members are programs for the host.
    workspace_default_members: Vec<String>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    /// Absent for members of the workspace.
    source: Option<String>,
    manifest_path: PathBuf,
}

impl Metadata {
    fn read() -> anyhow::Result<Self> {
        let output = in_workspace(["metadata", "--format-version", "1", "--locked"]).output()?;
        if !output.status.success() {
            bail!(
                "could not list the guests' crates: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        serde_json::from_slice(&output.stdout)
            .context("could not read what `cargo metadata` printed")
    }

    fn modules(&self) -> impl Iterator<Item = &str> {
        let modules = self
            .packages
            .iter()
            .filter(|package| self.workspace_default_members.contains(&package.id));
        modules.map(|package| package.name.as_str())
    }

    /// The folders that crates of registries lie in.
    fn registries(&self) -> BTreeSet<&Path> {
        let others = self
            .packages
            .iter()
            .filter(|package| package.source.is_some());
        others
            .filter_map(|package| package.manifest_path.parent()?.parent())
            .collect()
    }
}

async fn compile(
    runner: &mut Runner,
    toolchain: &Toolchain,
    target: &Path,
) -> anyhow::Result<Modules> {
    let metadata = Metadata::read()?;
    let sources = sources();
    let here = [(sources.as_path(), "guests"), (target, "target")];
    let registries = metadata
        .registries()
        .into_iter()
        .map(|folder| (folder, "registry"));
    let places: Vec<(&Path, &str)> = here.into_iter().chain(registries).collect();
    let mut command = in_workspace(["build", "--release", "--locked", "--target", TARGET]);
    command.arg("--target-dir").arg(target);
    toolchain.apply(&mut command, &places, &[]);
    runner.run("guests: build", command).await?;
    let mut modules = Modules::new();
    for name in metadata.modules() {
        let file = target
            .join(TARGET)
            .join("release")
            .join(format!("{}.wasm", name.replace('-', "_")));
        let bytes =
            fs::read(&file).with_context(|| format!("could not read {}", file.display()))?;
        examine(name, &bytes, places.iter().map(|(place, _)| *place))?;
        modules.insert(name.to_owned(), bytes);
    }
    Ok(modules)
}

fn examine<'a>(
    name: &str,
    bytes: &[u8],
    mut places: impl Iterator<Item = &'a Path>,
) -> anyhow::Result<()> {
    if bytes.len() > BYTES_MAX {
        bail!(
            "could not keep {name}.wasm small: it has {} bytes, {BYTES_MAX} are the most",
            bytes.len()
        );
    }
    let text = String::from_utf8_lossy(bytes);
    match places.find(|place| text.contains(&*place.to_string_lossy())) {
        Some(place) => bail!("could not keep {} out of {name}.wasm", place.display()),
        None => Ok(()),
    }
}
