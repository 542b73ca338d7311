//! The words of the command line, apart from the code that acts on them.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// All automation of mvm-ci
///
/// Exit codes: 0 done; 1 failed; 2 usage; 4 environment unfit: the host lacks something, which the last lines
/// name; 130 interrupted. A program that a task runs and that fails with another code passes its code on; one ended by
/// signal N gives 128 + N.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) task: Task,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Install what this host lacks and fetch a guest kernel; says what it does before it does it
    ///
    /// Installs with apt-get as root or through sudo. A plain user without sudo is told the command to
    /// run instead. Does nothing, and needs no network, when nothing is missing.
    Setup,
    /// Watch three virtual machines form a cluster, lose a node, split and heal
    ///
    /// Runs set-up, builds mvm-ci and runs `mvm-ci test cluster`.
    Demo(DemoOptions),
    /// Run every test
    ///
    /// Runs set-up, `cargo build --workspace --all-targets` and `cargo test --workspace`.
    Test(TestOptions),
    /// Measure, and print the numbers beside their goals
    Bench(BenchOptions),
    /// Repeat scenarios on real machines many times and count how they end
    Soak(SoakOptions),
    /// Build the modules of `guests/` to WebAssembly and put them into `guests/built`
    ///
    /// Tests them, then fetches Debian's Rust compiler into the cache where it is not there yet; installs nothing.
    Guests(GuestsOptions),
    /// Hand the workflow engine what no guest would, guided by what it covers; needs a C++ compiler
    ///
    /// Builds the fuzz target of `fuzz/` and what it uses with counters, into `target/fuzz`, and runs it with
    /// libFuzzer. What it learned stays there for the next time, and so does what broke it.
    Fuzz(FuzzOptions),
    /// Check formatting, clippy's lints and, where cargo-deny is installed, the dependencies
    Lint,
}

/// Options of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoOptions {
    /// More arguments for `mvm-ci test cluster`, such as --json
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) extra: Vec<String>,
}

/// Options of `test`.
#[derive(Debug, Args)]
pub(crate) struct TestOptions {
    /// More arguments for `cargo test --workspace`, such as part of a test's name
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) extra: Vec<String>,
}

/// Options of `bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchOptions {
    /// What to measure
    pub(crate) subject: Subject,
    /// How often; the median is the number
    #[arg(long, default_value = "5", value_name = "N")]
    pub(crate) repetitions: NonZeroU32,
    /// Also write the numbers to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// `queue` only: up to a million jobs in the queue, which takes a quarter of an hour more each time
    #[arg(long)]
    pub(crate) large: bool,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Subject {
    /// Machines, from process start to an answering agent, beside a bare kernel's boot
    Boot,
    /// The `cluster` scenario from a cold start to its verdict, in the profile of the tests
    Cluster,
    /// The switch, forwarding frames, between guests too, and cutting a link, beside `vde_switch`, which is installed
    /// for this
    Fabric,
    /// Workflows on one engine and on three nodes, beside Restate, which is installed from npm for this; replays, and workflows
    /// that sleep
    Flow,
    /// The queue of three nodes, under load and with many jobs waiting, beside PostgreSQL, which is installed for this;
    /// and what a claim costs the database alone
    Queue,
    /// Test scripts, on minimal machines and on Debian's: starts, calls, a whole test, and what is kept in the cache
    Scripts,
}

/// Options of `soak`.
#[derive(Debug, Args)]
pub(crate) struct SoakOptions {
    /// A scenario, as `mvm-ci test` names it; may be given several times
    #[arg(long = "scenario", default_value = "cluster", value_name = "NAME", value_parser = scenario_name)]
    pub(crate) scenarios: Vec<String>,
    /// How often to run each
    #[arg(long, default_value = "20", value_name = "N")]
    pub(crate) count: NonZeroU32,
}

/// Options of `fuzz`.
#[derive(Debug, Args)]
pub(crate) struct FuzzOptions {
    /// How long, in seconds
    #[arg(long, default_value = "60", value_name = "N")]
    pub(crate) seconds: NonZeroU32,
    /// Run this input again instead, for instance one that broke it
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
}

/// Options of `guests`.
#[derive(Debug, Args)]
pub(crate) struct GuestsOptions {
    /// Write nothing: fail if a module in `guests/built` is not what its sources make
    ///
    /// Compares nothing, and says why, where the compiler that it was built with cannot be had.
    #[arg(long)]
    pub(crate) check: bool,
}

/// A scenario's name becomes part of a file's name.
fn scenario_name(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if fits {
        Ok(text.to_owned())
    } else {
        Err("a scenario's name has letters, digits, `-` and `_` only".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Cli, Task};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_for_cargo_test_are_passed_on_untouched() {
        let cli = Cli::parse_from([
            "xtask",
            "test",
            "-p",
            "mvm-node",
            "name",
            "--",
            "--nocapture",
        ]);
        let Task::Test(options) = cli.task else {
            panic!("{cli:?}")
        };
        assert_eq!(
            options.extra,
            ["-p", "mvm-node", "name", "--", "--nocapture"]
        );
    }

    #[test]
    fn a_scenario_is_not_a_path() {
        assert!(Cli::try_parse_from(["xtask", "soak", "--scenario", "../cluster"]).is_err());
        assert!(Cli::try_parse_from(["xtask", "soak", "--scenario", "simple-network"]).is_ok());
    }

    #[test]
    fn counts_of_nothing_are_refused() {
        assert!(Cli::try_parse_from(["xtask", "soak", "--count", "0"]).is_err());
        assert!(Cli::try_parse_from(["xtask", "bench", "boot", "--repetitions", "0"]).is_err());
    }
}
