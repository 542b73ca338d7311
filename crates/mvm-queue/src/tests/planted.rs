//! Planted bugs in the SQL: the comparison with the core finds each of them.

use rusqlite::Connection;

use super::{
    database::Database,
    model::{compare, draws},
};
use crate::sql;

/// Replaces a text in the schema that is in it, and says what the comparison finds.
#[track_caller]
fn check(text: &str, planted: &str) {
    let mut statements = sql::upgrade(0);
    let mut count = 0;
    for statement in &mut statements {
        count += statement.sql.matches(text).count();
        statement.sql = statement.sql.replace(text, planted).into();
    }
    assert!(count > 0, "{text:?} is not in the schema");
    let found = (0..60).find_map(|seed| {
        let mut database = Database(Connection::open_in_memory().unwrap());
        database.transact(&statements).unwrap();
        compare(&draws(seed, 120), &mut database).err()
    });
    assert!(
        found.is_some(),
        "{planted:?} in place of {text:?} went unnoticed"
    );
}

#[test]
fn what_a_guard_reads_matters() {
    check("job.token <> NEW.token", "job.token < NEW.token");
    check(
        "job.state NOT IN ('claimed', 'in_progress')",
        "job.state = 'pending'",
    );
    check("job.renewals <> NEW.renewals", "0");
    check("job.waits_for IS NOT 'backoff'", "0");
    check("AND revision = NEW.revision", "");
}

#[test]
fn order_matters() {
    check(
        "ORDER BY priority DESC, own DESC, seq LIMIT 1",
        "ORDER BY priority DESC, seq LIMIT 1",
    );
    check(
        "ORDER BY first.priority DESC, first.seq LIMIT 1",
        "ORDER BY first.seq LIMIT 1",
    );
    check("ORDER BY run_after_ms, seq LIMIT 1", "ORDER BY seq LIMIT 1");
}

#[test]
fn counting_matters() {
    check(
        "job.losses + 1 >= job.losses_max",
        "job.losses >= job.losses_max",
    );
    check("maximum - held", "maximum");
    check("lane.kind IN (SELECT value FROM json_each(NEW.kinds))", "1");
}

#[test]
fn what_a_journal_and_an_inbox_look_at_matters() {
    check("WHEN job.kind <> 'flow' THEN 'not_a_workflow'", "");
    check(
        "response = coalesce(response, NEW.response)",
        "response = NEW.response",
    );
    check("last_message + 1, NEW.type", "messages + 1, NEW.type");
    check("number > NEW.seen", "number >= NEW.seen");
    check("token = 0 AND run_after_ms", "run_after_ms");
}

#[test]
fn what_keeps_a_job_from_running_matters() {
    check(
        "waits_for IN ('run_after', 'message') AND run_after_ms <=",
        "waits_for IN ('run_after') AND run_after_ms <=",
    );
    check("WHEN paused IS NOT NULL THEN 'paused'", "");
}

#[test]
fn what_a_module_needs_matters() {
    check(
        "(stored.chunks, stored.bytes) <> (NEW.chunks, NEW.bytes)",
        "stored.chunks <> NEW.chunks",
    );
    check(
        "NOT EXISTS (SELECT 1 FROM modules WHERE hash = NEW.hash)",
        "1",
    );
}
