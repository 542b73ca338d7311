//! Queries in SQL. Each row is one text of JSON, named `row`, so that whoever runs the statement needs to know nothing
//! else about it.

use serde::{Deserialize, de::DeserializeOwned};

use super::{Corrupt, Statement, Value, call::number, schema::NEXT_RUN_AFTER};
use crate::{
    job::{Job, JobState},
    query::{
        Answer, Cursor, FRAMES_BYTES_MAX, FRAMES_PAGE_MAX, Filter, Order, PAGE_MAX, PAGE_SCAN_MAX,
        Query,
    },
};

/// A row of `jobs` as a [`Job`].
const JOB: &str = "json_object('id', id, 'spec', json(spec), 'state', state, 'waits_for', waits_for, \
    'run_after_ms', run_after_ms, 'created_at_ms', created_at_ms, 'updated_at_ms', updated_at_ms, 'finished_at_ms', finished_at_ms, \
    'submitted_on', submitted_on, 'schedule', schedule, 'claimed_by', claimed_by, 'claimed_on', claimed_on, \
    'token', token, 'failures', failures, 'losses', losses, 'renewals', renewals, \
    'cancel_requested', json(iif(cancel_requested, 'true', 'false')), 'paused', paused, 'dependencies_open', dependencies_open, \
    'error', error, 'result', json(result))";

const SCHEDULE: &str = "json_object('name', name, 'revision', revision, 'cron', cron, 'missed', missed, \
    'spec', json(spec), 'next_ms', next_ms)";

const MODULE: &str = "json_object('name', name, 'version', version, 'hash', hash, 'bytes', bytes, 'chunks', chunks, \
    'deployed_at_ms', deployed_at_ms)";

/// The statement that answers a query.
pub fn select(query: &Query) -> Statement {
    match query {
        Query::Job { job } => Statement::new(
            format!("SELECT {JOB} AS row FROM jobs WHERE id = ?1"),
            vec![Value::from(&*job.0)],
        ),
        Query::List {
            after,
            limit,
            order,
            filter,
        } => page(*after, *limit, *order, filter),
        Query::Stats => Statement::new(
            "SELECT json_object('state', state, 'number', number) AS row FROM state_counts",
            vec![],
        ),
        Query::Ready { labels, kinds } => Statement::new(
            "SELECT json_object('count', coalesce(sum(ready), 0)) AS row FROM lanes WHERE ready > 0 \
                AND (?2 IS NULL OR kind IN (SELECT value FROM json_each(?2))) \
                AND NOT EXISTS (SELECT 1 FROM json_each(lanes.labels) AS need \
                    WHERE need.value NOT IN (SELECT value FROM json_each(?1)))",
            vec![
                Value::json(labels),
                Value::json(Some(kinds).filter(|kinds| !kinds.is_empty())),
            ],
        ),
        Query::Attempts { job } => Statement::new(
            "SELECT json_object('token', token, 'worker', worker, 'node', node, 'claimed_at_ms', claimed_at_ms, \
                'started_at_ms', started_at_ms, 'ended_at_ms', ended_at_ms, 'outcome', outcome, 'error', error, \
                'log_next', log_next, 'log_bytes', log_bytes, 'log_dropped_bytes', log_dropped_bytes) AS row \
             FROM attempts WHERE job_seq = (SELECT seq FROM jobs WHERE id = ?1) ORDER BY token",
            vec![Value::from(&*job.0)],
        ),
        Query::Log {
            job,
            token,
            from,
            limit,
        } => Statement::new(
            "SELECT json_object('number', number, 'stream', stream, 'at_ms', at_ms, 'hex', hex(bytes)) AS row \
             FROM logs WHERE job_seq = (SELECT seq FROM jobs WHERE id = ?1) AND token = ?2 AND number >= ?3 \
             ORDER BY number LIMIT ?4",
            vec![
                Value::from(&*job.0),
                Value::from(token.0),
                Value::from(i64::from(*from)),
                Value::from(i64::from(*limit)),
            ],
        ),
        Query::Schedules => Statement::new(
            format!("SELECT {SCHEDULE} AS row FROM schedules ORDER BY name"),
            vec![],
        ),
        Query::Keeper => keeper(),
        Query::Execution { job } => Statement::new(
            "SELECT json_object('frames', frames, 'bytes', bytes, 'response', response, 'messages', messages, \
                'paused', json(iif(paused IS NULL, 'false', 'true'))) AS row \
             FROM jobs JOIN executions ON job_seq = seq WHERE id = ?1",
            vec![Value::from(&*job.0)],
        ),
        Query::Frames {
            job,
            from,
            bytes_max,
        } => Statement::new(
            format!(
                "SELECT json_object('number', frames.number, 'hex', hex(frames.bytes)) AS row FROM \
                    (SELECT seq, number, sum(size) OVER (ORDER BY number) AS total FROM \
                        (SELECT seq, number, length(bytes) AS size FROM frames \
                            WHERE job_seq = (SELECT seq FROM jobs WHERE id = ?1) AND number >= ?2 \
                            ORDER BY number LIMIT {FRAMES_PAGE_MAX})) AS page \
                    CROSS JOIN frames ON frames.seq = page.seq \
                 WHERE page.total <= ?3 OR page.number = ?2 ORDER BY page.number"
            ),
            vec![
                Value::from(&*job.0),
                Value::from(number(*from)),
                Value::from(number((*bytes_max).min(FRAMES_BYTES_MAX))),
            ],
        ),
        Query::Inbox { job, beyond, limit } => Statement::new(
            "SELECT json_object('number', number, 'type', type, 'data', json(data), 'sent_at_ms', sent_at_ms) AS row \
             FROM messages WHERE job_seq = (SELECT seq FROM jobs WHERE id = ?1) AND number > ?2 \
             ORDER BY number LIMIT ?3",
            vec![
                Value::from(&*job.0),
                Value::from(number(*beyond)),
                Value::from(i64::from(*limit)),
            ],
        ),
        Query::Modules => Statement::new(
            format!("SELECT {MODULE} AS row FROM modules ORDER BY name, seq"),
            vec![],
        ),
        Query::Module { name, version } => Statement::new(
            format!("SELECT {MODULE} AS row FROM modules WHERE name = ?1 AND version = ?2"),
            vec![Value::from(&**name), Value::from(&**version)],
        ),
        Query::Chunk { hash, number } => Statement::new(
            "SELECT json_quote(hex(bytes)) AS row FROM chunks WHERE hash = ?1 AND number = ?2",
            vec![Value::from(&**hash), Value::from(i64::from(*number))],
        ),
    }
}

fn page(after: Option<Cursor>, limit: u32, order: Order, filter: &Filter) -> Statement {
    let mut parameters = vec![Value::from(i64::from(limit.min(PAGE_MAX)) + 1)];
    let mut place = |value: Value| {
        parameters.push(value);
        format!("?{}", parameters.len())
    };
    let (beyond, direction) = match order {
        Order::OldestFirst => (">", "ASC"),
        Order::NewestFirst => ("<", "DESC"),
    };
    // What an index leads to, and what is looked at in each row then.
    let mut bounds = vec!["1".to_owned()];
    if let Some(after) = after {
        bounds.push(format!("seq {beyond} {}", place(Value::from(after.0))));
    }
    if let Some(state) = filter.state {
        bounds.push(format!("state = {}", place(Value::from(state.as_str()))));
    }
    let mut checks = Vec::new();
    if let Some(label) = &filter.label {
        checks.push(format!(
            "EXISTS (SELECT 1 FROM json_each(labels) WHERE value = {})",
            place(Value::from(&**label))
        ));
    }
    for (column, operator, value) in [
        (
            "submitted_on",
            "=",
            filter.submitted_on.map(u64::cast_signed),
        ),
        ("claimed_on", "=", filter.claimed_on.map(u64::cast_signed)),
        (
            "created_at_ms",
            ">=",
            filter.created_from_ms.map(|time| time.0),
        ),
        (
            "created_at_ms",
            "<",
            filter.created_before_ms.map(|time| time.0),
        ),
    ] {
        if let Some(value) = value {
            checks.push(format!("{column} {operator} {}", place(Value::from(value))));
        }
    }
    let bounds = bounds.join(" AND ");
    if checks.is_empty() {
        return Statement::new(
            format!(
                "SELECT json_object('seq', seq, 'job', {JOB}) AS row FROM jobs \
                 WHERE {bounds} ORDER BY seq {direction} LIMIT ?1"
            ),
            parameters,
        );
    }
    let checks = checks.join(" AND ");
    let last = PAGE_SCAN_MAX - 1;
    Statement::new(
        format!(
            "SELECT row FROM (SELECT json_object('seq', seq, 'job', {JOB}) AS row FROM \
                (SELECT * FROM jobs WHERE {bounds} ORDER BY seq {direction} LIMIT {PAGE_SCAN_MAX}) \
                WHERE {checks} ORDER BY seq {direction} LIMIT ?1) \
             UNION ALL SELECT json_object('end', max(seq * {sign}) * {sign}) FROM \
                (SELECT seq FROM jobs WHERE {bounds} ORDER BY seq {direction} LIMIT 2 OFFSET {last}) \
                HAVING count(*) = 2",
            sign = match order {
                Order::OldestFirst => "-1",
                Order::NewestFirst => "1",
            },
        ),
        parameters,
    )
}

fn keeper() -> Statement {
    Statement::new(
        format!(
            "SELECT json_object('fact', 'lease', 'job', id, 'token', token, 'renewals', renewals, \
                'started', json(iif(state = 'in_progress', 'true', 'false')), 'timeout_ms', timeout_ms, \
                'cancel', json(iif(cancel_requested, 'true', 'false'))) AS row \
             FROM jobs WHERE state IN ('claimed', 'in_progress') \
             UNION ALL SELECT json_object('fact', 'backoff', 'job', id, 'token', token, 'failures', failures, \
                'backoff', json(backoff)) FROM jobs WHERE waits_for = 'backoff' \
             UNION ALL SELECT json_object('fact', 'run_after', 'next_ms', {NEXT_RUN_AFTER}) \
             UNION ALL SELECT json_object('fact', 'settling', 'more', \
                json(iif(EXISTS (SELECT 1 FROM settling), 'true', 'false'))) \
             UNION ALL SELECT json_object('fact', 'schedule', 'schedule', {SCHEDULE}) FROM schedules"
        ),
        vec![],
    )
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PageRow {
    Job { seq: i64, job: Box<Job> },
    End { end: i64 },
}

#[derive(Deserialize)]
struct CountRow {
    state: JobState,
    number: u64,
}

#[derive(Deserialize)]
struct ReadyRow {
    count: u64,
}

/// Turns the rows of [`select`] into the answer.
pub fn answer(query: &Query, rows: impl IntoIterator<Item = String>) -> Result<Answer, Corrupt> {
    let rows: Vec<String> = rows.into_iter().collect();
    Ok(match query {
        Query::Job { .. } => Answer::Job {
            job: parse(rows)?.pop().map(Box::new),
        },
        Query::List { limit, .. } => jobs(parse(rows)?, (*limit).min(PAGE_MAX) as usize),
        Query::Stats => {
            let counts: Vec<CountRow> = parse(rows)?;
            let of = |state| {
                let found = counts.iter().find(|count| count.state == state);
                (state, found.map_or(0, |count| count.number))
            };
            Answer::Stats {
                counts: JobState::ALL.map(of).into(),
            }
        }
        Query::Ready { .. } => Answer::Ready {
            count: parse::<ReadyRow>(rows)?.iter().map(|row| row.count).sum(),
        },
        Query::Attempts { .. } => Answer::Attempts {
            attempts: parse(rows)?,
        },
        Query::Log { .. } => Answer::Log {
            chunks: parse(rows)?,
        },
        Query::Schedules => Answer::Schedules {
            schedules: parse(rows)?,
        },
        Query::Keeper => Answer::Keeper {
            facts: parse(rows)?,
        },
        Query::Execution { .. } => Answer::Execution {
            execution: parse(rows)?.pop(),
        },
        Query::Frames { .. } => Answer::Frames {
            frames: parse(rows)?,
        },
        Query::Inbox { .. } => Answer::Inbox {
            messages: parse(rows)?,
        },
        Query::Modules => Answer::Modules {
            modules: parse(rows)?,
        },
        Query::Module { .. } => Answer::Module {
            module: parse(rows)?.pop(),
        },
        Query::Chunk { .. } => Answer::Chunk {
            chunk: parse(rows)?.pop(),
        },
    })
}

fn jobs(rows: Vec<PageRow>, limit: usize) -> Answer {
    let mut page = Vec::new();
    let mut scanned_to = None;
    for row in rows {
        match row {
            PageRow::Job { seq, job } => page.push((seq, job)),
            PageRow::End { end } => scanned_to = Some(Cursor(end)),
        }
    }
    let next = if page.len() > limit {
        page.truncate(limit);
        page.last().map(|(seq, _)| Cursor(*seq))
    } else {
        scanned_to
    };
    Answer::Jobs {
        jobs: page.into_iter().map(|(_, job)| *job).collect(),
        next,
    }
}

fn parse<T: DeserializeOwned>(rows: Vec<String>) -> Result<Vec<T>, Corrupt> {
    rows.iter()
        .map(|row| serde_json::from_str(row).map_err(|error| Corrupt::row(&error, row)))
        .collect()
}
