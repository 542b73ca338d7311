//! Who may do what over HTTP: tokens, the scopes they carry, and the file in which their hashes are kept.
//!
//! Which route needs which scope is in [`crate::http::routes`]. How nodes know one another is not here:
//! they share secrets, see [`crate::config::Config::secret_store`].

mod file;
mod scope;
mod token;
mod tokens;

pub use self::{
    file::{NewGrant, TokenFileError, append},
    scope::{Scope, UnknownScope},
    token::{Token, TokenHash},
    tokens::{Denied, Identity, Tokens},
};
