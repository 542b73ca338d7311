//! The tables, and what is put right when a file is opened.

use rusqlite::{Connection, params};

use crate::id::UnixMillis;

/// The version of the tables.
pub(super) const VERSION: i64 = 1;

const TABLES: &str = "
    CREATE TABLE modules (
        hash TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        version TEXT NOT NULL,
        bytes BLOB NOT NULL,
        deployed_at INTEGER NOT NULL,
        UNIQUE (name, version)
    ) STRICT;
    CREATE TABLE executions (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id INTEGER NOT NULL UNIQUE,
        module TEXT NOT NULL,
        version TEXT NOT NULL,
        hash TEXT NOT NULL,
        workflow TEXT NOT NULL,
        input TEXT NOT NULL,
        parent INTEGER,
        state TEXT NOT NULL,
        reason TEXT,
        cancel_reason TEXT,
        paused INTEGER NOT NULL DEFAULT 0,
        wake_at INTEGER,
        waits_for_messages INTEGER NOT NULL DEFAULT 0,
        epoch INTEGER NOT NULL DEFAULT 0,
        frames INTEGER NOT NULL DEFAULT 0,
        journal_bytes INTEGER NOT NULL DEFAULT 0,
        response INTEGER,
        messages_sent INTEGER NOT NULL DEFAULT 0,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        finished_at INTEGER
    ) STRICT;
    CREATE INDEX executions_ready ON executions (seq) WHERE state = 'ready';
    CREATE INDEX executions_running ON executions (seq) WHERE state = 'running';
    CREATE INDEX executions_waiting ON executions (wake_at) WHERE state = 'waiting' AND wake_at IS NOT NULL;
    CREATE INDEX executions_cancelled ON executions (id) WHERE cancel_reason IS NOT NULL AND finished_at IS NULL;
    CREATE INDEX executions_finished ON executions (finished_at, seq) WHERE finished_at IS NOT NULL;
    CREATE TABLE frames (
        execution INTEGER NOT NULL,
        number INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        PRIMARY KEY (execution, number)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE messages (
        execution INTEGER NOT NULL,
        number INTEGER NOT NULL,
        type TEXT NOT NULL,
        data TEXT NOT NULL,
        PRIMARY KEY (execution, number)
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 1;
";

/// Prepares a file, and returns the version that it has.
pub(super) fn open(database: &Connection) -> Result<i64, rusqlite::Error> {
    database.pragma_update(None, "journal_mode", "WAL")?;
    // A commit is on the disk when it returns.
    database.pragma_update(None, "synchronous", "FULL")?;
    database.set_prepared_statement_cache_capacity(64);
    let version: i64 = database.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > VERSION {
        return Ok(version);
    }
    if version == 0 {
        database.execute_batch(&format!("BEGIN; {TABLES} COMMIT;"))?;
    }
    // Their engine is gone.
    database.execute(
        "UPDATE executions SET state = 'ready' WHERE state = 'running' AND NOT paused",
        [],
    )?;
    database.execute(
        "UPDATE executions SET state = 'paused' WHERE state = 'running'",
        [],
    )?;
    end_cancelled(database, super::now())?;
    Ok(VERSION)
}

/// Ends executions that were cancelled and that no engine runs.
pub(super) fn end_cancelled(database: &Connection, at: UnixMillis) -> Result<(), rusqlite::Error> {
    database.execute(
        "UPDATE executions SET state = 'cancelled', reason = cancel_reason, wake_at = NULL, finished_at = ?1, updated_at = ?1
         WHERE cancel_reason IS NOT NULL AND finished_at IS NULL AND state <> 'running'",
        params![at.0],
    )?;
    Ok(())
}
