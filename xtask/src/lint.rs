//! `cargo xtask lint`: what runs before a commit and needs no virtual machine.

use std::process::{Command, Stdio};

use crate::cargo::cargo;
use crate::guests;
use crate::runner::Runner;
use crate::talk;

pub(crate) async fn lint(runner: &mut Runner) -> anyhow::Result<()> {
    let format = ["fmt", "--all", "--", "--check"];
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    runner.run("format", cargo(format)).await?;
    runner.run("clippy", cargo(clippy)).await?;
    runner
        .run("guests: format", guests::in_workspace(format))
        .await?;
    runner
        .run("guests: clippy", guests::in_workspace(clippy))
        .await?;
    if succeeds_silently(cargo(["deny", "--version"])) {
        // Advisories need the network; bans, licences and sources do not.
        runner
            .run(
                "dependencies",
                cargo(["deny", "--offline", "check", "bans", "licenses", "sources"]),
            )
            .await?;
    } else {
        talk::say(
            "xtask: dependencies: not checked, cargo-deny is not installed (`cargo install cargo-deny`)",
        );
    }
    Ok(())
}

fn succeeds_silently(mut command: Command) -> bool {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
