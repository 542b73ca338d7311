//! From flags and environment to a client of the cluster; and values that are read from files.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use mvm_client::{Client, Options, Token};
use serde_json::Value;

use crate::cli::NodeArgs;

/// The token, if no file is named.
const TOKEN_VARIABLE: &str = "MVM_CI_TOKEN";

/// Something that the command line names is not as it must be.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    /// A file.
    #[error("could not read {what} from {}: {error}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    /// Standard input.
    #[error("could not read {what} from standard input: {error}")]
    Stdin {
        what: &'static str,
        error: io::Error,
    },
    /// A payload, an input, a message.
    #[error("could not read {what} as JSON: {error}")]
    Json {
        what: &'static str,
        error: serde_json::Error,
    },
    /// A node.
    #[error("the cluster has no node {id}, but {known:?}")]
    Node { id: u64, known: Vec<u64> },
    /// A backup.
    #[error("node {node} has no backup; `mvm-ci cluster backup now` makes one")]
    NoBackup { node: u64 },
    /// A file.
    #[error("could not write {}: it exists", path.display())]
    InTheWay { path: PathBuf },
    /// A name from elsewhere.
    #[error("{name:?} is no name for a file here; give one with --output")]
    FileName { name: String },
    /// A time.
    #[error("the time is out of range")]
    Time,
}

/// The client that the flags ask for.
pub(super) fn client(arguments: &NodeArgs) -> anyhow::Result<Client> {
    let mut options = Options::new(arguments.servers.clone());
    let secret = secret(arguments.token_file.as_deref(), TOKEN_VARIABLE)?;
    options.token = secret.as_deref().map(Token::new).transpose()?;
    let ca = arguments.ca.as_deref();
    options.ca_pem = ca.map(|path| file("certificates", path)).transpose()?;
    options.deadline = arguments.timeout;
    Ok(Client::new(options)?)
}

/// A token's text: that of the file, else that of the variable, if either is given.
pub(super) fn secret(path: Option<&Path>, variable: &str) -> Result<Option<String>, InputError> {
    match path {
        Some(path) => {
            let bytes = file("the token", path)?;
            Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
        }
        None => Ok(std::env::var(variable)
            .ok()
            .filter(|secret| !secret.is_empty())),
    }
}

/// What is in a file.
pub(super) fn file(what: &'static str, path: &Path) -> Result<Vec<u8>, InputError> {
    fs::read(path).map_err(|error| InputError::File {
        what,
        path: path.to_owned(),
        error,
    })
}

/// JSON that is given, or in a file, or on standard input.
pub(super) fn json(what: &'static str, given: &str) -> Result<Value, InputError> {
    let text = value(what, given)?;
    serde_json::from_str(&text).map_err(|error| InputError::Json { what, error })
}

/// A value that is given, or in a file (`@FILE`), or on standard input (`-`).
pub(super) fn value(what: &'static str, given: &str) -> Result<String, InputError> {
    if given == "-" {
        let mut text = String::new();
        let read = io::stdin().read_to_string(&mut text);
        return read
            .map(|_| text)
            .map_err(|error| InputError::Stdin { what, error });
    }
    match given.strip_prefix('@') {
        Some(path) => fs::read_to_string(path).map_err(|error| InputError::File {
            what,
            path: path.into(),
            error,
        }),
        None => Ok(given.to_owned()),
    }
}
