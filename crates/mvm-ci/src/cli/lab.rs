//! `mvm-ci up`, `ssh` and `console`, and what they share with `mvm-ci test`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::exit_codes::DETACHED;

/// How a lab is run.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Boots every machine from its kernel's first instruction instead of using snapshots and checkpoints
    #[arg(long)]
    pub cold: bool,
    /// Records all that passes the network, and what is dropped and why, to network.pcapng in the run folder
    #[arg(long)]
    pub capture: bool,
    /// What executes the guests
    #[arg(long, value_enum, default_value_t)]
    pub accelerator: AcceleratorArg,
    /// A kernel of your own (vmlinux or bzImage) instead of the distribution's
    #[arg(long, value_name = "PATH")]
    pub kernel: Option<PathBuf>,
    /// Gives every machine a graphics card and opens its screen, of a kind that QEMU on this host has
    #[arg(
        long,
        value_name = "KIND",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "gtk"
    )]
    pub display: Option<String>,
    /// Where runs are
    #[command(flatten)]
    pub runs: RunsArgs,
}

/// Where runs are.
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// Where run folders are made
    #[arg(
        long,
        value_name = "PATH",
        default_value = "mvm-ci-runs",
        env = "MVM_CI_RUNS"
    )]
    pub runs: PathBuf,
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

/// Flags of `mvm-ci up`.
#[derive(Debug, Args)]
#[command(
    after_help = "While it runs, `mvm-ci ssh MACHINE` opens a terminal in a machine from elsewhere. Ctrl-C ends all machines.\n\
The variable QEMU_OPTS has more arguments for every machine's QEMU, for `mvm-ci test` too."
)]
pub struct UpArgs {
    /// A topology file, or a folder with a topology.toml
    pub topology: PathBuf,
    /// Writes every event to standard output as a line of JSON
    #[arg(long)]
    pub json: bool,
    /// How the lab is run
    #[command(flatten)]
    pub run: RunArgs,
}

/// Flags of `mvm-ci ssh`.
#[derive(Debug, Args)]
#[command(after_help = attach_help(
    "Ctrl-] leaves; all else that is typed, Ctrl-C too, goes to the machine.\n\
     Where standard input or output is no terminal, they are pipes, and standard error is apart.\n\n\
     Exit codes: those of the shell or the command, 128 and the signal's number if one ended it,",
))]
pub struct SshArgs {
    /// Which lab
    #[command(flatten)]
    pub lab: LabArgs,
    /// The machine
    pub machine: String,
    /// A line for the machine's shell, as of ssh; without it the shell itself, as at a login
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// Flags of `mvm-ci console`.
#[derive(Debug, Args)]
#[command(after_help = attach_help(
    "Shows the last lines, then what the machine says, across its restarts. Ctrl-] leaves; all else that is typed goes to\n\
     the machine. In a minimal machine nobody reads it unless a program of yours opens /dev/ttyS0.\n\nExit codes: 0,",
))]
pub struct ConsoleArgs {
    /// Which lab
    #[command(flatten)]
    pub lab: LabArgs,
    /// The machine
    pub machine: String,
}

/// Which running lab is meant.
#[derive(Debug, Args)]
pub struct LabArgs {
    /// The lab of this run folder instead of the one that began last
    #[arg(long, value_name = "FOLDER", conflicts_with = "control")]
    pub run: Option<PathBuf>,
    /// The lab behind this control socket
    #[arg(long, value_name = "PATH", env = "MVM_CI_CONTROL")]
    pub control: Option<PathBuf>,
    /// Where runs are
    #[command(flatten)]
    pub runs: RunsArgs,
}

fn attach_help(text: &str) -> String {
    format!("{text} {DETACHED} if there is no such machine or it went away.")
}
