//! TLS for HTTP: this node's certificate, and the authority by which it knows other nodes.
//!
//! How hiqlite encrypts Raft is its own affair, see `serve`.

mod client;
mod files;
mod server;

pub(crate) use self::client::ClientTls;
pub use self::{files::TlsError, server::ServerTls};
