//! What a client must be told: servers, trust, a token, and how long it may try.

use std::{fmt, str::FromStr, time::Duration};

use reqwest::{Url, header::HeaderValue};

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// The nodes to ask, at least one.
    pub servers: Vec<ServerUrl>,
    /// Certificates, in PEM, of authorities to trust besides the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// Who the client is.
    pub token: Option<Token>,
    /// How long a call may take altogether. A stream that is followed may take so long to find a server again.
    pub deadline: Duration,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long one server may take to answer. Nodes answer within 3 s, or not at all.
    pub answer_timeout: Duration,
    /// How long a stream may be silent before it is asked for again. Nodes send a comment every 15 s or oftener.
    pub idle_timeout: Duration,
}

impl Options {
    /// The usual patience with these servers.
    pub const fn new(servers: Vec<ServerUrl>) -> Self {
        Self {
            servers,
            ca_pem: None,
            token: None,
            deadline: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(2),
            answer_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(45),
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// Nobody to ask.
    #[error("there is no server to ask")]
    NoServer,
    /// Not a server's address.
    #[error("could not read the server's address {text:?}: {why}")]
    Server {
        /// What was given, without a password.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// Not a token. It is not shown.
    #[error("could not use the token: it is empty or has other characters than visible ASCII")]
    Token,
    /// Not a certificate.
    #[error("could not read the certificates of authorities: {why}")]
    Ca {
        /// What is wrong with them.
        why: String,
    },
    /// The kernel gave no random numbers, or the TLS library did not start.
    #[error("could not prepare to connect: {why}")]
    Setup {
        /// What went wrong.
        why: String,
    },
}

/// Where a node listens: `http://HOST:PORT` or `https://HOST:PORT`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerUrl(Url);

impl ServerUrl {
    /// The address of a path there; the segments are escaped.
    pub fn at(&self, segments: &[&str], query: &[(&'static str, String)]) -> Url {
        let mut url = self.0.clone();
        // An http URL always has a path to be written to.
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(segments);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Whether it is encrypted.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Another node's address, reached in the same way.
    ///
    /// # Errors
    ///
    /// If that is no host with a port.
    pub fn sibling(&self, host_and_port: &str) -> Result<Self, OptionsError> {
        format!("{}://{host_and_port}", self.0.scheme()).parse()
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl FromStr for ServerUrl {
    type Err = OptionsError;

    fn from_str(text: &str) -> Result<Self, OptionsError> {
        let wrong = |text: &str, why: &str| OptionsError::Server {
            text: text.to_owned(),
            why: why.to_owned(),
        };
        if !text.starts_with("http://") && !text.starts_with("https://") {
            return Err(wrong(text, "it must begin with http:// or https://"));
        }
        if text.contains('@') {
            // Neither is shown: one of them may be a secret.
            return Err(wrong("...@...", "a user or password has no place there"));
        }
        let url = Url::parse(text).map_err(|error| wrong(text, &error.to_string()))?;
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong(text, "nothing may follow host and port"));
        }
        Ok(Self(url))
    }
}

/// A secret that proves who the client is. Shown nowhere.
#[derive(Clone)]
pub struct Token(HeaderValue);

impl Token {
    /// Takes a token; blanks around it, as at a file's end, are not part of it.
    ///
    /// # Errors
    ///
    /// If it is not one word of visible ASCII.
    pub fn new(secret: &str) -> Result<Self, OptionsError> {
        let secret = secret.trim();
        if secret.is_empty() || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(OptionsError::Token);
        }
        let mut value =
            HeaderValue::from_str(&format!("Bearer {secret}")).map_err(|_| OptionsError::Token)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// What is sent as `Authorization`.
    pub const fn header(&self) -> &HeaderValue {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(...)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let found = match text.parse::<ServerUrl>() {
            Ok(url) => url
                .at(&["jobs", "a/b c"], &[("after", "1&2".into())])
                .to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn addresses_are_read() {
        check("http://n1", "http://n1/jobs/a%2Fb%20c?after=1%262");
        check(
            "https://[::1]:3020/",
            "https://[::1]:3020/jobs/a%2Fb%20c?after=1%262",
        );
        check(
            "n1:3020",
            "could not read the server's address \"n1:3020\": it must begin with http:// or https://",
        );
        check(
            "http://n1/api",
            "could not read the server's address \"http://n1/api\": nothing may follow host and port",
        );
        check(
            "http://me:secret@n1",
            "could not read the server's address \"...@...\": a user or password has no place there",
        );
        check(
            "http://",
            "could not read the server's address \"http://\": empty host",
        );
    }

    #[test]
    fn a_token_is_shown_nowhere() {
        let token = Token::new("mvm-secret-1\n").unwrap();
        assert_eq!(token.header().to_str().unwrap(), "Bearer mvm-secret-1");
        let options = Options {
            token: Some(token),
            ..Options::new(vec!["http://n1".parse().unwrap()])
        };
        let shown = format!("{options:?} {:?}", options.token.as_ref().unwrap().header());
        assert!(!shown.contains("secret"), "{shown}");
        for bad in ["", " \n", "two words", "caf\u{e9}"] {
            let error = Token::new(bad).unwrap_err();
            assert!(bad.trim().is_empty() || !error.to_string().contains(bad));
        }
    }
}
