//! The engine with real modules, real HTTP and a real file.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod aside;
mod bad_input;
mod border;
mod crash;
mod guests;
mod life;
mod limits;
mod misbehaviour;
mod replays;
mod support;
