//! Flags of every command that speaks to nodes.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use mvm_client::ServerUrl;

use super::value;

/// How to reach a cluster.
#[derive(Debug, Args)]
#[command(next_help_heading = "Nodes")]
pub struct NodeArgs {
    /// A node to ask; with several, the next one if one is down
    #[arg(
        long = "server",
        value_name = "URL",
        env = "MVM_CI_SERVER",
        hide_env_values = true,
        value_delimiter = ',',
        default_value = "http://127.0.0.1:3020",
        global = true
    )]
    pub servers: Vec<ServerUrl>,
    /// A file with the token that proves who you are [default: the variable MVM_CI_TOKEN, if set]
    #[arg(long, value_name = "FILE", global = true)]
    pub token_file: Option<PathBuf>,
    /// Certificates (PEM) of an authority to trust besides the system's, for https
    #[arg(long, value_name = "FILE", global = true)]
    pub ca: Option<PathBuf>,
    /// How long to look for a node that serves a request
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = value::duration, global = true)]
    pub timeout: Duration,
    /// Writes JSON to standard output
    #[arg(long, global = true)]
    pub json: bool,
}
