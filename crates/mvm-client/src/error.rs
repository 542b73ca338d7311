//! What goes wrong, and what is known then about the change that was asked for.

use std::{fmt, time::Duration};

use serde::Deserialize;

use crate::options::ServerUrl;

/// Texts of a server are cut after so many characters.
const TEXT_CHARS_MAX: usize = 2_000;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No server took the request in time. Nothing was changed.
    #[error("no server took the request within {:.1} s: {}", elapsed.as_secs_f64(), told(causes))]
    Unreachable {
        /// How long it was tried.
        elapsed: Duration,
        /// What each server did last.
        causes: Vec<ServerCause>,
    },
    /// The change was sent, and nobody told what became of it: it happened once, or not at all.
    #[error(
        "the outcome is not known after {:.1} s; repeating with the idempotency key {key} cannot apply it twice: {}",
        elapsed.as_secs_f64(), told(causes)
    )]
    OutcomeUnknown {
        /// Under which it may be repeated.
        key: String,
        /// How long it was tried.
        elapsed: Duration,
        /// What each server did last.
        causes: Vec<ServerCause>,
    },
    /// A server understood and said no.
    #[error("{server} refused: {problem}")]
    Refused {
        /// Which.
        server: ServerUrl,
        /// Why.
        problem: Box<Problem>,
    },
    /// What answered does not speak the interface.
    #[error("{server} does not answer as a node does: {detail}")]
    Violation {
        /// Which.
        server: ServerUrl,
        /// What was wrong.
        detail: String,
    },
}

/// What a server did last.
#[derive(Debug)]
pub struct ServerCause {
    /// Which.
    pub server: ServerUrl,
    /// What it did.
    pub cause: Cause,
}

impl fmt::Display for ServerCause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.server, self.cause)
    }
}

/// Why a server was left for another one.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// There was no connection, so nothing was sent.
    #[error("could not be connected to: {why}")]
    Connect {
        /// What the system says.
        why: String,
    },
    /// The connection ended before the answer did.
    #[error("was lost: {why}")]
    Lost {
        /// What the system says.
        why: String,
    },
    /// It was silent for too long.
    #[error("did not answer within {:.1} s", after.as_secs_f64())]
    Slow {
        /// How long it was given.
        after: Duration,
    },
    /// 503, or 429: it cannot serve this now and changed nothing.
    #[error("cannot serve this now: {0}")]
    Unavailable(Box<Problem>),
    /// 502 or 504: the request may have gone further.
    #[error("does not know the outcome: {0}")]
    Unknown(Box<Problem>),
    /// The stream ended before its last event.
    #[error("ended the stream early")]
    StreamEnded,
    /// The call's time was over before it was asked, or while it wished not to be asked.
    #[error("was not asked")]
    NotAsked,
}

impl Cause {
    /// Whether a change may have happened all the same.
    pub(crate) const fn may_have_applied(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::Slow { .. } | Self::Unknown(_) => true,
            Self::Connect { .. } | Self::Unavailable(_) | Self::StreamEnded | Self::NotAsked => {
                false
            }
        }
    }
}

/// What a server says of a request it did not fulfil (RFC 9457). Its texts are cut, and have no control characters.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct Problem {
    /// The HTTP status.
    #[serde(skip)]
    pub status: u16,
    /// Names the sort of problem for programs.
    pub r#type: String,
    /// The sort of problem for people.
    pub title: String,
    /// This very problem.
    pub detail: String,
    /// What to do.
    pub hint: Option<String>,
    /// Under which a change may be repeated.
    pub request_id: Option<String>,
}

impl Problem {
    /// Reads an answer's body. One that is no problem document becomes the detail.
    pub(crate) fn read(status: u16, body: &[u8]) -> Self {
        let mut problem = serde_json::from_slice(body).unwrap_or_else(|_| Self {
            detail: String::from_utf8_lossy(body).into_owned(),
            ..Self::default()
        });
        problem.status = status;
        let texts = [
            Some(&mut problem.r#type),
            Some(&mut problem.title),
            Some(&mut problem.detail),
            problem.hint.as_mut(),
            problem.request_id.as_mut(),
        ];
        for text in texts.into_iter().flatten() {
            *text = presentable(text);
        }
        problem
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = match self.title.as_str() {
            "" => "no reason given",
            title => title,
        };
        write!(formatter, "{title} ({})", self.status)?;
        if !self.detail.is_empty() && self.detail != self.title {
            write!(formatter, ": {}", self.detail)?;
        }
        Ok(())
    }
}

/// A server's text for a terminal.
fn presentable(text: &str) -> String {
    let shown = text.trim().chars().take(TEXT_CHARS_MAX);
    shown
        .map(|character| match character.is_control() {
            true => ' ',
            false => character,
        })
        .collect()
}

fn told(causes: &[ServerCause]) -> String {
    let told: Vec<_> = causes.iter().map(ToString::to_string).collect();
    told.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_read_whatever_they_are() {
        let check = |body: &str, expected: &str| {
            assert_eq!(Problem::read(409, body.as_bytes()).to_string(), expected);
        };
        check(
            r#"{"title": "no", "detail": "not now", "status": 1, "new": {}}"#,
            "no (409): not now",
        );
        check(
            "<h1>\u{1b}[2Jgone</h1>\n",
            "no reason given (409): <h1> [2Jgone</h1>",
        );
        check("", "no reason given (409)");
        let long = Problem::read(400, "x".repeat(10_000).as_bytes());
        assert_eq!(long.detail.len(), TEXT_CHARS_MAX);
    }
}
