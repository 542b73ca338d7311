//! Text that must not be printed.

use std::fmt;

use serde::{Deserialize, Deserializer, de::Error};

/// A secret. Its `Debug` shows that there is one, not which; there is no `Display`.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, to be handed on and not to be kept or logged.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // serde's own message would show what was found instead of text.
        match String::deserialize(deserializer) {
            Ok(text) => Ok(Self(text)),
            Err(_) => Err(D::Error::custom("a secret is text in quotes")),
        }
    }
}
