//! Flags of `mvm-ci schedule`.

use clap::{Args, Subcommand};
use mvm_queue::Missed;

use super::{
    job::{VALUES_HELP, WorkArgs},
    node::NodeArgs,
    value,
};
use crate::exit_codes::NODE_EXIT_CODES;

/// Jobs that a cluster submits at times.
#[derive(Debug, Args)]
#[command(after_help = super::codes(NODE_EXIT_CODES))]
pub struct ScheduleArgs {
    /// How to reach the cluster.
    #[command(flatten)]
    pub node: NodeArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: ScheduleCommand,
}

/// What can be done with schedules.
#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// Adds a schedule, or replaces the one of that name, and prints its next time
    Add(Box<AddScheduleArgs>),
    /// Lists the schedules
    List,
    /// Shows a schedule and the job that it submits
    Show(OneScheduleArgs),
    /// Removes a schedule; jobs that it submitted stay
    Remove(OneScheduleArgs),
}

/// Names one schedule.
#[derive(Debug, Args)]
pub struct OneScheduleArgs {
    /// The schedule
    pub name: String,
}

/// Flags of `mvm-ci schedule add`.
#[derive(Debug, Args)]
#[command(
    override_usage = "\
mvm-ci schedule add [OPTIONS] NAME --cron LINE -- COMMAND [ARGUMENT]...
       mvm-ci schedule add [OPTIONS] NAME --cron LINE --script TEXT
       mvm-ci schedule add [OPTIONS] NAME --cron LINE --kind KIND [--payload JSON]",
    after_help = VALUES_HELP
)]
pub struct AddScheduleArgs {
    /// The schedule's name
    pub name: String,
    /// When, in UTC: minute, hour, day of the month, month, day of the week; seconds may come first
    #[arg(long, value_name = "LINE")]
    pub cron: String,
    /// What becomes of times at which no node could submit: once (the last of them), all (a hundred at most) or skip
    #[arg(long, value_name = "HOW", value_parser = value::missed, default_value = "once")]
    pub missed: Missed,
    /// What it submits.
    #[command(flatten)]
    pub work: WorkArgs,
}
