//! From commands to statements: which procedure is called with what.

use super::{Statement, Value};
use crate::{
    command::{Change, Command, Expiry, Stream, Tick},
    id::{FencingToken, JobId, RequestId},
    job::JobSpec,
    limits::{SLOTS_MAX, steps_of},
};

/// What a statement, and each of its parameters, takes in a proposal besides its own bytes, at most.
const OVERHEAD_BYTES: usize = 16;

/// The statements that apply commands, one after another, in one transaction.
///
/// The commands of a batch behave as if each had a transaction of its own, and each has its own outcome.
pub fn statements(commands: &[Command]) -> Vec<Statement> {
    let mut statements = Vec::new();
    for command in commands {
        let mut before: Option<RequestId> = None;
        for part in command.parts() {
            let alone = statement(&part);
            statements.push(match before {
                Some(before) => unless_refused(alone, before),
                None => alone,
            });
            before = Some(part.request.clone());
        }
    }
    statements
}

/// Does nothing if the request before was refused.
fn unless_refused(statement: Statement, before: RequestId) -> Statement {
    let Statement {
        sql,
        mut parameters,
    } = statement;
    parameters.push(Value::from(before.0));
    let sql = match sql.split_once(" VALUES (") {
        Some((head, values)) => format!("{head} SELECT {}", values.trim_end_matches(')')),
        None => sql.into_owned(),
    };
    let place = parameters.len();
    let text = format!(
        "{sql} WHERE EXISTS (SELECT 1 FROM requests WHERE id = ?{place} AND verdict IN ({EFFECTIVE}))"
    );
    Statement::new(text, parameters)
}

/// Verdicts after which a change goes on to the next one of [`Change::All`].
const EFFECTIVE: &str = "'submitted', 'existing', 'claimed', 'started', 'renewed', 'logged', 'log_repeated', 'ended', \
    'cancelled', 'retried', 'ready', 'due', 'settled', 'schedule_set', 'tick_skipped', 'schedule_removed', 'pruned', \
    'paused', 'resumed', 'appended', 'sent', 'parked', 'chunk_put', 'deployed', 'deployed_before'";

/// An upper bound of what the statements take in a log entry.
///
/// No single valid command takes more than [`crate::COMMAND_BYTES_MAX`]. A proposal must stay below half of hiqlite's `wal_size`.
pub fn encoded_bytes(statements: &[Statement]) -> usize {
    let parameter = |value: &Value| {
        OVERHEAD_BYTES
            + match value {
                Value::Null | Value::Integer(_) => 0,
                Value::Text(text) => text.len(),
                Value::Blob(bytes) => bytes.len(),
            }
    };
    let statement = |statement: &Statement| {
        OVERHEAD_BYTES
            + statement.sql.len()
            + statement.parameters.iter().map(parameter).sum::<usize>()
    };
    statements.iter().map(statement).sum()
}

fn statement(command: &Command) -> Statement {
    let (sql, arguments) = call(&command.change);
    let mut parameters = vec![
        Value::from(&*command.request.0),
        Value::from(command.change.digest()),
        Value::from(command.at.0),
    ];
    parameters.extend(arguments);
    Statement::new(sql, parameters)
}

fn call(change: &Change) -> (&'static str, Vec<Value>) {
    match change {
        Change::Submit {
            job,
            submitted_on,
            spec,
            tick,
        } => (
            "INSERT INTO call_submit VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, \
             ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24)",
            submission(job, *submitted_on, spec, tick.as_ref()),
        ),
        Change::Claim {
            node,
            worker,
            slots,
            labels,
            kinds,
        } => (
            "INSERT INTO call_claim SELECT ?1, ?2, ?3, step.value, ?4, ?5, ?6, ?7 FROM json_each(?8) AS step",
            vec![
                Value::from(node.cast_signed()),
                Value::from(&**worker),
                Value::json(labels),
                Value::json(Some(kinds).filter(|kinds| !kinds.is_empty())),
                steps((*slots).clamp(1, SLOTS_MAX)),
            ],
        ),
        Change::Start { job, token } => (
            "INSERT INTO call_start VALUES (?1, ?2, ?3, ?4, ?5)",
            held(job, *token),
        ),
        Change::Renew { job, token } => (
            "INSERT INTO call_renew VALUES (?1, ?2, ?3, ?4, ?5)",
            held(job, *token),
        ),
        Change::Log {
            job,
            token,
            number,
            stream,
            bytes,
        } => {
            let mut arguments = held(job, *token);
            let stream = match stream {
                Stream::Stdout => "stdout",
                Stream::Stderr => "stderr",
            };
            arguments.extend([
                Value::from(i64::from(*number)),
                Value::from(stream),
                Value::Blob(bytes.clone()),
            ]);
            (
                "INSERT INTO call_log VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                arguments,
            )
        }
        Change::Finish { job, token, report } => {
            let mut arguments = held(job, *token);
            arguments.extend([
                Value::from(report.outcome().as_str()),
                Value::from(i64::from(report.permanent())),
                Value::from(report.error()),
                Value::from(report.result().map(serde_json::Value::to_string)),
                Value::Null,
                Value::Null,
            ]);
            (FINISH, arguments)
        }
        Change::Expire { job, token, cause } => {
            let (word, renewals) = match cause {
                Expiry::Lease { renewals } => ("lease", Value::from(renewals.cast_signed())),
                Expiry::Timeout => ("timeout", Value::Null),
                Expiry::Cancel => ("cancel", Value::Null),
            };
            let mut arguments = held(job, *token);
            arguments.extend([
                Value::from(cause.outcome().as_str()),
                Value::Integer(0),
                Value::from(cause.error()),
                Value::Null,
                Value::from(word),
                renewals,
            ]);
            (FINISH, arguments)
        }
        Change::Cancel { job, reason } => (
            "INSERT INTO call_cancel_3 VALUES (?1, ?2, ?3, ?4, ?5)",
            vec![Value::from(&*job.0), Value::from(reason.as_deref())],
        ),
        Change::Retry { job, keep_frames } => (
            "INSERT INTO call_retry_3 VALUES (?1, ?2, ?3, ?4, ?5)",
            vec![
                Value::from(&*job.0),
                Value::from(keep_frames.map(|keep| number(keep.get()))),
            ],
        ),
        Change::Pause { job, reason } => (
            "INSERT INTO call_pause VALUES (?1, ?2, ?3, ?4, ?5)",
            vec![
                Value::from(&*job.0),
                Value::from(reason.as_deref().unwrap_or_default()),
            ],
        ),
        Change::Resume { job } => (
            "INSERT INTO call_resume VALUES (?1, ?2, ?3, ?4)",
            vec![Value::from(&*job.0)],
        ),
        Change::Ready { job, token } => (
            "INSERT INTO call_ready VALUES (?1, ?2, ?3, ?4, ?5)",
            held(job, *token),
        ),
        Change::Due {
            now_ms,
            steps: asked,
        } => (
            "INSERT INTO call_due SELECT ?1, ?2, ?3, step.value, ?4 FROM json_each(?5) AS step",
            vec![Value::from(now_ms.0), steps(steps_of(*asked))],
        ),
        Change::Settle { steps: asked } => (
            "INSERT INTO call_settle SELECT ?1, ?2, ?3, step.value FROM json_each(?4) AS step",
            vec![steps(steps_of(*asked))],
        ),
        Change::SetSchedule {
            name,
            cron,
            missed,
            spec,
            next_ms,
        } => (
            "INSERT INTO call_set_schedule VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            vec![
                Value::from(&**name),
                Value::from(&**cron),
                Value::from(missed.as_str()),
                Value::json(spec),
                Value::from(next_ms.0),
            ],
        ),
        Change::SkipTick { tick } => (
            "INSERT INTO call_skip_tick VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            tick_values(Some(tick)),
        ),
        Change::RemoveSchedule { name } => (
            "INSERT INTO call_remove_schedule VALUES (?1, ?2, ?3, ?4)",
            vec![Value::from(&**name)],
        ),
        Change::Prune {
            keep,
            before_ms,
            chunks_before_ms,
            steps: asked,
        } => (
            "INSERT INTO call_prune_3 SELECT ?1, ?2, ?3, step.value, ?4, ?5, ?6 FROM json_each(?7) AS step",
            vec![
                Value::from(number(*keep)),
                Value::from(before_ms.map(|before| before.0)),
                Value::from(chunks_before_ms.map(|before| before.0)),
                steps(steps_of(*asked)),
            ],
        ),
        Change::Append {
            job,
            token,
            first,
            frames,
            consumed,
            response,
        } => {
            let mut arguments = held(job, *token);
            arguments.extend([
                Value::from(number(*first)),
                Value::json(places(frames)),
                Value::Blob(frames.concat()),
                Value::json(consumed),
                Value::from(response.map(number)),
            ]);
            (
                "INSERT INTO call_append VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                arguments,
            )
        }
        Change::Send { job, kind, data } => (
            "INSERT INTO call_send VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            vec![
                Value::from(&*job.0),
                Value::from(&**kind),
                Value::from(data.to_string()),
            ],
        ),
        Change::Park {
            job,
            token,
            until_ms,
            seen,
            reason,
        } => {
            let mut arguments = held(job, *token);
            arguments.extend([
                Value::from(until_ms.map(|until| until.0)),
                Value::from(seen.map(number)),
                Value::from(reason.as_deref()),
            ]);
            (
                "INSERT INTO call_park VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                arguments,
            )
        }
        // Its parts are called one by one.
        Change::All { .. } => ("SELECT ?1, ?2, ?3 WHERE 0", Vec::new()),
        Change::PutChunk {
            hash,
            number,
            bytes,
        } => (
            "INSERT INTO call_put_chunk VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            vec![
                Value::from(&**hash),
                Value::from(i64::from(*number)),
                Value::Blob(bytes.clone()),
            ],
        ),
        Change::Deploy {
            name,
            version,
            hash,
            bytes,
            chunks,
        } => (
            "INSERT INTO call_deploy VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            vec![
                Value::from(&**name),
                Value::from(&**version),
                Value::from(&**hash),
                Value::from(number(*bytes)),
                Value::from(i64::from(*chunks)),
            ],
        ),
    }
}

const FINISH: &str =
    "INSERT INTO call_finish VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";

fn submission(job: &JobId, submitted_on: u64, spec: &JobSpec, tick: Option<&Tick>) -> Vec<Value> {
    let concurrency = spec.concurrency.as_ref();
    let mut arguments = vec![
        Value::from(&*job.0),
        Value::from(submitted_on.cast_signed()),
        Value::json(spec),
        Value::from(spec.digest()),
        Value::from(&*spec.kind),
        Value::json(&spec.labels),
        Value::from(i64::from(spec.priority)),
        Value::from(spec.run_after_ms.map(|time| time.0)),
        Value::from(i64::from(spec.attempts_max)),
        Value::from(i64::from(spec.losses_max)),
        Value::json(spec.backoff),
        Value::from(spec.timeout_ms.map(u64::cast_signed)),
        Value::from(concurrency.map(|concurrency| &*concurrency.key)),
        Value::from(concurrency.map(|concurrency| i64::from(concurrency.limit))),
        Value::json(&spec.dependencies),
        Value::from(spec.on_dependency_failure.as_str()),
        Value::from(spec.idempotency_key.as_deref()),
    ];
    arguments.extend(tick_values(tick));
    arguments
}

fn tick_values(tick: Option<&Tick>) -> Vec<Value> {
    vec![
        Value::from(tick.map(|tick| &*tick.schedule)),
        Value::from(tick.map(|tick| tick.revision)),
        Value::from(tick.map(|tick| tick.tick_ms.0)),
        Value::from(tick.map(|tick| tick.next_ms.0)),
    ]
}

fn held(job: &JobId, token: FencingToken) -> Vec<Value> {
    vec![Value::from(&*job.0), Value::from(token.0)]
}

/// SQLite's numbers have a sign. Nothing that is accepted is larger than the largest of them.
pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Where each frame is in all of them one after another: its offset and its length.
fn places(frames: &[Vec<u8>]) -> Vec<(usize, usize)> {
    let mut offset = 0;
    let place = |frame: &Vec<u8>| {
        let place = (offset, frame.len());
        offset += frame.len();
        place
    };
    frames.iter().map(place).collect()
}

/// A list of the numbers of steps, for `json_each`.
fn steps(count: u32) -> Value {
    Value::json((0..count).collect::<Vec<_>>())
}
