//! Flags of `mvm-ci flow`.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, str::FromStr};

use clap::{Args, Subcommand};
use mvm_client::ServerUrl;
use mvm_flow::{id::ExecutionId, journal::State, module::is_name};

use super::{LogArgs, value};
use crate::exit_codes::FLOW_EXIT_CODES;

/// Workflows, at an engine.
#[derive(Debug, Args)]
#[command(after_help = super::codes(FLOW_EXIT_CODES))]
pub struct FlowArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: FlowCommand,
}

/// What can be done with workflows.
#[derive(Debug, Subcommand)]
pub enum FlowCommand {
    /// Runs an engine, until it is asked to stop
    Up(Box<FlowUpArgs>),
    /// Deploys a module, and prints its name and version; the same again is no error
    Deploy(DeployArgs),
    /// Lists the modules that are deployed
    Modules(EngineArgs),
    /// Starts a workflow, and prints its id
    Start(StartArgs),
    /// Starts a workflow, waits, and prints its response: the same as start --wait
    Run(StartWhat),
    /// Sends a message to a workflow
    Send(SendArgs),
    /// Lists workflows, the newest first
    List(ListFlowArgs),
    /// Shows where a workflow stands
    Show(OneFlowArgs),
    /// Shows what a workflow did, record by record
    Journal(OneFlowArgs),
    /// Writes what a workflow logged
    Logs(OneFlowArgs),
    /// Waits for a workflow's response, and prints it
    Response(OneFlowArgs),
    /// Ends a workflow
    Cancel(CancelFlowArgs),
    /// Keeps a workflow from going on
    Pause(OneFlowArgs),
    /// Lets a paused workflow go on
    Resume(OneFlowArgs),
    /// Lets a failed or cancelled workflow go on from its journal
    Retry(RetryFlowArgs),
    /// Runs a workflow again here, without effects, and prints what it says to who debugs it
    Replay(ReplayArgs),
}

/// How to reach an engine.
#[derive(Debug, Args)]
#[command(next_help_heading = "Engine")]
pub struct EngineArgs {
    /// The engine to ask
    #[arg(
        long,
        value_name = "URL",
        env = "MVM_CI_FLOW_SERVER",
        hide_env_values = true,
        default_value = "http://127.0.0.1:27288"
    )]
    pub server: ServerUrl,
    /// A file with the token that proves who you are [default: the variable MVM_CI_FLOW_TOKEN, if set]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificates (PEM) of an authority to trust besides the system's, for https
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Writes JSON to standard output
    #[arg(long)]
    pub json: bool,
}

/// Flags of `mvm-ci flow up`.
#[derive(Debug, Args)]
pub struct FlowUpArgs {
    /// Where modules and journals are kept [default: ~/.local/state/mvm-ci-flow]
    #[arg(long, value_name = "DIR")]
    pub working_dir: Option<PathBuf>,
    /// Where clients come in
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:27288")]
    pub bind: SocketAddr,
    /// A file with the token that clients must show [default: the variable MVM_CI_FLOW_TOKEN, if set]
    #[arg(long, value_name = "FILE", conflicts_with = "no_token")]
    pub token_file: Option<PathBuf>,
    /// Lets everybody in who reaches the address, also from other hosts
    #[arg(long)]
    pub no_token: bool,
    /// What workflows may ask for: a file with lines of NAME=VALUE
    #[arg(long, value_name = "FILE")]
    pub secrets: Option<PathBuf>,
    /// How many workflows run at once; those that wait for long do not count
    #[arg(long, value_name = "WORKFLOWS", default_value = "256")]
    pub slots: NonZeroUsize,
    /// Memory that one workflow may have
    #[arg(long, value_name = "BYTES", default_value = "256M", value_parser = value::bytes)]
    pub memory: u64,
    /// WebAssembly instructions that a workflow may compute between two commands; the default takes some ten seconds
    #[arg(long, value_name = "COUNT", default_value = "20000000000", value_parser = clap::value_parser!(u64).range(1..))]
    pub instructions: u64,
    /// What workflows may have by their module, in TOML: memory_mib, instructions, journal_mib, run_time_s and runs, under
    /// [modules.NAME] or [default]; goes before --memory and --instructions
    #[arg(long, value_name = "FILE")]
    pub limits: Option<PathBuf>,
    /// How many workflows are kept that have ended, with their journals
    #[arg(long, value_name = "WORKFLOWS", default_value = "100000")]
    pub retain: u64,
    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Names one workflow.
#[derive(Debug, Args)]
pub struct OneFlowArgs {
    /// The workflow
    pub id: ExecutionId,
    /// Where.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Flags of `mvm-ci flow deploy`.
#[derive(Debug, Args)]
pub struct DeployArgs {
    /// A WebAssembly module that was built with the crate `flawless`
    #[arg(value_name = "FILE")]
    pub module: PathBuf,
    /// Where.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Flags of `mvm-ci flow start`.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Waits for the response, and prints it instead of the id
    #[arg(long)]
    pub wait: bool,
    /// What.
    #[command(flatten)]
    pub what: StartWhat,
}

/// Which workflow is to be started.
#[derive(Debug, Args)]
pub struct StartWhat {
    /// Its module; without a version, the one that was deployed last
    #[arg(value_name = "MODULE[:VERSION]")]
    pub module: ModuleRef,
    /// Its name
    pub workflow: String,
    /// Its input, or @FILE, or - for standard input
    #[arg(long, value_name = "JSON", default_value = "null")]
    pub input: String,
    /// Where.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// A module, and maybe which version of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ModuleRef {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
}

impl FromStr for ModuleRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, version) = match text.split_once(':') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        if !is_name(name) || !version.is_none_or(is_name) {
            return Err("write it as MODULE or MODULE:VERSION, for instance shop:1.2.0".into());
        }
        Ok(Self {
            name: name.to_owned(),
            version: version.map(str::to_owned),
        })
    }
}

/// Flags of `mvm-ci flow send`.
#[derive(Debug, Args)]
pub struct SendArgs {
    /// The workflow
    pub id: ExecutionId,
    /// The message's type
    #[arg(value_name = "TYPE")]
    pub kind: String,
    /// Its data, or @FILE, or - for standard input
    #[arg(value_name = "JSON", default_value = "null")]
    pub data: String,
    /// Where.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Flags of `mvm-ci flow list`.
#[derive(Debug, Args)]
pub struct ListFlowArgs {
    /// Only those in this state
    #[arg(long, value_parser = value::flow_state)]
    pub state: Option<State>,
    /// Only those of this module
    #[arg(long, value_name = "NAME")]
    pub module: Option<String>,
    /// At most so many
    #[arg(long, value_name = "WORKFLOWS", default_value_t = 50)]
    pub limit: usize,
    /// All of them
    #[arg(long, conflicts_with = "limit")]
    pub all: bool,
    /// Where.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Flags of `mvm-ci flow cancel`.
#[derive(Debug, Args)]
pub struct CancelFlowArgs {
    /// The workflow
    pub id: ExecutionId,
    /// Why, for people
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Where.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Flags of `mvm-ci flow retry`.
#[derive(Debug, Args)]
pub struct RetryFlowArgs {
    /// The workflow
    pub id: ExecutionId,
    /// Forgets the record at this frame and all after it [default: the last request that had no good answer, else the panic]
    #[arg(long, value_name = "FRAME")]
    pub from: Option<u64>,
    /// Where.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Flags of `mvm-ci flow replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The workflow
    pub id: ExecutionId,
    /// Runs this module instead of the one that the workflow ran
    #[arg(long, value_name = "PATH")]
    pub patch_module: Option<PathBuf>,
    /// Secrets that the workflow asked for, as lines of NAME=VALUE; without them their names stand for them
    #[arg(long, value_name = "FILE")]
    pub secrets: Option<PathBuf>,
    /// Where.
    #[command(flatten)]
    pub engine: EngineArgs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_named_with_or_without_a_version() {
        let found = |text: &str| {
            text.parse()
                .map(|found: ModuleRef| (found.name, found.version))
        };
        assert_eq!(found("shop"), Ok(("shop".into(), None)));
        let versioned = ("shop".into(), Some("1.0.0-a+b".into()));
        assert_eq!(found("shop:1.0.0-a+b"), Ok(versioned));
        for text in ["", ":", "shop:", ":1", "a/b", "a:b:c", ".."] {
            assert!(found(text).is_err(), "{text:?}");
        }
    }
}
