//! The control socket: what a running lab tells and gives to other processes of its user, such as a second terminal.
//!
//! ```text
//!  client                                          lab
//!    │ {"verb": "terminal", "machine": "node1", ...} ▶ │   one line of JSON: the request
//!    │ ◀───────────────────────────────── {"ok": null} │   one line of JSON: the answer, or {"error": {...}}
//!    │ ◀══════════════ frames, both ways, ═══════════▶ │   for terminal, command and console
//!    │ ◀──────────────────────────────────────── exit  │   the lab's last frame; then it closes
//! ```
//!
//! A connection has one request. What can be asked and answered, and the frames, are in [`wire`]. A client that
//! closes its connection leaves: a terminal hangs up, a command is killed.
//!
//! The socket lies in a folder that only the user may enter, in `$XDG_RUNTIME_DIR` or among the temporary files, since
//! the path of a socket has at most 107 bytes; [`POINTER`] in the run folder tells where. Both are gone when the lab is,
//! whatever ended it.

pub mod client;
mod server;
mod session;
pub mod wire;

pub use self::server::{Control, ControlError};

/// The file in the run folder of a running lab that tells where its socket is: a [`wire::Pointer`] as JSON.
pub const POINTER: &str = "control.json";
