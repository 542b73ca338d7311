//! The mvm-ci node: a job queue that is replicated by Raft, behind an HTTP interface.
//!
//! ```text
//!   config ──▶ serve ──▶ http ──▶ store ──▶ hiqlite
//!                          └── job, command: what is done, without I/O
//! ```
//!
//! - [`job`]: jobs and how they may change; pure.
//! - [`command`]: what is said to the store and what it answers.
//! - [`store`]: the replicated store and its promises under partition.
//! - [`http`]: the interface that clients and other nodes speak.
//! - [`config`]: settings from file, environment and flags.
//! - [`serve`]: runs a node until told to stop.
//!
//! Not here: running jobs, workflows, virtual machines, the command line.

pub mod command;
pub mod config;
pub mod http;
mod id;
pub mod job;
mod serve;
pub mod store;

pub use self::serve::{ServeError, serve};
