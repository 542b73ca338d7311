//! The `mvm-ci` program.

use std::process::ExitCode;

use clap::Parser;
use mvm_ci::{cli::Cli, commands};

fn main() -> ExitCode {
    // A node's jobs are each kept by a process that is this program again.
    mvm_exec::supervise_if_asked();
    commands::run(Cli::parse())
}
