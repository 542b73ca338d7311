//! The interface without a socket, judged by its own document: what a run is answered, events, and bad input.
//!
//! `tests/http.rs` has what needs a socket, `tests/api_page.rs` the examples of `docs/api.md`.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod abuse;
mod document;
mod draw;
mod events;
mod fuzz;
mod openapi;
#[path = "../support/paths.rs"]
mod paths;
mod run;
mod schema;
