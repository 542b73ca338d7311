//! Reads the configuration file, and says where in it a mistake is.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use super::{ConfigError, Settings};

/// The keys of the file.
const KEYS: [&str; 29] = [
    "node_id",
    "data_dir",
    "listen",
    "cluster_listen",
    "members",
    "secret_raft",
    "secret_store",
    "heartbeat_ms",
    "election_min_ms",
    "election_max_ms",
    "lease_ms",
    "backup_keep_days",
    "slots",
    "labels",
    "flow_listen",
    "flow_slots",
    "flow_secrets",
    "flow_limits",
    "stop_grace_ms",
    "retain_jobs",
    "retain_days",
    "auth",
    "tokens",
    "tls_cert",
    "tls_key",
    "tls_ca",
    "cluster_tls",
    "rate_limit_per_s",
    "connections_max",
];

/// The keys of one member.
const MEMBER_KEYS: [&str; 5] = ["id", "host", "http_port", "raft_port", "store_port"];

/// A known key with so many edits is offered in place of an unknown one.
const EDITS_MAX: usize = 3;

/// Reads a file that must exist.
pub(super) fn read(path: &Path) -> Result<Settings, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let source = Source { path, text: &text };
    let table = DeTable::parse(&text).map_err(|error| source.problem(&error))?;
    source.check_keys(table.get_ref(), &KEYS)?;
    if let Some(DeValue::Array(members)) =
        table.get_ref().get("members").map(|value| value.get_ref())
    {
        for member in members.iter() {
            if let DeValue::Table(member) = member.get_ref() {
                source.check_keys(member, &MEMBER_KEYS)?;
            }
        }
    }
    toml::from_str(&text).map_err(|error| source.problem(&error))
}

struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn check_keys(&self, table: &DeTable<'_>, known: &[&'static str]) -> Result<(), ConfigError> {
        // The first in the file, not in the alphabet.
        let unknown = table
            .keys()
            .filter(|key| !known.contains(&key.get_ref().as_ref()));
        let Some(key) = unknown.min_by_key(|key| key.span().start) else {
            return Ok(());
        };
        let name = key.get_ref().to_string();
        let nearest = known.iter().min_by_key(|candidate| edits(&name, candidate));
        let suggestion =
            nearest.filter(|candidate| edits(&name, candidate) <= EDITS_MAX.min(name.len() / 2));
        Err(ConfigError::UnknownKey {
            path: self.path(),
            line: self.line(key.span()),
            key: name,
            suggestion: suggestion.map(ToString::to_string),
            known: known.to_vec(),
        })
    }

    fn problem(&self, error: &toml::de::Error) -> ConfigError {
        let line = error.span().map_or(1, |span| self.line(span));
        ConfigError::File {
            path: self.path(),
            line,
            key: self.key_on(line),
            problem: error.message().replace('\n', ", "),
        }
    }

    fn path(&self) -> PathBuf {
        self.path.to_owned()
    }

    fn line(&self, span: Range<usize>) -> usize {
        let before = self.text.as_bytes().iter().take(span.start);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    fn key_on(&self, line: usize) -> String {
        let line = self.text.lines().nth(line - 1).unwrap_or_default();
        let key = line.split_once('=').map_or(line, |(key, _)| key);
        key.trim_matches(|character: char| character.is_whitespace() || "[]\"'".contains(character))
            .to_owned()
    }
}

/// The number of characters to add, drop or replace to make one word of the other (Levenshtein).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (place, character) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = place + 1;
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(character != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
