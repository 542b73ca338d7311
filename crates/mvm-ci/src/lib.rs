//! The command line of mvm-ci, and the scenarios that come with it: the one place where lab and node meet.

pub mod cli;
pub mod commands;
pub mod exchange;
pub mod exit_codes;
pub mod scenarios;
