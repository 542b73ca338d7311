//! The mvm-ci node.
pub mod command;
mod id;
pub mod job;
pub mod store;
