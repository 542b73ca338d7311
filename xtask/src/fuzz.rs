//! `cargo xtask fuzz`: the border between guests and the workflow engine, under libFuzzer.
//!
//! The flags are those of cargo-fuzz but for its sanitizer, which takes a nightly compiler: what is ours here is safe Rust,
//! whose faults are panics. They apply to a target only, not to build scripts, which is why it is named.

use std::fs;
use std::process::Command;

use anyhow::Context;

use crate::cargo::{cargo, root};
use crate::cli::FuzzOptions;
use crate::runner::Runner;

const MANIFEST: &str = "fuzz/Cargo.toml";
const FLAGS: &str = "--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
const INPUT_BYTES_MAX: u32 = 4096;

pub(crate) async fn fuzz(runner: &mut Runner, options: FuzzOptions) -> anyhow::Result<()> {
    let folder = root().join("target/fuzz");
    let host = host(
        &cargo(["-vV"])
            .output()
            .context("could not ask cargo")?
            .stdout,
    )?;
    let mut build = cargo([
        "build",
        "--release",
        "--locked",
        "--manifest-path",
        MANIFEST,
    ]);
    build
        .args(["--target", &host])
        .env("CARGO_TARGET_DIR", &folder)
        .env("RUSTFLAGS", FLAGS);
    runner.run("build", build).await?;

    let (corpus, broken) = (folder.join("corpus"), folder.join("broken"));
    for folder in [&corpus, &broken] {
        fs::create_dir_all(folder)
            .with_context(|| format!("could not make {}", folder.display()))?;
    }
    let mut target = Command::new(folder.join(&host).join("release/border"));
    match options.input {
        Some(input) => target.arg(input),
        None => target
            .arg(format!("-max_total_time={}", options.seconds))
            .arg(format!("-max_len={INPUT_BYTES_MAX}"))
            .arg(format!("-artifact_prefix={}/", broken.display()))
            .arg("-print_final_stats=1")
            .arg(corpus),
    };
    runner.run("fuzz", target).await?;
    Ok(())
}

/// The platform that cargo runs on, from what `cargo -vV` says.
fn host(told: &[u8]) -> anyhow::Result<String> {
    let told = String::from_utf8_lossy(told);
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host
        .context("cargo does not say what it runs on")?
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platform_is_what_cargo_says() {
        let told = b"cargo 1.95.0 (abc 2026-01-01)\nrelease: 1.95.0\nhost: x86_64-unknown-linux-gnu\nos: Debian\n";
        assert_eq!(host(told).unwrap(), "x86_64-unknown-linux-gnu");
        assert!(host(b"no cargo").is_err());
    }
}
