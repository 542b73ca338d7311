//! What a token allows.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A set of routes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Look at jobs, logs and the cluster.
    Read,
    /// Submit, cancel and retry jobs; read.
    Submit,
    /// Claim jobs, with the secrets in them, and say what became of them; read.
    Worker,
    /// Everything.
    Admin,
}

impl Scope {
    /// All of them, the least first.
    pub const ALL: [Self; 4] = [Self::Read, Self::Submit, Self::Worker, Self::Admin];

    /// As files and the command line write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Worker => "worker",
            Self::Admin => "admin",
        }
    }

    /// Whether who has this scope may do what needs that one.
    pub fn includes(self, needed: Self) -> bool {
        self == needed || self == Self::Admin || needed == Self::Read
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A word that is no [`Scope`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("scopes are read, submit, worker and admin")]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(word: &str) -> Result<Self, UnknownScope> {
        let found = Self::ALL.into_iter().find(|scope| scope.as_str() == word);
        found.ok_or(UnknownScope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_include_one_another_as_the_table_says() {
        let table = [
            (Scope::Read, [true, false, false, false]),
            (Scope::Submit, [true, true, false, false]),
            (Scope::Worker, [true, false, true, false]),
            (Scope::Admin, [true, true, true, true]),
        ];
        for (scope, expected) in table {
            let found = Scope::ALL.map(|needed| scope.includes(needed));
            assert_eq!(found, expected, "{scope}");
            assert_eq!(scope.as_str().parse(), Ok(scope));
        }
        assert_eq!("root".parse::<Scope>(), Err(UnknownScope));
    }
}
