//! Builds the static guest agent with a nested cargo, so that using this crate needs nothing built before.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    let manifest_folder = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let agent = manifest_folder.join("../mvm-agent");
    let target_folder = PathBuf::from(variable("OUT_DIR")).join("agent");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", agent.join("src").display());
    println!(
        "cargo::rerun-if-changed={}",
        agent.join("Cargo.toml").display()
    );
    build_agent(&agent, &target_folder);
    let binary = target_folder.join(TARGET).join("agent/mvm-agent");
    println!("cargo::rustc-env=MVM_AGENT_BINARY={}", binary.display());
}

fn build_agent(agent: &Path, target_folder: &Path) {
    let mut command = Command::new(variable("CARGO"));
    command
        .args([
            "build",
            "--quiet",
            "--profile",
            "agent",
            "--target",
            TARGET,
            "--bin",
            "mvm-agent",
        ])
        .args([
            "--no-default-features",
            "--features",
            "daemon",
            "--manifest-path",
        ])
        .arg(agent.join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", target_folder)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    // What the outer cargo set up for this crate (wrappers such as clippy's, flags) is not for the agent.
    for name in [
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC",
        "RUSTDOC",
        "CARGO_MAKEFLAGS",
        "MAKEFLAGS",
    ] {
        command.env_remove(name);
    }
    let status = command.status();
    let built = status.as_ref().is_ok_and(|status| status.success());
    assert!(
        built,
        "could not build the guest agent: {command:?} gave {status:?}; a static build needs libc.a (package libc6-dev)"
    );
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("cargo sets {name}: {error}"))
}
