//! Secrets that workflows may ask for. They are this engine's own: none is written into a journal, or leaves its machine.

use std::{collections::BTreeMap, fmt, path::Path};

/// Names and values.
#[derive(Clone, Default)]
pub struct Secrets(BTreeMap<String, String>);

/// A file of secrets cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum BadSecrets {
    #[error("the file of secrets {path} cannot be read: {source}")]
    Unread {
        path: String,
        source: std::io::Error,
    },
    #[error("line {line} of the file of secrets {path} is not NAME=VALUE")]
    Line { path: String, line: usize },
}

impl Secrets {
    /// Reads lines of `NAME=VALUE`; empty ones and those that begin with `#` are left out.
    pub fn read(path: &Path) -> Result<Self, BadSecrets> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| BadSecrets::Unread {
            path: shown.clone(),
            source,
        })?;
        let mut secrets = BTreeMap::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let pair = text
                .split_once('=')
                .filter(|(name, _)| !name.trim().is_empty());
            let (name, value) = pair.ok_or_else(|| BadSecrets::Line {
                path: shown.clone(),
                line,
            })?;
            secrets.insert(name.trim().to_owned(), value.trim().to_owned());
        }
        Ok(Self(secrets))
    }

    /// The secret of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl FromIterator<(String, String)> for Secrets {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

/// Names alone.
impl fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}
