//! What can be typed: every command and flag. What they do is in [`crate::commands`].

mod cluster;
mod flow;
mod job;
mod lab;
mod node;
mod schedule;
mod value;

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use mvm_lab::verdict::EXIT_CODES;
use mvm_node::{
    auth::Scope,
    config::{AuthMode, Member},
};
use tracing_subscriber::EnvFilter;

pub use self::{
    cluster::{BackupCommand, ClusterArgs, ClusterCommand, DrainArgs, FetchArgs, OneNodeArgs},
    flow::{
        CancelFlowArgs, DeployArgs, EngineArgs, FlowArgs, FlowCommand, FlowUpArgs, ListFlowArgs,
        ModuleRef, OneFlowArgs, ReplayArgs, RetryFlowArgs, SendArgs, StartArgs, StartWhat,
    },
    job::{JobArgs, JobCommand, ListArgs, LogsArgs, OneJobArgs, SubmitArgs, WaitArgs, WorkArgs},
    lab::{AcceleratorArg, ConsoleArgs, LabArgs, RunArgs, SshArgs, UpArgs},
    node::NodeArgs,
    schedule::{AddScheduleArgs, OneScheduleArgs, ScheduleArgs, ScheduleCommand},
    value::When,
};

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
    /// Submits jobs to a cluster, and tells what becomes of them
    Job(JobArgs),
    /// Keeps what a cluster submits by itself, at times
    Schedule(ScheduleArgs),
    /// Tells how a cluster is, empties nodes of jobs, and backs up the queue
    Cluster(ClusterArgs),
    /// Runs workflows that survive their process, and tells what becomes of them
    Flow(FlowArgs),
    /// Runs scenarios in real virtual machines
    Test(TestArgs),
    /// Opens a prompt of Python's on a cluster, with the names of test scripts
    Repl(ReplArgs),
    /// Brings machines up and keeps them until Ctrl-C
    Up(UpArgs),
    /// Opens a terminal in a machine of a running lab
    Ssh(SshArgs),
    /// Attaches to the serial console of a machine of a running lab
    Console(ConsoleArgs),
    /// Lists and removes what was made for machines: images, snapshots, checkpoints
    #[command(subcommand)]
    Image(ImageCommand),
    /// Makes tokens for clients of a node
    #[command(subcommand)]
    Token(TokenCommand),
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
    /// Whether clients need tokens: tokens or none; one must be said where others reach the HTTP interface
    #[arg(long, value_name = "HOW")]
    pub auth: Option<AuthMode>,
    /// The file of tokens, which `mvm-ci token new` adds to
    #[arg(long, value_name = "PATH")]
    pub tokens: Option<PathBuf>,
    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Makes a token and prints it, this once; nodes keep its hash only
    New(NewTokenArgs),
}

/// Flags of `mvm-ci token new`.
#[derive(Debug, Args)]
pub struct NewTokenArgs {
    /// Who or what it is for, as logs will say
    pub name: String,
    /// What it allows: read, submit (and read), worker (and read) or admin (everything)
    #[arg(long, required = true, value_name = "SCOPE,...", value_delimiter = ',')]
    pub scope: Vec<Scope>,
    /// How long it lasts, as 90d, 12h or 30m [default: until it is taken out of the file]
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    pub expires: Option<Duration>,
    /// Adds its hash to this file of tokens, which nodes read again; without it the entry is printed
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
}

/// The log of what runs until it is asked to stop.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// How the log is written, to standard error
    #[arg(long, value_enum, env = "MVM_CI_LOG_FORMAT", default_value_t)]
    pub log_format: LogFormat,
    /// What is in the log, by crate and level, as in warn,mvm_node=debug; workflow is what workflows log
    #[arg(long, value_name = "FILTER", env = "MVM_CI_LOG", value_parser = log_filter, default_value = SERVE_LOG)]
    pub log: String,
}

/// Who runs a node, or an engine, wants to know what it does.
const SERVE_LOG: &str = "warn,mvm_ci=info,mvm_node=info,mvm_flow=info,workflow=info";

/// How a log is written.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// Checks a filter, which can only be used once.
fn log_filter(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Flags of `mvm-ci test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// What to run: scenarios by name, folders with topology.toml and test.py, or NAME.toml with NAME.py beside it
    #[arg(required_unless_present_any = ["list", "filter"])]
    pub scenarios: Vec<String>,
    /// Lists what would be run, or all scenarios there are
    #[arg(long)]
    pub list: bool,
    /// Only what has this in its name; of all scenarios where none are named
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// How many run at once, the longest first [default: half as many as there are processors]
    #[arg(long, value_name = "RUNS")]
    pub jobs: Option<NonZeroUsize>,
    /// How often each is run
    #[arg(long, value_name = "TIMES", default_value = "1")]
    pub repeat: NonZeroUsize,
    /// What the network's random choices are made from, as a failed run tells it [default: drawn for each run]
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Writes what became of runs and steps to this file, as JUnit XML
    #[arg(long, value_name = "PATH")]
    pub junit: Option<PathBuf>,
    /// Writes every event to standard output as a line of JSON
    #[arg(long)]
    pub json: bool,
    /// After a scenario that did not pass, keeps its machines until Ctrl-C, to be looked at by `mvm-ci ssh`
    #[arg(long)]
    pub pause_on_failure: bool,
    /// Keeps so many machines of each kind ready, so that a scenario that starts some gets them at once
    #[arg(
        long,
        value_name = "MACHINES",
        default_value_t = 0,
        conflicts_with = "cold"
    )]
    pub warm: usize,
    /// How they are run
    #[command(flatten)]
    pub run: RunArgs,
}

/// Flags of `mvm-ci repl`.
#[derive(Debug, Args)]
pub struct ReplArgs {
    /// A folder with topology.toml, or NAME.toml; a script beside it can be run by test_script()
    #[arg(value_name = "PATH")]
    pub topology: PathBuf,
    /// How the lab is run
    #[command(flatten)]
    pub run: RunArgs,
}

/// What to do with what was made for machines.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "The cache holds at most MVM_CI_CACHE_GIB GiB [default: 8]; what was used longest ago goes first. \
Kernels and the roots of Debian images are not: without a network there would be no second one. Roots go when they were not used for 60 days."
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

/// Reads a whole number of days, hours or minutes.
fn lifetime(text: &str) -> Result<Duration, String> {
    let seconds = match text.chars().last() {
        Some('d') => 86_400,
        Some('h') => 3_600,
        Some('m') => 60,
        _ => 0,
    };
    let number = text.strip_suffix(['d', 'h', 'm']);
    let lifetime = number
        .and_then(|number| number.parse::<u64>().ok()?.checked_mul(seconds))
        .filter(|seconds| *seconds > 0);
    lifetime
        .map(Duration::from_secs)
        .ok_or_else(|| "lifetimes are written 90d, 12h or 30m".to_owned())
}

fn serve_help() -> String {
    format!(
        "Only the file and the environment (MVM_CI_SECRET_RAFT, ...) set: secret_raft, secret_store \
         (needed with several members), heartbeat_ms, election_min_ms, election_max_ms, lease_ms, labels, backup_keep_days, \
         stop_grace_ms, flow_listen, flow_slots, flow_secrets, flow_limits, retain_jobs, retain_days, \
         tls_cert, tls_key, tls_ca, cluster_tls, rate_limit_per_s, connections_max.\n\n\
         The HTTP interface:\n{}",
        mvm_node::http::api_help()
    )
}

fn exit_codes() -> String {
    format!(
        "{}\n\n`mvm-ci job --help` has the exit codes of job, schedule and cluster; `mvm-ci flow --help` those of flow.",
        codes(EXIT_CODES)
    )
}

fn codes(table: &[(u8, &str)]) -> String {
    let rows = table
        .iter()
        .map(|(code, meaning)| format!("  {code:>3}  {meaning}"));
    format!("Exit codes:\n{}", rows.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_days_hours_or_minutes() {
        for (text, hours) in [("90d", 2160), ("12h", 12), ("120m", 2)] {
            assert_eq!(lifetime(text), Ok(Duration::from_secs(hours * 3_600)));
        }
        let largest = format!("{}d", u64::MAX);
        for text in ["", "d", "90", "0d", "-1d", "1.5h", "90days", "é", &largest] {
            assert!(lifetime(text).is_err(), "{text}");
        }
    }
}
