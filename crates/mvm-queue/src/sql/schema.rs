//! The tables, and the triggers that keep everything which follows from where jobs stand: how many there are, which
//! lanes have ready ones, which of a concurrency key may go, who must be told of an end.

use super::procedures;
use crate::{
    job::FLOW_KIND,
    limits::{LOG_BYTES_MAX, REQUESTS_KEPT},
};

/// The version of the schema. 1 is what the first release had: `jobs`, `requests` and `barriers`. 2 knew no workflows.
pub const VERSION: i64 = 3;

/// The tables and indexes.
///
/// `waits_for` decides about the ready queue: a job is in the partial indexes of its lane, which is the pair of its
/// kind and its label set, while it waits for a worker and for nothing else.
pub(super) const TABLES: &[&str] = &[
    "CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        spec TEXT NOT NULL,
        spec_digest TEXT NOT NULL,
        kind TEXT NOT NULL,
        labels TEXT NOT NULL,
        lane INTEGER,
        priority INTEGER NOT NULL,
        run_after_ms INTEGER,
        attempts_max INTEGER NOT NULL,
        losses_max INTEGER NOT NULL,
        backoff TEXT NOT NULL,
        timeout_ms INTEGER,
        concurrency_key TEXT,
        concurrency_limit INTEGER,
        on_dependency_failure TEXT NOT NULL,
        dependencies_open INTEGER NOT NULL,
        idempotency_key TEXT UNIQUE,
        schedule TEXT,
        submitted_on INTEGER NOT NULL,
        created_at_ms INTEGER NOT NULL,
        updated_at_ms INTEGER NOT NULL,
        finished_at_ms INTEGER,
        state TEXT NOT NULL,
        waits_for TEXT,
        claimed_by TEXT,
        claimed_on INTEGER,
        token INTEGER NOT NULL,
        failures INTEGER NOT NULL,
        losses INTEGER NOT NULL,
        renewals INTEGER NOT NULL,
        cancel_requested INTEGER NOT NULL,
        paused TEXT,
        error TEXT,
        result TEXT
    ) STRICT",
    "CREATE INDEX jobs_by_state ON jobs (state, seq)",
    // The ready queue, and the same of each node that took jobs.
    "CREATE INDEX jobs_ready ON jobs (lane, priority DESC, seq) WHERE waits_for = 'worker'",
    "CREATE INDEX jobs_ready_own ON jobs (lane, submitted_on, priority DESC, seq) WHERE waits_for = 'worker'",
    // Of each concurrency key: those that may go as far as all else is concerned, and those that may go.
    "CREATE INDEX jobs_of_key ON jobs (concurrency_key, lane, priority DESC, seq)
        WHERE concurrency_key IS NOT NULL AND waits_for IN ('concurrency', 'worker')",
    "CREATE INDEX jobs_admitted ON jobs (concurrency_key)
        WHERE concurrency_key IS NOT NULL AND waits_for = 'worker'",
    "CREATE INDEX jobs_resting ON jobs (seq) WHERE waits_for = 'backoff'",
    JOBS_RUN_AFTER,
    "CREATE INDEX jobs_finished ON jobs (finished_at_ms, seq) WHERE finished_at_ms IS NOT NULL",
    "CREATE TABLE lanes (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        labels TEXT NOT NULL,
        ready INTEGER NOT NULL,
        unfinished INTEGER NOT NULL,
        UNIQUE (kind, labels)
    ) STRICT",
    "CREATE INDEX lanes_ready ON lanes (id) WHERE ready > 0",
    "CREATE TABLE keys (
        key TEXT PRIMARY KEY,
        maximum INTEGER NOT NULL,
        held INTEGER NOT NULL,
        unfinished INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID",
    "CREATE TABLE state_counts (state TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "INSERT INTO state_counts (state, number) VALUES ('pending', 0), ('claimed', 0), ('in_progress', 0),
        ('completed', 0), ('failed', 0), ('cancelled', 0), ('dead', 0)",
    // `waiting` waits for `on_seq`, which has not ended, or whose end has not been told.
    "CREATE TABLE dependencies (
        on_seq INTEGER NOT NULL,
        waiting INTEGER NOT NULL,
        PRIMARY KEY (on_seq, waiting)
    ) STRICT, WITHOUT ROWID",
    "CREATE INDEX dependencies_of ON dependencies (waiting)",
    "CREATE TABLE settling (on_seq INTEGER PRIMARY KEY) STRICT",
    "CREATE TABLE attempts (
        job_seq INTEGER NOT NULL,
        token INTEGER NOT NULL,
        worker TEXT NOT NULL,
        node INTEGER NOT NULL,
        claimed_at_ms INTEGER NOT NULL,
        started_at_ms INTEGER,
        ended_at_ms INTEGER,
        outcome TEXT,
        error TEXT,
        log_next INTEGER NOT NULL,
        log_bytes INTEGER NOT NULL,
        log_dropped_bytes INTEGER NOT NULL,
        PRIMARY KEY (job_seq, token)
    ) STRICT, WITHOUT ROWID",
    "CREATE TABLE logs (
        seq INTEGER PRIMARY KEY,
        job_seq INTEGER NOT NULL,
        token INTEGER NOT NULL,
        number INTEGER NOT NULL,
        stream TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        UNIQUE (job_seq, token, number)
    ) STRICT",
    "CREATE TABLE schedules (
        name TEXT PRIMARY KEY,
        revision INTEGER NOT NULL,
        cron TEXT NOT NULL,
        missed TEXT NOT NULL,
        spec TEXT NOT NULL,
        next_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID",
    // What became of each request. `step` counts the calls of a procedure that is called several times.
    "CREATE TABLE requests (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        digest TEXT NOT NULL,
        verdict TEXT NOT NULL,
        job TEXT,
        before TEXT,
        state TEXT,
        waits_for TEXT,
        number INTEGER,
        flag INTEGER,
        detail TEXT,
        step INTEGER,
        picked INTEGER,
        claims TEXT
    ) STRICT",
];

/// Those that wait for a time, and perhaps for a message as well.
pub(super) const JOBS_RUN_AFTER: &str = "CREATE INDEX jobs_run_after ON jobs (run_after_ms, seq)
    WHERE waits_for IN ('run_after', 'message') AND run_after_ms IS NOT NULL";

/// The tables and indexes of workflows, since version 3.
pub(super) const FLOW_TABLES: &[&str] = &[
    // One for each job of the kind `flow`.
    "CREATE TABLE executions (
        job_seq INTEGER PRIMARY KEY,
        frames INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        response INTEGER,
        messages INTEGER NOT NULL,
        message_bytes INTEGER NOT NULL,
        last_message INTEGER NOT NULL
    ) STRICT",
    "CREATE TABLE frames (
        seq INTEGER PRIMARY KEY,
        job_seq INTEGER NOT NULL,
        number INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        UNIQUE (job_seq, number)
    ) STRICT",
    // Removed jobs that have left frames behind.
    "CREATE TABLE leftovers (job_seq INTEGER PRIMARY KEY) STRICT",
    "CREATE TABLE messages (
        seq INTEGER PRIMARY KEY,
        job_seq INTEGER NOT NULL,
        number INTEGER NOT NULL,
        type TEXT NOT NULL,
        data TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        sent_at_ms INTEGER NOT NULL,
        UNIQUE (job_seq, number)
    ) STRICT",
    "CREATE TABLE modules (
        seq INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        version TEXT NOT NULL,
        hash TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        chunks INTEGER NOT NULL,
        deployed_at_ms INTEGER NOT NULL,
        UNIQUE (name, version)
    ) STRICT",
    "CREATE INDEX modules_of_hash ON modules (hash)",
    "CREATE TABLE chunks (
        seq INTEGER PRIMARY KEY,
        hash TEXT NOT NULL,
        number INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        UNIQUE (hash, number)
    ) STRICT",
    // Hashes that have chunks and no module.
    "CREATE TABLE strays (hash TEXT PRIMARY KEY, at_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE INDEX strays_by_age ON strays (at_ms, hash)",
];

/// The next time that a job waits for.
pub(super) const NEXT_RUN_AFTER: &str = "(SELECT run_after_ms FROM jobs
    WHERE waits_for IN ('run_after', 'message') AND run_after_ms IS NOT NULL ORDER BY run_after_ms LIMIT 1)";

/// Marks of read barriers, as since version 1.
pub(super) const BARRIERS: &str = "CREATE TABLE IF NOT EXISTS barriers (
        node INTEGER PRIMARY KEY,
        mark INTEGER NOT NULL
    ) STRICT";

const FINISHED: &str = "('completed', 'failed', 'cancelled', 'dead')";
const HELD: &str = "('claimed', 'in_progress')";
const ELIGIBLE: &str = "('concurrency', 'worker')";

/// The triggers on tables and the procedures. Replaced as a whole by every upgrade.
pub(super) fn programs() -> Vec<String> {
    let mut programs = triggers();
    programs.extend(procedures::all());
    programs
}

fn triggers() -> Vec<String> {
    let admit = admit();
    vec![
        format!(
            "CREATE TRIGGER requests_forget AFTER INSERT ON requests BEGIN
                DELETE FROM requests WHERE seq <= NEW.seq - {REQUESTS_KEPT};
            END"
        ),
        "CREATE TRIGGER messages_added AFTER INSERT ON messages BEGIN
            UPDATE executions SET messages = messages + 1, message_bytes = message_bytes + NEW.bytes,
                last_message = NEW.number WHERE job_seq = NEW.job_seq;
        END"
            .into(),
        "CREATE TRIGGER messages_removed AFTER DELETE ON messages BEGIN
            UPDATE executions SET messages = messages - 1, message_bytes = message_bytes - OLD.bytes
                WHERE job_seq = OLD.job_seq;
        END"
            .into(),
        format!(
            "CREATE TRIGGER jobs_added AFTER INSERT ON jobs BEGIN
                UPDATE state_counts SET number = number + 1 WHERE state = NEW.state;
                UPDATE lanes SET unfinished = unfinished + (NEW.state NOT IN {FINISHED}),
                    ready = ready + (NEW.waits_for IS 'worker') WHERE id = NEW.lane;
                INSERT INTO executions (job_seq, frames, bytes, messages, message_bytes, last_message)
                    SELECT NEW.seq, 0, 0, 0, 0, 0 WHERE NEW.kind = '{FLOW_KIND}';
            END"
        ),
        "CREATE TRIGGER jobs_removed AFTER DELETE ON jobs BEGIN
            UPDATE state_counts SET number = number - 1 WHERE state = OLD.state;
        END"
            .into(),
        "CREATE TRIGGER jobs_counted AFTER UPDATE OF state ON jobs WHEN NEW.state <> OLD.state BEGIN
            UPDATE state_counts SET number = number - 1 WHERE state = OLD.state;
            UPDATE state_counts SET number = number + 1 WHERE state = NEW.state;
        END"
            .into(),
        format!(
            "CREATE TRIGGER jobs_lane AFTER UPDATE OF state, waits_for ON jobs
             WHEN (NEW.waits_for IS 'worker') <> (OLD.waits_for IS 'worker')
               OR (NEW.state IN {FINISHED}) <> (OLD.state IN {FINISHED})
             BEGIN
                UPDATE lanes SET
                    ready = ready + (NEW.waits_for IS 'worker') - (OLD.waits_for IS 'worker'),
                    unfinished = unfinished + (NEW.state NOT IN {FINISHED}) - (OLD.state NOT IN {FINISHED})
                    WHERE id = NEW.lane;
                DELETE FROM lanes WHERE id = NEW.lane AND unfinished = 0 AND NEW.state IN {FINISHED};
             END"
        ),
        format!(
            "CREATE TRIGGER jobs_ended AFTER UPDATE OF state ON jobs
             WHEN NEW.state IN {FINISHED} AND OLD.state NOT IN {FINISHED}
              AND EXISTS (SELECT 1 FROM dependencies WHERE on_seq = NEW.seq)
             BEGIN
                INSERT INTO settling (on_seq) VALUES (NEW.seq);
             END"
        ),
        format!(
            "CREATE TRIGGER jobs_key_added AFTER INSERT ON jobs
             WHEN NEW.concurrency_key IS NOT NULL AND NEW.state = 'pending'
             BEGIN
                INSERT INTO keys (key, maximum, held, unfinished)
                    VALUES (NEW.concurrency_key, NEW.concurrency_limit, 0, 1)
                    ON CONFLICT (key) DO UPDATE SET maximum = excluded.maximum, unfinished = unfinished + 1;
                {admit}
             END"
        ),
        // Not run by what itself does, since admission changes neither who is held nor who is eligible.
        format!(
            "CREATE TRIGGER jobs_key_moved AFTER UPDATE OF state, waits_for ON jobs
             WHEN NEW.concurrency_key IS NOT NULL
              AND ((NEW.state IN {HELD}) <> (OLD.state IN {HELD})
                OR (NEW.state IN {FINISHED}) <> (OLD.state IN {FINISHED})
                OR coalesce(NEW.waits_for IN {ELIGIBLE}, 0) <> coalesce(OLD.waits_for IN {ELIGIBLE}, 0))
             BEGIN
                INSERT INTO keys (key, maximum, held, unfinished)
                    SELECT NEW.concurrency_key, NEW.concurrency_limit, 0, 0
                    WHERE OLD.state IN {FINISHED}
                    ON CONFLICT (key) DO NOTHING;
                UPDATE keys SET
                    held = held + (NEW.state IN {HELD}) - (OLD.state IN {HELD}),
                    unfinished = unfinished + (NEW.state NOT IN {FINISHED}) - (OLD.state NOT IN {FINISHED})
                    WHERE key = NEW.concurrency_key;
                DELETE FROM keys WHERE key = NEW.concurrency_key AND unfinished = 0;
                {admit}
             END"
        ),
    ]
}

/// Lets the first jobs of `NEW.concurrency_key` into the ready queue, in each lane as many as the key has room for.
fn admit() -> String {
    let admitted = format!(
        "SELECT job.seq FROM lanes AS lane CROSS JOIN jobs AS job WHERE job.seq IN (
            SELECT first.seq FROM jobs AS first
            WHERE first.concurrency_key = NEW.concurrency_key AND first.lane = lane.id
              AND first.waits_for IN {ELIGIBLE}
            ORDER BY first.priority DESC, first.seq
            LIMIT coalesce((SELECT max(0, maximum - held) FROM keys WHERE key = NEW.concurrency_key), 0))"
    );
    format!(
        "UPDATE jobs SET waits_for = 'concurrency'
            WHERE concurrency_key = NEW.concurrency_key AND waits_for = 'worker' AND seq NOT IN ({admitted});
         UPDATE jobs SET waits_for = 'worker' WHERE seq IN ({admitted}) AND waits_for = 'concurrency';"
    )
}

/// For the procedures.
pub(super) const fn log_bytes_max() -> u64 {
    LOG_BYTES_MAX
}
