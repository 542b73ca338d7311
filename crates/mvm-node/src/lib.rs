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
//! - [`auth`]: who may do what.
//! - [`tls`]: certificates of the HTTP interface.
//! - [`metrics`]: what it counts, for Prometheus.
//! - [`join`]: whether a node without data founds a cluster, joins one, or waits.
//! - [`config`]: settings from file, environment and flags.
//! - [`restore`]: what is checked before a cluster is started from a backup.
//! - [`flow`]: runs workflows, by `mvm-flow`.
//! - `worker`: runs jobs of this node's host, by `mvm-exec`.
//! - [`serve`]: runs a node until told to stop.
//!
//! Not here: virtual machines, the command line.

pub mod auth;
pub mod config;
pub mod consensus;
mod disk;
pub mod flow;
pub mod http;
mod id;
pub mod join;
pub mod metrics;
mod reload;
mod request;
pub mod restore;
mod serve;
mod sqlite;
pub mod store;
pub mod tls;
mod worker;

pub use self::serve::{ServeError, serve, serve_restored};
