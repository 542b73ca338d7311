//! The interface with the store in memory: what is answered without a socket, judged by its own document, and over one.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod abuse;
mod access;
mod api_page;
mod document;
mod draw;
mod events;
#[path = "../support/exposition.rs"]
mod exposition;
mod fuzz;
mod guards;
mod https;
mod metrics;
mod openapi;
#[path = "../support/paths.rs"]
mod paths;
mod run;
mod schema;
mod socket;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/tls.rs"]
mod tls;
