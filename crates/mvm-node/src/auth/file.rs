//! The file of tokens: a TOML list of names, scopes and hashes, which people edit and `mvm-ci token new` adds to.

use std::{
    fs::{File, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use mvm_queue::UnixMillis;
use serde::{Deserialize, Serialize};

use super::{Scope, TokenHash};

const NAME_BYTES_MAX: usize = 64;

/// Readable by its owner only.
const MODE: u32 = 0o600;

/// Why a file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It is not readable.
    #[error("could not read the tokens in {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not understood.
    #[error("could not read the tokens in {path}: {problem}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        problem: String,
    },
    /// It cannot be replaced.
    #[error("could not write the tokens to {path}: {source}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(default)]
    token: Vec<Entry>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    scopes: Vec<Scope>,
    hash: String,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

/// A token that is to be added.
#[derive(Clone, Debug)]
pub struct NewGrant {
    /// Who or what it is for; it appears in logs.
    pub name: String,
    /// What it allows; at least one.
    pub scopes: Vec<Scope>,
    /// Of the token.
    pub hash: TokenHash,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends, if ever.
    pub expires_at: Option<Timestamp>,
}

impl NewGrant {
    /// The entry for the file.
    pub fn entry(&self) -> String {
        let content = Content {
            token: vec![Entry {
                name: self.name.clone(),
                scopes: self.scopes.clone(),
                hash: self.hash.to_string(),
                created_at: self.created_at.to_string(),
                expires_at: self.expires_at.map(|time| time.to_string()),
            }],
        };
        toml::to_string(&content).unwrap_or_else(|error| unreachable!("strings are TOML: {error}"))
    }
}

/// What an entry of the file allows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Grant {
    pub(super) name: String,
    pub(super) scopes: Vec<Scope>,
    pub(super) hash: TokenHash,
    pub(super) expires_at: Option<UnixMillis>,
}

/// Reads a file of tokens.
pub(super) fn read(path: &Path) -> Result<Vec<Grant>, TokenFileError> {
    let text = std::fs::read_to_string(path).map_err(|source| TokenFileError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&text).map_err(|problem| TokenFileError::Malformed {
        path: path.to_owned(),
        problem,
    })
}

/// Adds a token to a file, which is made if there is none. The file is replaced as a whole: nobody reads half of it.
pub fn append(path: &Path, grant: &NewGrant) -> Result<(), TokenFileError> {
    let before = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => {
            return Err(TokenFileError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    let gap = if before.is_empty() { "" } else { "\n" };
    let after = format!("{before}{gap}{}", grant.entry());
    parse(&after).map_err(|problem| TokenFileError::Malformed {
        path: path.to_owned(),
        problem,
    })?;
    replace(path, &after).map_err(|source| TokenFileError::Write {
        path: path.to_owned(),
        source,
    })
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(MODE)
        .open(&temporary)?;
    // A file that was there already keeps its mode.
    file.set_permissions(Permissions::from_mode(MODE))?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // Says the first error, which is the one that counts.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn parse(text: &str) -> Result<Vec<Grant>, String> {
    let content: Content = toml::from_str(text).map_err(|error| {
        let before = error.span().map_or(0, |span| span.start);
        let lines = text.as_bytes().iter().take(before);
        let line = 1 + lines.filter(|byte| **byte == b'\n').count();
        format!("line {line}: {}", error.message().replace('\n', ", "))
    })?;
    let mut grants: Vec<Grant> = Vec::new();
    for entry in content.token {
        let name = entry.name.clone();
        let grant = grant(entry).map_err(|problem| format!("token {name:?}: {problem}"))?;
        if grants.iter().any(|other| other.name == grant.name) {
            return Err(format!("token {name:?}: there are two of that name"));
        }
        grants.push(grant);
    }
    Ok(grants)
}

fn grant(entry: Entry) -> Result<Grant, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    let name = entry.name;
    if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(plain) {
        return Err(format!(
            "names are 1 to {NAME_BYTES_MAX} letters, digits and . _ - @"
        ));
    }
    if entry.scopes.is_empty() {
        return Err("it has no scopes".into());
    }
    let time = |key: &str, text: &str| {
        let time = text.parse::<Timestamp>();
        time.map_err(|_| format!("{key} {text:?} is not a time as 2026-01-31T12:00:00Z is"))
    };
    time("created_at", &entry.created_at)?;
    let expires_at = entry.expires_at.map(|text| time("expires_at", &text));
    Ok(Grant {
        name,
        scopes: entry.scopes,
        hash: TokenHash::parse(&entry.hash).ok_or("its hash is not 64 hexadecimal digits")?,
        expires_at: expires_at
            .transpose()?
            .map(|time| UnixMillis(time.as_millisecond())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Token;

    fn new_grant(name: &str) -> NewGrant {
        NewGrant {
            name: name.into(),
            scopes: vec![Scope::Read, Scope::Worker],
            hash: Token::generate().unwrap().hash(),
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: Some(Timestamp::from_second(90).unwrap()),
        }
    }

    #[test]
    fn what_is_added_is_read_and_the_rest_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.toml");
        let (one, two) = (new_grant("one"), new_grant("two"));
        append(&path, &one).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("# mine\n{text}")).unwrap();
        append(&path, &two).unwrap();
        let grants = read(&path).unwrap();
        let found: Vec<_> = grants
            .iter()
            .map(|grant| (&*grant.name, grant.hash))
            .collect();
        assert_eq!(found, [("one", one.hash), ("two", two.hash)]);
        assert_eq!(grants[0].expires_at, Some(UnixMillis(90_000)));
        assert!(
            std::fs::read_to_string(&path)
                .unwrap()
                .starts_with("# mine")
        );
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = append(&path, &new_grant("two")).unwrap_err().to_string();
        assert!(
            error.ends_with("token \"two\": there are two of that name"),
            "{error}"
        );
        assert_eq!(directory.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn mistakes_are_named() {
        let entry = new_grant("a").entry();
        let hash = new_grant("b").hash.to_string();
        for (text, expected) in [
            (
                entry.replace("name = \"a\"", "name = \"a b\""),
                "names are 1 to 64",
            ),
            (entry.replace("\"read\", \"worker\"", ""), "no scopes"),
            (entry.replace("worker", "root"), "unknown variant `root`"),
            (
                entry.replace("hash = \"", "hash = \"x"),
                "not 64 hexadecimal digits",
            ),
            (
                entry.replace("1970-01-01T00:01:30Z", "soon"),
                "expires_at \"soon\"",
            ),
            (format!("{entry}\ntoken = \"{hash}\""), "line 8"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(expected), "{error} in {text}");
        }
        assert_eq!(parse(""), Ok(vec![]));
    }
}
