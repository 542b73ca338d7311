//! Bringing a database to the present schema, through the log, in one transaction.
//!
//! A leader reads [`VERSION_QUERY`] and proposes [`upgrade`]. If two leaders propose it, the second one fails as a whole,
//! on every replica: its first statement adds a view that exists then.

use super::{
    Statement,
    schema::{self, VERSION},
};

/// Reads the version of a database: one row `row`, a number as text; `0` for an empty one.
pub const VERSION_QUERY: &str = "SELECT CAST(coalesce(
        (SELECT max(CAST(substr(name, 16) AS INTEGER)) FROM sqlite_master WHERE name GLOB 'schema_version_*'),
        (SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'jobs')) AS TEXT) AS row";

/// The statements that bring a database from version `from` to [`VERSION`]; none if there is nothing to do.
///
/// They belong into one transaction, and into a proposal of their own.
pub fn upgrade(from: i64) -> Vec<Statement> {
    if from >= VERSION {
        return Vec::new();
    }
    let mark = format!("CREATE VIEW schema_version_{VERSION} AS SELECT {VERSION} AS version");
    let mut texts = vec![mark];
    if from == 1 {
        texts.extend(SET_ASIDE.map(str::to_owned));
    }
    if from == 2 {
        texts.extend(PROGRAMS_OF_2.map(|(sort, name)| format!("DROP {sort} {name}")));
        texts.extend(WIDEN.map(str::to_owned));
    } else {
        texts.extend(schema::TABLES.iter().map(|table| (*table).to_owned()));
        texts.push(schema::BARRIERS.to_owned());
    }
    texts.extend(schema::FLOW_TABLES.iter().map(|table| (*table).to_owned()));
    texts.extend(schema::programs());
    if from == 1 {
        texts.extend(CARRY_OVER.map(str::to_owned));
    }
    if from == 2 {
        texts.push(EXECUTIONS.to_owned());
    }
    texts
        .into_iter()
        .map(|text| Statement::new(text, Vec::new()))
        .collect()
}

const SET_ASIDE: [&str; 3] = [
    "DROP INDEX jobs_by_state",
    "ALTER TABLE jobs RENAME TO jobs_1",
    "ALTER TABLE requests RENAME TO requests_1",
];

/// What version 2 had besides tables. The procedures' triggers go with their views.
const PROGRAMS_OF_2: [(&str, &str); 23] = [
    ("TRIGGER", "requests_forget"),
    ("TRIGGER", "jobs_added"),
    ("TRIGGER", "jobs_removed"),
    ("TRIGGER", "jobs_counted"),
    ("TRIGGER", "jobs_lane"),
    ("TRIGGER", "jobs_ended"),
    ("TRIGGER", "jobs_key_added"),
    ("TRIGGER", "jobs_key_moved"),
    ("VIEW", "call_submit"),
    ("VIEW", "call_claim"),
    ("VIEW", "call_start"),
    ("VIEW", "call_renew"),
    ("VIEW", "call_log"),
    ("VIEW", "call_finish"),
    ("VIEW", "call_cancel"),
    ("VIEW", "call_retry"),
    ("VIEW", "call_ready"),
    ("VIEW", "call_due"),
    ("VIEW", "call_settle"),
    ("VIEW", "call_prune"),
    ("VIEW", "call_set_schedule"),
    ("VIEW", "call_skip_tick"),
    ("VIEW", "call_remove_schedule"),
];

/// From version 2, of which everything stays.
const WIDEN: [&str; 3] = [
    "ALTER TABLE jobs ADD COLUMN paused TEXT",
    "DROP INDEX jobs_run_after",
    schema::JOBS_RUN_AFTER,
];

/// Jobs of the kind `flow` were nothing special in version 2.
const EXECUTIONS: &str =
    "INSERT INTO executions (job_seq, frames, bytes, messages, message_bytes, last_message)
    SELECT seq, 0, 0, 0, 0, 0 FROM jobs WHERE kind = 'flow' ORDER BY seq";

/// From version 1. Places in the queue and tokens stay. A submission's request id becomes the job's idempotency key, so
/// that one whose answer was lost can be repeated after the upgrade. Other requests are forgotten: a claim whose
/// answer was lost ends with its lease.
const CARRY_OVER: [&str; 5] = [
    "INSERT INTO lanes (kind, labels, ready, unfinished)
        SELECT DISTINCT kind, '[]', 0, 0 FROM jobs_1 WHERE state IN ('pending', 'claimed', 'in_progress') ORDER BY kind",
    "INSERT INTO jobs (seq, id, spec, spec_digest, kind, labels, lane, priority, attempts_max, losses_max, backoff,
            on_dependency_failure, dependencies_open, idempotency_key, submitted_on, created_at_ms, updated_at_ms,
            finished_at_ms, state, waits_for, claimed_by, token, failures, losses, renewals, cancel_requested)
        SELECT old.seq, old.id,
            json_object('kind', old.kind, 'payload', json(old.payload), 'idempotency_key', request.id),
            coalesce(request.digest, ''), old.kind, '[]',
            (SELECT id FROM lanes WHERE kind = old.kind AND labels = '[]'), 0, 1, 3,
            '{\"base_ms\":1000,\"max_ms\":300000}', 'cancel', 0, request.id, old.submitted_on, old.created_at_ms,
            old.updated_at_ms, iif(old.state IN ('completed', 'failed', 'cancelled'), old.updated_at_ms, NULL), old.state,
            iif(old.state = 'pending', 'worker', NULL), old.claimed_by, old.attempts, old.state = 'failed', 0, 0, 0
        FROM jobs_1 AS old LEFT JOIN requests_1 AS request ON request.seq =
            (SELECT min(seq) FROM requests_1 WHERE job_seq = old.seq AND outcome = 'submitted')
        ORDER BY old.seq",
    "INSERT INTO attempts (job_seq, token, worker, node, claimed_at_ms, ended_at_ms, outcome, log_next, log_bytes,
            log_dropped_bytes)
        SELECT seq, attempts, coalesce(claimed_by, ''), 0, updated_at_ms,
            iif(state IN ('claimed', 'in_progress'), NULL, updated_at_ms),
            CASE state WHEN 'completed' THEN 'succeeded' WHEN 'failed' THEN 'failed' WHEN 'cancelled' THEN 'cancelled' END,
            0, 0, 0
        FROM jobs_1 WHERE attempts > 0 ORDER BY seq",
    "DROP TABLE jobs_1",
    "DROP TABLE requests_1",
];
