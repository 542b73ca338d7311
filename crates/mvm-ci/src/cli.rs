//! What can be typed: every command and flag. What they do is in [`crate::commands`].

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use mvm_lab::verdict::EXIT_CODES;
use mvm_node::config::Member;

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
    /// Runs a node: the replicated job queue and its HTTP interface
    Serve(ServeArgs),
    /// Runs scenarios in real virtual machines
    Test(TestArgs),
    /// Lists and removes what was made for machines: images, snapshots, checkpoints
    #[command(subcommand)]
    Image(ImageCommand),
    /// Tells what this host has and lacks
    Doctor(DoctorArgs),
}

/// Flags of `mvm-ci serve`. All but `restore` are also keys of the file and environment variables; flags win over
/// variables, variables over the file.
#[derive(Debug, Args)]
#[command(after_help = serve_help())]
pub struct ServeArgs {
    /// The configuration file [default: mvm-ci.toml in the current folder, if there is one]
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// This node's number among the members, from 1 [default: 1]
    #[arg(long, value_name = "ID")]
    pub node_id: Option<u64>,
    /// Where the node keeps its data [default: ~/.local/state/mvm-ci]
    #[arg(long, value_name = "PATH")]
    pub data_dir: Option<PathBuf>,
    /// Address and port of the HTTP interface [default: 127.0.0.1:3020 while all members are on loopback]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Address of the Raft and store ports, 9000 and 9001
    #[arg(long, value_name = "ADDRESS")]
    pub cluster_listen: Option<IpAddr>,
    /// How many jobs of kind `process` this node runs at once [default: 0]
    #[arg(long, value_name = "JOBS")]
    pub slots: Option<u32>,
    /// Found the cluster with what is in a backup: on node 1, with an empty data directory
    #[arg(long, value_name = "FILE")]
    pub restore: Option<PathBuf>,
    /// All nodes, this one included, as ID=HOST or ID=HOST:HTTP:RAFT:STORE [default: this node alone]
    #[arg(long, value_name = "MEMBER,...", value_delimiter = ',')]
    pub members: Option<Vec<Member>>,
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
    /// Boots every machine from its kernel's first instruction instead of using snapshots and checkpoints
    #[arg(long)]
    pub cold: bool,
    /// Records all that passes the network, and what is dropped and why, to network.pcapng in the run folder
    #[arg(long)]
    pub capture: bool,
    /// Keeps so many machines of each kind ready, so that a scenario that starts some gets them at once
    #[arg(
        long,
        value_name = "MACHINES",
        default_value_t = 0,
        conflicts_with = "cold"
    )]
    pub warm: usize,
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

/// What to do with what was made for machines.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "The cache holds at most MVM_CI_CACHE_GIB GiB [default: 8]; what was used longest ago goes first. \
Kernels are never removed: without a network there would be no second one."
)]
pub enum ImageCommand {
    /// Lists it, what was used longest ago first
    List(ImageListArgs),
    /// Removes what was used longest ago; what is in use stays
    Prune(ImagePruneArgs),
}

/// Flags of `mvm-ci image list`.
#[derive(Debug, Args)]
pub struct ImageListArgs {
    /// Writes one line of JSON per entry to standard output
    #[arg(long)]
    pub json: bool,
}

/// Flags of `mvm-ci image prune`.
#[derive(Debug, Args)]
pub struct ImagePruneArgs {
    /// Keeps so much, in GiB, instead of the cache's bound; 0 removes all
    #[arg(long, value_name = "GIB")]
    pub keep: Option<u32>,
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

fn serve_help() -> String {
    format!(
        "Only the file and the environment (MVM_CI_SECRET_RAFT, ...) set: secret_raft, secret_store \
         (needed with several members), heartbeat_ms, election_min_ms, election_max_ms, lease_ms, \
         backup_keep_days, labels.\n\n\
         The HTTP interface:\n{}",
        mvm_node::http::api_help()
    )
}

fn exit_codes() -> String {
    let rows = EXIT_CODES
        .iter()
        .map(|(code, meaning)| format!("  {code:>3}  {meaning}"));
    format!("Exit codes:\n{}", rows.collect::<Vec<_>>().join("\n"))
}
