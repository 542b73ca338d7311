//! Flags of `mvm-ci cluster`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::node::NodeArgs;
use crate::exit_codes::NODE_EXIT_CODES;

/// Clusters, at any node.
#[derive(Debug, Args)]
#[command(after_help = super::codes(NODE_EXIT_CODES))]
pub struct ClusterArgs {
    /// How to reach the cluster.
    #[command(flatten)]
    pub node: NodeArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: ClusterCommand,
}

/// What can be asked of a cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Tells of every node whether it is ready, who leads, and how far it is behind
    Status,
    /// Has a node take no more jobs; those that it runs go on to their end
    Drain(DrainArgs),
    /// Has a node take jobs again
    Resume(OneNodeArgs),
    /// Backs up the queue
    #[command(subcommand)]
    Backup(BackupCommand),
}

/// Names one node.
#[derive(Debug, Args)]
pub struct OneNodeArgs {
    /// The node's number among the members
    #[arg(value_name = "NODE")]
    pub node: u64,
}

/// Flags of `mvm-ci cluster drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// Which node.
    #[command(flatten)]
    pub node: OneNodeArgs,
    /// Waits until it runs nothing any more
    #[arg(long)]
    pub wait: bool,
}

/// What can be done with backups.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Lists the backups of the node that answers, the newest first
    List,
    /// Makes a backup on every node, and prints its name; within a minute there is only one
    Now,
    /// Fetches a backup from the node that answers, and prints the file's name
    Fetch(FetchArgs),
}

/// Flags of `mvm-ci cluster backup fetch`.
#[derive(Debug, Args)]
pub struct FetchArgs {
    /// Which [default: the newest]
    pub name: Option<String>,
    /// Where it is written, which must not exist yet [default: its name, in the current folder]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}
