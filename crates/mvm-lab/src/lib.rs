//! The lab: clusters of virtual machines, a network that can be bent, steps and a verdict.
//!
//! A [`scenario::Scenario`] names its machines and its steps; [`runner::run`] looks at the host, builds
//! the [`lab::Lab`], runs the steps and leaves a run folder. One machine by itself is `mvm-machine`'s,
//! the switch `mvm-fabric`'s; the node that this lab was first built to test is unknown here.

pub mod topology;

pub mod checkpoint;
pub mod control;
pub mod environment;
pub mod greeting;
pub mod lab;
pub mod network;
pub mod node;
pub mod service;
pub mod wait;

pub mod durations;
pub mod event;
pub mod report;
pub mod run_folder;
pub mod runner;
pub mod scenario;
pub mod scratch;
pub mod script;
pub mod seed;
pub mod storage;
pub mod verdict;
pub mod warm;

mod host_memory;
mod prepared;
mod shared;

pub use host_memory::MemoryError;
pub use mvm_agent::client::{AgentError, ExitStatus, Output};
