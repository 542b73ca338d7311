//! What can be typed: every command and flag. What they do is in [`crate::commands`].

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use mvm_lab::verdict::EXIT_CODES;

/// mvm-ci boots clusters of real virtual machines, breaks them on purpose and judges what it saw.
#[derive(Debug, Parser)]
#[command(name = "mvm-ci", version, after_help = exit_codes())]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs scenarios in real virtual machines
    Test(TestArgs),
    /// Tells what this host has and lacks
    Doctor(DoctorArgs),
}

/// Flags of `mvm-ci test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// The scenarios to run, one after the other
    #[arg(required_unless_present = "list")]
    pub scenarios: Vec<String>,
    /// Lists the scenarios there are
    #[arg(long)]
    pub list: bool,
    /// Writes every event to standard output as a line of JSON
    #[arg(long)]
    pub json: bool,
    /// What executes the guests
    #[arg(long, value_enum, default_value_t)]
    pub accelerator: AcceleratorArg,
    /// A kernel of your own (vmlinux or bzImage) instead of the distribution's
    #[arg(long, value_name = "PATH")]
    pub kernel: Option<PathBuf>,
    /// Where run folders are made
    #[arg(
        long,
        value_name = "PATH",
        default_value = "mvm-ci-runs",
        env = "MVM_CI_RUNS"
    )]
    pub runs: PathBuf,
}

/// Flags of `mvm-ci doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Writes the findings to standard output as JSON
    #[arg(long)]
    pub json: bool,
}

/// The accelerators one can ask for.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum AcceleratorArg {
    /// KVM if a probe guest boots with it, else TCG
    #[default]
    Auto,
    /// The host's processor
    Kvm,
    /// QEMU's translator
    Tcg,
}

fn exit_codes() -> String {
    let rows = EXIT_CODES
        .iter()
        .map(|(code, meaning)| format!("  {code:>3}  {meaning}"));
    format!("Exit codes:\n{}", rows.collect::<Vec<_>>().join("\n"))
}
