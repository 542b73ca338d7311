//! The durable workflow engine.

pub mod abi;
pub mod api;
mod aside;
mod ask;
pub mod callers;
pub mod engine;
mod entropy;
pub mod execution;
pub mod guest;
pub mod http;
pub mod hub;
pub mod id;
pub mod journal;
pub mod limits;
pub mod metrics;
pub mod module;
pub mod record;
pub mod replay;
mod run;
pub mod secrets;
mod sqlite;
mod tail;

pub use self::{
    ask::{Denied, Started},
    engine::{Engine, Settings, SetupError},
    sqlite::{OpenError, SqliteJournal},
};
