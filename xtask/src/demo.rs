//! `cargo xtask demo`: the project's main job, from a fresh clone to a verdict.

use crate::cargo::cargo;
use crate::cli::DemoOptions;
use crate::runner::Runner;
use crate::setup;

pub(crate) async fn demo(runner: &mut Runner, options: DemoOptions) -> anyhow::Result<()> {
    setup::setup(runner).await?;
    runner
        .run("build", cargo(["build", "--package", "mvm-ci"]))
        .await?;
    let mut command = cargo([
        "run",
        "--quiet",
        "--package",
        "mvm-ci",
        "--",
        "test",
        "cluster",
    ]);
    command.args(options.extra);
    runner.run("demo", command).await?;
    Ok(())
}
