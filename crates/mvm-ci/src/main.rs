//! The `mvm-ci` program.

use std::process::ExitCode;

use clap::Parser;
use mvm_ci::{cli::Cli, commands};

fn main() -> ExitCode {
    commands::run(Cli::parse())
}
