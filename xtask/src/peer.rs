//! The peer of `bench flow`, from npm's registry: the packages that its `package.json` names, in the target folder.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use anyhow::Context;

use crate::cargo::root;
use crate::runner::Runner;

/// Tells the measuring program where the peer is.
pub(crate) const VARIABLE: &str = "MVM_CI_BENCH_PEER";
const SOURCES: &str = "crates/mvm-ci/benches/flow/peer";
const PACKAGES: &str = "package.json";
const SERVICE: &str = "service.mjs";
/// Written when all is installed: a copy of the packages' names and versions.
const INSTALLED: &str = "installed.json";

/// Installs it, unless it is there, and returns its folder.
pub(crate) async fn install(runner: &mut Runner) -> anyhow::Result<PathBuf> {
    let sources = root().join(SOURCES);
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let folder = root().join(target).join("bench-flow-peer");
    fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    for file in [PACKAGES, SERVICE] {
        fs::copy(sources.join(file), folder.join(file))
            .with_context(|| format!("could not copy {file} to {}", folder.display()))?;
    }
    let packages = fs::read(folder.join(PACKAGES))?;
    if fs::read(folder.join(INSTALLED)).is_ok_and(|installed| installed == packages) {
        return Ok(folder);
    }
    let mut npm = Command::new("npm");
    // None of their scripts is needed.
    npm.args(["install", "--ignore-scripts", "--no-package-lock"])
        .args(["--no-audit", "--no-fund"])
        .current_dir(&folder);
    runner.run("the peer", npm).await?;
    fs::write(folder.join(INSTALLED), packages)?;
    Ok(folder)
}
