//! Flags of `mvm-ci job`.

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use mvm_queue::{Concurrency, JobId, JobState};

use super::{
    node::NodeArgs,
    value::{self, When},
};
use crate::exit_codes::NODE_EXIT_CODES;

/// Jobs, at any node.
#[derive(Debug, Args)]
#[command(after_help = super::codes(NODE_EXIT_CODES))]
pub struct JobArgs {
    /// How to reach the cluster.
    #[command(flatten)]
    pub node: NodeArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: JobCommand,
}

/// What can be done with jobs.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// Submits a job, and prints its id
    Submit(Box<SubmitArgs>),
    /// Lists jobs, the newest first
    List(ListArgs),
    /// Shows a job and what was tried
    Show(OneJobArgs),
    /// Writes a job's output: what it wrote to standard output there, and to standard error there
    Logs(LogsArgs),
    /// Cancels a job; one that runs is stopped by its worker
    Cancel(OneJobArgs),
    /// Tries a failed or dead job again
    Retry(OneJobArgs),
    /// Waits until jobs have ended
    Wait(WaitArgs),
}

/// Names one job.
#[derive(Debug, Args)]
pub struct OneJobArgs {
    /// The job
    #[arg(value_name = "ID", value_parser = job_id)]
    pub id: JobId,
}

/// What a job is to do, and with what.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("work").required(true).args(["kind", "script", "command"])))]
pub struct WorkArgs {
    /// A job for workers of this kind
    #[arg(long)]
    pub kind: Option<String>,
    /// What that worker is told
    #[arg(
        long,
        value_name = "JSON|@FILE|-",
        requires = "kind",
        default_value = "null"
    )]
    pub payload: String,
    /// A script for /bin/sh, run by a node
    #[arg(long, value_name = "TEXT|@FILE|-")]
    pub script: Option<String>,
    /// A command, run by a node
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
    /// A variable of the command or script
    #[arg(long, value_name = "NAME=VALUE", value_parser = value::variable, conflicts_with = "kind")]
    pub env: Vec<(String, String)>,
    /// Memory that the command or script may use: 512M, 2G
    #[arg(long, value_name = "BYTES", value_parser = value::bytes, conflicts_with = "kind")]
    pub memory_limit: Option<u64>,
    /// A label that the worker must offer
    #[arg(long = "label", value_name = "LABEL", value_delimiter = ',')]
    pub labels: Vec<String>,
    /// Higher goes first
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub priority: i32,
    /// How often it may fail or time out
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub attempts: u32,
    /// How long one attempt may take: 90s, 10m, 1h 30m
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub time_limit: Option<Duration>,
    /// At most so many jobs of this key at once
    #[arg(long, value_name = "KEY=LIMIT", value_parser = value::concurrency)]
    pub concurrency: Option<Concurrency>,
}

/// Of commands with [`WorkArgs`].
pub(super) const VALUES_HELP: &str =
    "Values written @FILE are read from that file, - from standard input.";

/// Flags of `mvm-ci job submit`.
#[derive(Debug, Args)]
#[command(
    override_usage = "\
mvm-ci job submit [OPTIONS] -- COMMAND [ARGUMENT]...
       mvm-ci job submit [OPTIONS] --script TEXT
       mvm-ci job submit [OPTIONS] --kind KIND [--payload JSON]",
    after_help = VALUES_HELP
)]
pub struct SubmitArgs {
    /// What it is to do.
    #[command(flatten)]
    pub work: WorkArgs,
    /// Not before: 10m from now, or 2027-01-31T08:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = value::when)]
    pub run_after: Option<When>,
    /// Jobs that must complete first
    #[arg(long, value_name = "ID", num_args = 1.., value_delimiter = ',', value_parser = job_id)]
    pub after: Vec<JobId>,
    /// The same key is the same job: submitting it again changes nothing
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Waits until the job has ended; the exit code tells how
    #[arg(long)]
    pub wait: bool,
    /// Writes the job's output as it comes, until it has ended; the exit code tells how
    #[arg(long, conflicts_with = "wait")]
    pub follow: bool,
}

/// Flags of `mvm-ci job list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those in this state
    #[arg(long, value_parser = value::state)]
    pub state: Option<JobState>,
    /// Only those that need this label
    #[arg(long)]
    pub label: Option<String>,
    /// Only those that this node took
    #[arg(long, value_name = "NODE")]
    pub submitted_on: Option<u64>,
    /// Only those that a worker of this node claimed last
    #[arg(long, value_name = "NODE")]
    pub claimed_on: Option<u64>,
    /// Only those submitted since: 10m ago, or 2027-01-31T08:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = value::when)]
    pub since: Option<When>,
    /// Lists the oldest first
    #[arg(long)]
    pub oldest_first: bool,
    /// At most so many
    #[arg(long, value_name = "JOBS", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// All of them
    #[arg(long, conflicts_with = "limit")]
    pub all: bool,
}

/// Flags of `mvm-ci job logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The job
    #[arg(value_name = "ID", value_parser = job_id)]
    pub id: JobId,
    /// Writes output as it comes, also of later attempts, until the job has ended
    #[arg(short, long)]
    pub follow: bool,
    /// Which attempt, or with --follow the first one [default: the latest]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(1..))]
    pub attempt: Option<i64>,
}

/// Flags of `mvm-ci job wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// The jobs
    #[arg(value_name = "ID", required = true, value_parser = job_id)]
    pub ids: Vec<JobId>,
}

#[expect(clippy::unnecessary_wraps, reason = "clap takes parsers that may fail")]
fn job_id(text: &str) -> Result<JobId, String> {
    Ok(JobId(text.to_owned()))
}
