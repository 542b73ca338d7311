//! The queue in SQL: the same decisions as [`crate::Queue`], carried out by SQLite.
//!
//! # Procedures
//!
//! hiqlite replicates the text of statements, and every replica runs them while it applies the log. Each command is
//! therefore *one* short statement: an `INSERT` into a view, whose `INSTEAD OF` trigger is the procedure. The
//! procedures are part of the schema, which came through the log as well, so all replicas have the same ones.
//! A proposal of many commands stays small, and each command is prepared once.
//!
//! ```text
//!   INSERT INTO call_finish (request, digest, at, job, token, ...) VALUES (?, ?, ?, ?, ?, ...)
//!        │
//!        ▼  trigger
//!   1. the request is known        ─▶ stop: it was applied before
//!   2. decide, from job and token  ─▶ a row in `requests` with the verdict
//!   3. the verdict is a refusal    ─▶ stop: nothing else is written
//!   4. change the job              ─▶ triggers on `jobs` keep counts, lanes and keys
//! ```
//!
//! A procedure for several things (claims, due jobs) is called once per thing, by an `INSERT ... SELECT` over a list.
//!
//! # Determinism
//!
//! No statement reads a clock, draws a number, or depends on the order in which SQLite happens to find rows: wherever
//! one of several rows is taken, the order is total.

mod call;
mod outcome;
mod procedures;
mod read;
mod schema;
mod upgrade;

use std::borrow::Cow;

pub use self::{
    call::{encoded_bytes, statements},
    outcome::{interpret, outcomes, returning},
    read::{answer, select},
    schema::VERSION,
    upgrade::{VERSION_QUERY, upgrade},
};

/// A value for a parameter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// A number.
    Integer(i64),
    /// A text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl Value {
    /// JSON text; null for nothing. Our own types have no maps with odd keys, so they always have a JSON form.
    fn json(value: impl serde::Serialize) -> Self {
        match serde_json::to_string(&value) {
            Ok(text) if text != "null" => Self::Text(text),
            Ok(_) | Err(_) => Self::Null,
        }
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A statement with its parameters, `?1` first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Statement {
    /// Its text.
    pub sql: Cow<'static, str>,
    /// Its parameters.
    pub parameters: Vec<Value>,
}

impl Statement {
    pub(crate) fn new(sql: impl Into<Cow<'static, str>>, parameters: Vec<Value>) -> Self {
        Self {
            sql: sql.into(),
            parameters,
        }
    }
}

/// The database holds what no command of this crate writes.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Corrupt {
    /// A row is not what was asked for.
    #[error("a row of the database is not understood: {why}: {row}")]
    Row {
        /// What is wrong.
        why: String,
        /// The row, cut to a few hundred characters.
        row: String,
    },
    /// A request has a verdict that its command cannot have.
    #[error("request {request:?} has the verdict {verdict:?}, which its command cannot have")]
    Verdict {
        /// Which request.
        request: String,
        /// The verdict.
        verdict: String,
    },
}

impl Corrupt {
    fn row(error: &serde_json::Error, row: &str) -> Self {
        Self::Row {
            why: error.to_string(),
            row: row.chars().take(300).collect(),
        }
    }
}
