//! `cargo xtask test`: everything that must hold before a merge. Formatting and lints are in `lint`, repetitions in `soak`.

use crate::cargo::cargo;
use crate::cli::TestOptions;
use crate::runner::Runner;
use crate::{setup, talk};

pub(crate) async fn test(runner: &mut Runner, options: TestOptions) -> anyhow::Result<()> {
    setup::setup(runner).await?;
    setup::extra_programs(runner, &setup::OF_THE_TESTS).await?;
    let built = runner
        .run("build", cargo(["build", "--workspace", "--all-targets"]))
        .await?;
    let mut command = cargo(["test", "--workspace", "--no-fail-fast"]);
    command.args(options.extra);
    let tested = runner.run("test", command).await?;
    talk::say(format_args!(
        "xtask: all tests passed; build {:.1} s, tests {:.1} s",
        built.as_secs_f64(),
        tested.as_secs_f64()
    ));
    Ok(())
}
