//! Why there is no configuration.

use std::path::PathBuf;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not readable.
    #[error("could not read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not understood.
    #[error("{path}, line {line}, key {key:?}: {problem}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The key on that line; empty if there is none.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The file has a key that means nothing.
    #[error("{path}, line {line}: unknown key {key:?}; {}", hint(suggestion.as_deref(), known))]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The key.
        key: String,
        /// A known key that looks like it.
        suggestion: Option<String>,
        /// The keys that are known in this place.
        known: Vec<&'static str>,
    },
    /// A variable is not understood.
    #[error("environment variable {variable}: {problem}")]
    Environment {
        /// Which variable.
        variable: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Each setting is understood, and they do not fit together.
    #[error("setting {key:?}: {problem}")]
    Inconsistent {
        /// The setting to change.
        key: &'static str,
        /// What does not fit.
        problem: String,
    },
}

fn hint(suggestion: Option<&str>, known: &[&str]) -> String {
    match suggestion {
        Some(suggestion) => format!("did you mean {suggestion:?}?"),
        None => format!("known keys are {}", known.join(", ")),
    }
}
