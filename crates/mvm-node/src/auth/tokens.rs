//! The tokens that a node knows.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use mvm_queue::UnixMillis;

use super::{
    Scope, Token, TokenFileError,
    file::{self, Grant},
};

/// Who sent a request, and what that one may do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The token's name; the token itself is never told.
    pub name: String,
    scopes: Vec<Scope>,
}

impl Identity {
    /// Whether this one may do what needs a scope.
    pub fn may(&self, needed: Scope) -> bool {
        self.scopes.iter().any(|scope| scope.includes(needed))
    }
}

/// Why nobody is behind a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Denied {
    /// Text of another form.
    #[error("this is no token: it is cut, mistyped or something else")]
    Malformed,
    /// No such token, or not any more.
    #[error("the token is not known")]
    Unknown,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
}

/// The tokens of a file, as they were when it was last read.
#[derive(Debug)]
pub struct Tokens {
    path: PathBuf,
    grants: RwLock<Arc<[Grant]>>,
}

impl Tokens {
    /// Reads a file of tokens, which must exist.
    pub fn open(path: &Path) -> Result<Self, TokenFileError> {
        Ok(Self {
            path: path.to_owned(),
            grants: RwLock::new(file::read(path)?.into()),
        })
    }

    /// Reads the file again. With an error the tokens stay as they were.
    pub fn reload(&self) -> Result<usize, TokenFileError> {
        let grants = file::read(&self.path)?;
        let count = grants.len();
        *self.grants.write().unwrap_or_else(PoisonError::into_inner) = grants.into();
        Ok(count)
    }

    /// Tells whose token this is.
    pub fn identify(&self, presented: &str, now: UnixMillis) -> Result<Identity, Denied> {
        let hash = Token::parse(presented).ok_or(Denied::Malformed)?.hash();
        let grants = Arc::clone(&self.grants.read().unwrap_or_else(PoisonError::into_inner));
        // All are compared, so that the time does not tell which one it was.
        let found = grants.iter().fold(None, |found, grant| {
            if grant.hash == hash {
                Some(grant)
            } else {
                found
            }
        });
        let grant = found.ok_or(Denied::Unknown)?;
        if grant.expires_at.is_some_and(|end| end <= now) {
            return Err(Denied::Expired);
        }
        Ok(Identity {
            name: grant.name.clone(),
            scopes: grant.scopes.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::auth::{NewGrant, append};

    #[test]
    fn a_token_is_known_until_it_expires_or_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.toml");
        let token = Token::generate().unwrap();
        let grant = NewGrant {
            name: "ann".into(),
            scopes: vec![Scope::Submit],
            hash: token.hash(),
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: Some(Timestamp::from_second(1).unwrap()),
        };
        append(&path, &grant).unwrap();
        let tokens = Tokens::open(&path).unwrap();
        let ask = |text: &str, at| tokens.identify(text, UnixMillis(at));
        let ann = ask(token.expose(), 999).unwrap();
        assert_eq!(ann.name, "ann");
        assert!(ann.may(Scope::Read) && ann.may(Scope::Submit) && !ann.may(Scope::Worker));
        assert_eq!(ask(token.expose(), 1_000), Err(Denied::Expired));
        let other = Token::generate().unwrap();
        assert_eq!(ask(other.expose(), 0), Err(Denied::Unknown));
        assert_eq!(ask("secret", 0), Err(Denied::Malformed));

        std::fs::write(&path, "nonsense").unwrap();
        tokens.reload().unwrap_err();
        assert!(ask(token.expose(), 0).is_ok(), "the last good file counts");
        std::fs::write(&path, "").unwrap();
        assert_eq!(tokens.reload().unwrap(), 0);
        assert_eq!(ask(token.expose(), 0), Err(Denied::Unknown));
    }
}
