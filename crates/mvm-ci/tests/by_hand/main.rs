//! The program as people use it on machines: at a terminal, at a prompt, with several tests at once.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

#[path = "../support/pty.rs"]
mod pty;
mod suite;
mod terminal;
