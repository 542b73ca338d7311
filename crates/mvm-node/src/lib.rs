//! The mvm-ci node: a job queue that is replicated by Raft, behind an HTTP interface.
//!
//! ```text
//!   config ──▶ serve ──▶ http ──▶ store ──▶ hiqlite
//!                          └────────┴── mvm-queue: what is done, without I/O
//! ```
//!
//! - [`consensus`]: what the store answers.
//! - [`store`]: the replicated store and its promises under partition.
//! - [`http`]: the interface that clients and other nodes speak.
//! - [`config`]: settings from file, environment and flags.
//! - `worker`: runs jobs of this node's host, by `mvm-exec`.
//! - [`serve`]: runs a node until told to stop.
//!
//! Not here: workflows, virtual machines, the command line.

pub mod config;
pub mod consensus;
pub mod http;
mod id;
mod serve;
mod sqlite;
pub mod store;
mod worker;

pub use self::serve::{ServeError, serve};
