//! Rows of the tables, and the changes that are made of several statements.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::{
    id::{Epoch, ExecutionId, ModuleHash, UnixMillis},
    journal::{
        Append, Claim, JOURNAL_BYTES_MAX, Message, Module, Outcome, Refused, Shown, State, Wait,
    },
};

const COLUMNS: &str =
    "id, module, version, hash, workflow, input, parent, state, reason, wake_at, epoch, frames,
    journal_bytes, response, created_at, updated_at, finished_at,
    (SELECT count(*) FROM messages WHERE execution = executions.id)";

/// Executions of a page.
pub(super) fn list() -> String {
    format!(
        "SELECT {COLUMNS} FROM executions
         WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR module = ?2)
             AND (?3 IS NULL OR seq < (SELECT seq FROM executions WHERE id = ?3))
         ORDER BY seq DESC LIMIT ?4"
    )
}

/// Numbers of ours are far below where it matters.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn uint(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    Ok(u64::try_from(number).unwrap_or(0))
}

pub(super) fn module(row: &Row<'_>) -> rusqlite::Result<Module> {
    Ok(Module {
        name: row.get(0)?,
        version: row.get(1)?,
        hash: ModuleHash(row.get(2)?),
        bytes: uint(row, 3)?,
        deployed_at: UnixMillis(row.get(4)?),
    })
}

pub(super) fn message(row: &Row<'_>) -> rusqlite::Result<Message> {
    Ok(Message {
        number: uint(row, 0)?,
        kind: row.get(1)?,
        data: row.get(2)?,
    })
}

pub(super) fn execution(row: &Row<'_>) -> rusqlite::Result<Shown> {
    let word: String = row.get(7)?;
    let state = State::parse(&word).ok_or(rusqlite::Error::InvalidColumnType(
        7,
        "state".into(),
        rusqlite::types::Type::Text,
    ))?;
    let response: Option<i64> = row.get(13)?;
    Ok(Shown {
        id: ExecutionId::new(row.get(0)?),
        module: row.get(1)?,
        version: row.get(2)?,
        hash: ModuleHash(row.get(3)?),
        workflow: row.get(4)?,
        input: row.get(5)?,
        parent: row.get::<_, Option<i64>>(6)?.map(ExecutionId::new),
        state,
        reason: row.get(8)?,
        until: row.get::<_, Option<i64>>(9)?.map(UnixMillis),
        epoch: Epoch(uint(row, 10)?),
        frames: uint(row, 11)?,
        journal_bytes: uint(row, 12)?,
        response: response.and_then(|frame| u64::try_from(frame).ok()),
        created_at: UnixMillis(row.get(14)?),
        updated_at: UnixMillis(row.get(15)?),
        finished_at: row.get::<_, Option<i64>>(16)?.map(UnixMillis),
        messages: uint(row, 17)?,
    })
}

pub(super) fn shown(database: &Connection, id: ExecutionId) -> Result<Shown, Refused> {
    let found = database
        .prepare_cached(&format!("SELECT {COLUMNS} FROM executions WHERE id = ?1"))?
        .query_row([id.number()], execution)
        .optional()?;
    found.ok_or(Refused::UnknownExecution(id))
}

/// Takes what is ready, and says when something becomes ready by time.
pub(super) fn claim(
    database: &Connection,
    slots: usize,
    full: &[String],
    left: impl Fn(&str) -> Option<u32>,
    at: UnixMillis,
) -> Result<(Vec<Claim>, Option<UnixMillis>), Refused> {
    database
        .prepare_cached(
            "UPDATE executions SET state = 'ready', wake_at = NULL
             WHERE state = 'waiting' AND wake_at IS NOT NULL AND wake_at <= ?1",
        )?
        .execute([at.0])?;
    let ready: Vec<(i64, String)> = database
        .prepare_cached(
            "SELECT seq, module FROM executions WHERE state = 'ready'
                 AND module NOT IN (SELECT value FROM json_each(?2)) ORDER BY seq LIMIT ?1",
        )?
        .query_map(
            params![
                i64::try_from(slots).unwrap_or(i64::MAX),
                serde_json::json!(full).to_string()
            ],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?
        .collect::<Result<_, _>>()?;
    let mut taken: BTreeMap<String, u32> = BTreeMap::new();
    let ready = ready.into_iter().filter_map(|(seq, module)| {
        let left = left(&module);
        let taken = taken.entry(module).or_default();
        *taken += 1;
        left.is_none_or(|left| *taken <= left).then_some(seq)
    });
    let mut take = database.prepare_cached(
        "UPDATE executions SET state = 'running', epoch = epoch + 1, updated_at = ?2 WHERE seq = ?1
         RETURNING id, epoch, module, version, hash, workflow, input, frames",
    )?;
    let claims = ready.map(|seq| {
        take.query_row([seq, at.0], |row| {
            Ok(Claim {
                id: ExecutionId::new(row.get(0)?),
                epoch: Epoch(uint(row, 1)?),
                module: row.get(2)?,
                version: row.get(3)?,
                hash: ModuleHash(row.get(4)?),
                workflow: row.get(5)?,
                input: row.get(6)?,
                frames: uint(row, 7)?,
                run: 0,
            })
        })
    });
    let claims = claims.collect::<Result<Vec<_>, _>>()?;
    let next: Option<i64> = database
        .prepare_cached(
            "SELECT min(wake_at) FROM executions WHERE state = 'waiting' AND wake_at IS NOT NULL",
        )?
        .query_row([], |row| row.get(0))?;
    Ok((claims, next.map(UnixMillis)))
}

/// Says whether the owner of that epoch still is the owner.
pub(super) fn held(database: &Connection, id: ExecutionId, epoch: Epoch) -> Result<(), Refused> {
    let held = database
        .prepare_cached(
            "SELECT 1 FROM executions WHERE id = ?1 AND epoch = ?2 AND state = 'running'",
        )?
        .exists(params![id.number(), int(epoch.0)])?;
    if held {
        Ok(())
    } else {
        Err(Refused::Lost { id })
    }
}

/// Appends frames, if the owner of that epoch still is the owner and knows where the journal ends.
pub(super) fn append(
    database: &Connection,
    id: ExecutionId,
    epoch: Epoch,
    append: Append,
) -> Result<(), Refused> {
    held(database, id, epoch)?;
    if append.frames.is_empty() {
        return Ok(());
    }
    let added: usize = append.frames.iter().map(Vec::len).sum();
    let updated = database
        .prepare_cached(
            "UPDATE executions SET frames = frames + ?3, journal_bytes = journal_bytes + ?4, response = coalesce(response, ?5)
             WHERE id = ?1 AND frames = ?2 RETURNING journal_bytes",
        )?
        .query_row(
            params![
                id.number(),
                int(append.first),
                int(append.frames.len() as u64),
                int(added as u64),
                append.response.map(int)
            ],
            |row| uint(row, 0),
        )
        .optional()?;
    let bytes = updated.ok_or_else(|| Refused::Broken {
        why: format!("the journal of {id} does not end at frame {}", append.first),
    })?;
    if bytes > JOURNAL_BYTES_MAX {
        return Err(Refused::JournalFull { id, found: bytes });
    }
    let mut insert = database.prepare_cached(
        "INSERT INTO frames (execution, number, epoch, bytes) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for (number, frame) in (append.first..).zip(append.frames) {
        insert.execute(params![id.number(), int(number), int(epoch.0), frame])?;
    }
    let mut consume =
        database.prepare_cached("DELETE FROM messages WHERE execution = ?1 AND number = ?2")?;
    for number in append.consumed {
        consume.execute(params![id.number(), int(number)])?;
    }
    Ok(())
}

/// Gives an execution back.
pub(super) fn park(
    database: &Connection,
    id: ExecutionId,
    wait: &Wait,
    at: UnixMillis,
) -> Result<(), Refused> {
    let has_message = match wait.message_beyond {
        None => false,
        Some(beyond) => database
            .prepare_cached("SELECT 1 FROM messages WHERE execution = ?1 AND number > ?2")?
            .exists(params![id.number(), int(beyond)])?,
    };
    let waits = (wait.until.is_some() || wait.message_beyond.is_some()) && !has_message;
    database
        .prepare_cached(
            "UPDATE executions SET state = CASE WHEN paused THEN 'paused' WHEN ?2 THEN 'waiting' ELSE 'ready' END,
                 wake_at = ?3, waits_for_messages = ?4, reason = ?5, updated_at = ?6
             WHERE id = ?1",
        )?
        .execute(params![
            id.number(),
            waits,
            wait.until.filter(|_| waits).map(|until| until.0),
            wait.message_beyond.is_some(),
            wait.lacks,
            at.0
        ])?;
    Ok(())
}

/// Ends an execution.
pub(super) fn finish(
    database: &Connection,
    id: ExecutionId,
    outcome: &Outcome,
    at: UnixMillis,
) -> Result<(), Refused> {
    let (state, reason) = match outcome {
        Outcome::Completed => (State::Completed, None),
        Outcome::Failed { reason } => (State::Failed, Some(reason)),
        Outcome::Cancelled { reason } => (State::Cancelled, Some(reason)),
    };
    database
        .prepare_cached(
            "UPDATE executions SET state = ?2, reason = ?3, wake_at = NULL, finished_at = ?4, updated_at = ?4 WHERE id = ?1",
        )?
        .execute(params![id.number(), state.as_str(), reason, at.0])?;
    Ok(())
}

/// Removes some of the executions that ended before the last so many did, and says how many.
pub(super) fn prune(database: &Connection, keep: u64, steps: u32) -> Result<usize, Refused> {
    let ended: Vec<i64> = database
        .prepare_cached(
            "SELECT id FROM executions WHERE finished_at IS NOT NULL
             ORDER BY finished_at DESC, seq DESC LIMIT ?1 OFFSET ?2",
        )?
        .query_map(params![steps, int(keep)], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for id in &ended {
        for table in ["frames", "messages"] {
            let sql = format!("DELETE FROM {table} WHERE execution = ?1");
            database.prepare_cached(&sql)?.execute([id])?;
        }
        database
            .prepare_cached("DELETE FROM executions WHERE id = ?1")?
            .execute([id])?;
    }
    Ok(ended.len())
}
