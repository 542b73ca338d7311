//! Settings of who may come in by HTTP, and how. Silence is safe: nobody comes in from elsewhere unless something says so.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use serde::Deserialize;

use super::ConfigError;

/// Far above what people and workers send, and below what a node can answer.
const RATE_LIMIT_PER_S: u32 = 500;

/// Well below the 1024 open files that processes may commonly have.
const CONNECTIONS_MAX: u32 = 512;

/// Whether clients need tokens.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Everybody may do everything.
    None,
    /// Who has a token may do what it allows.
    Tokens,
}

/// A word that is no [`AuthMode`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("auth is none or tokens")]
pub struct AuthSyntax;

impl FromStr for AuthMode {
    type Err = AuthSyntax;

    fn from_str(word: &str) -> Result<Self, AuthSyntax> {
        match word {
            "none" => Ok(Self::None),
            "tokens" => Ok(Self::Tokens),
            _ => Err(AuthSyntax),
        }
    }
}

/// How clients prove who they are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Auth {
    /// Not at all: everybody may do everything.
    None,
    /// By a token of this file.
    Tokens(PathBuf),
}

/// The files of TLS, all PEM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsFiles {
    /// This node's certificate, with those that lead to an authority.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities by which this node knows others; a single node needs none.
    pub ca: Option<PathBuf>,
}

/// Who may come in by HTTP, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AccessConfig {
    /// How clients prove who they are.
    pub auth: Auth,
    /// Without it HTTP is plain.
    pub tls: Option<TlsFiles>,
    /// Requests per second that an address other than loopback may send; 0 for no limit.
    pub rate_limit_per_s: u32,
    /// HTTP connections at once.
    pub connections_max: usize,
}

/// What sources say of it.
pub(super) struct Given {
    pub(super) auth: Option<AuthMode>,
    pub(super) tokens: Option<PathBuf>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) tls_ca: Option<PathBuf>,
    pub(super) rate_limit_per_s: Option<u32>,
    pub(super) connections_max: Option<u32>,
}

/// Fills in the defaults and checks that everything fits.
pub(super) fn complete(
    listen: SocketAddr,
    single: bool,
    given: Given,
) -> Result<AccessConfig, ConfigError> {
    let connections_max = given.connections_max.unwrap_or(CONNECTIONS_MAX);
    if connections_max == 0 {
        return Err(bad("connections_max", "0 lets nobody in"));
    }
    Ok(AccessConfig {
        auth: auth(listen, given.auth, given.tokens)?,
        tls: tls(single, given.tls_cert, given.tls_key, given.tls_ca)?,
        rate_limit_per_s: given.rate_limit_per_s.unwrap_or(RATE_LIMIT_PER_S),
        connections_max: usize::try_from(connections_max).unwrap_or(usize::MAX),
    })
}

fn auth(
    listen: SocketAddr,
    mode: Option<AuthMode>,
    tokens: Option<PathBuf>,
) -> Result<Auth, ConfigError> {
    match (mode, tokens) {
        (Some(AuthMode::None), _) => Ok(Auth::None),
        (Some(AuthMode::Tokens) | None, Some(path)) => Ok(Auth::Tokens(path)),
        (Some(AuthMode::Tokens), None) => Err(bad(
            "tokens",
            "is missing, and auth = \"tokens\"; `mvm-ci token new NAME --scope SCOPE --file PATH` makes the file",
        )),
        (None, None) if listen.ip().to_canonical().is_loopback() => Ok(Auth::None),
        (None, None) => Err(bad(
            "auth",
            format!(
                "others reach {listen}, and nothing says who may come in: give tokens = \"PATH\", a file that \
                 `mvm-ci token new NAME --scope SCOPE --file PATH` makes, or say auth = \"none\" to let everybody \
                 do everything"
            ),
        )),
    }
}

fn tls(
    single: bool,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
) -> Result<Option<TlsFiles>, ConfigError> {
    match (cert, key, ca) {
        (None, None, None) => Ok(None),
        (Some(cert), Some(key), ca) if single || ca.is_some() => {
            Ok(Some(TlsFiles { cert, key, ca }))
        }
        (Some(_), Some(_), _) => Err(bad(
            "tls_ca",
            "is missing; nodes of a cluster speak TLS to one another, and know each other by it",
        )),
        (None, ..) => Err(bad(
            "tls_cert",
            "is missing beside the other settings of TLS",
        )),
        (_, None, _) => Err(bad(
            "tls_key",
            "is missing beside the other settings of TLS",
        )),
    }
}

fn bad(key: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Inconsistent {
        key,
        problem: problem.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> Given {
        Given {
            auth: None,
            tokens: None,
            tls_cert: None,
            tls_key: None,
            tls_ca: None,
            rate_limit_per_s: None,
            connections_max: None,
        }
    }

    fn outcome(listen: &str, single: bool, given: Given) -> Result<AccessConfig, String> {
        complete(listen.parse().unwrap(), single, given).map_err(|error| error.to_string())
    }

    #[test]
    fn nobody_comes_in_from_elsewhere_unless_something_says_so() {
        let tokens = || Auth::Tokens("t".into());
        let (none, by_tokens) = (Some(AuthMode::None), Some(AuthMode::Tokens));
        let missing = "setting \"tokens\": is missing";
        let open = "setting \"auth\": others reach";
        for (listen, auth, file, expected) in [
            ("127.0.0.1:1", None, false, Ok(Auth::None)),
            ("[::1]:1", None, false, Ok(Auth::None)),
            ("[::ffff:127.0.0.1]:1", None, false, Ok(Auth::None)),
            ("127.0.0.1:1", None, true, Ok(tokens())),
            ("127.0.0.1:1", by_tokens, false, Err(missing)),
            ("127.0.0.1:1", by_tokens, true, Ok(tokens())),
            ("0.0.0.0:1", None, false, Err(open)),
            ("[::]:1", None, false, Err(open)),
            ("10.0.0.1:1", None, false, Err(open)),
            ("10.0.0.1:1", None, true, Ok(tokens())),
            ("10.0.0.1:1", none, false, Ok(Auth::None)),
            ("10.0.0.1:1", none, true, Ok(Auth::None)),
            ("10.0.0.1:1", by_tokens, true, Ok(tokens())),
        ] {
            let given = Given {
                auth,
                tokens: file.then(|| "t".into()),
                ..given()
            };
            let found = outcome(listen, true, given).map(|access| access.auth);
            match (found, expected) {
                (Ok(found), Ok(expected)) => {
                    assert_eq!(found, expected, "{listen} {auth:?} {file}")
                }
                (Err(found), Err(expected)) => assert!(found.starts_with(expected), "{found}"),
                (found, expected) => {
                    panic!("{listen} {auth:?} {file}: {found:?}, not {expected:?}")
                }
            }
        }
    }

    #[test]
    fn tls_is_whole_or_absent() {
        let (alone, cluster) = (true, false);
        for (single, [cert, key, ca], expected) in [
            (cluster, [false, false, false], Ok(false)),
            (cluster, [true, true, true], Ok(true)),
            (alone, [true, true, false], Ok(true)),
            (cluster, [true, true, false], Err("tls_ca")),
            (alone, [true, false, false], Err("tls_key")),
            (alone, [false, true, false], Err("tls_cert")),
            (cluster, [false, false, true], Err("tls_cert")),
        ] {
            let given = Given {
                tls_cert: cert.then(|| "c".into()),
                tls_key: key.then(|| "k".into()),
                tls_ca: ca.then(|| "a".into()),
                ..given()
            };
            match (outcome("127.0.0.1:1", single, given), expected) {
                (Ok(access), Ok(expected)) => assert_eq!(access.tls.is_some(), expected),
                (Err(found), Err(key)) => {
                    assert!(found.contains(&format!("{key:?}: is missing")), "{found}")
                }
                (found, expected) => panic!("{found:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn limits_have_defaults() {
        let access = outcome("127.0.0.1:1", true, given()).unwrap();
        assert_eq!(
            (access.rate_limit_per_s, access.connections_max),
            (500, 512)
        );
        let nobody = Given {
            connections_max: Some(0),
            ..given()
        };
        let error = outcome("127.0.0.1:1", true, nobody).unwrap_err();
        assert_eq!(error, "setting \"connections_max\": 0 lets nobody in");
    }
}
