//! No statement reads the whole of a table that grows with the queue: SQLite's own plans, of the procedures with their
//! triggers and of the queries.

use rusqlite::config::DbConfig;

use super::{database::Database, draw::Drawer, model::draws};
use crate::{
    id::{FencingToken, JobId, UnixMillis},
    job::JobState,
    query::{Cursor, Filter, Order, Query},
    queue::Queue,
    sql::{self, Statement},
};

/// Tables whose length does not grow with the queue: lanes, schedules and modules have limits, and one walks over all of them.
const SHORT: [&str; 6] = [
    "lanes",
    "lane",
    "schedules",
    "state_counts",
    "keys",
    "modules",
];

fn plan(database: &Database, statement: &Statement) -> Vec<String> {
    let explain = format!("EXPLAIN QUERY PLAN {}", statement.sql);
    let mut prepared = database.0.prepare(&explain).unwrap();
    let mut rows = prepared.raw_query();
    let mut lines = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        lines.push(row.get::<_, String>("detail").unwrap());
    }
    lines
}

/// Lines that walk over a long table or build an index for the occasion.
fn walks(lines: &[String]) -> Vec<&String> {
    let is_walk = |line: &&String| {
        if line.contains("AUTOMATIC") {
            return true;
        }
        let Some(scanned) = line.strip_prefix("SCAN ") else {
            return false;
        };
        let name = scanned.split_whitespace().next().unwrap_or_default();
        // In the order of a partial index that has only what is looked for, and under a LIMIT.
        let of_few = ["jobs_run_after", "jobs_finished", "jobs_resting"]
            .iter()
            .any(|index| scanned.contains(index));
        let virtual_table = scanned.contains("VIRTUAL TABLE")
            || name.starts_with('(')
            || name.starts_with("CONSTANT")
            // The frames of one answer, and the only row of a sum.
            || ["page", "stored"].contains(&name);
        let settling = name == "settling";
        !(SHORT.contains(&name) || of_few || virtual_table || settling)
    };
    lines.iter().filter(is_walk).collect()
}

fn check(database: &Database, statement: &Statement, least: usize) {
    let lines = plan(database, statement);
    assert!(
        lines.len() >= least,
        "{}: no plan: {lines:?}",
        statement.sql
    );
    let walks = walks(&lines);
    assert!(
        walks.is_empty(),
        "{}:\n{walks:#?}\n{lines:#?}",
        statement.sql
    );
}

fn explaining() -> Database {
    let database = Database::new();
    // Without this, what triggers do is not explained.
    assert!(
        database
            .0
            .set_db_config(DbConfig::SQLITE_DBCONFIG_TRIGGER_EQP, true)
            .unwrap()
    );
    database
}

#[test]
fn no_command_walks_over_the_jobs() {
    let database = explaining();
    let queue = Queue::new();
    let mut drawer = Drawer::default();
    let mut seen = std::collections::BTreeSet::new();
    for what in 0..54_u16 {
        for a in 0..6 {
            let command = drawer.command([what, a, 0, 0, 0, 0, 0, 0], &queue);
            for statement in sql::statements(&[command]) {
                if seen.insert(statement.sql.clone()) {
                    check(&database, &statement, 1);
                }
            }
        }
    }
    assert_eq!(seen.len(), 26, "{seen:#?}");
}

#[test]
fn no_query_walks_over_the_jobs() {
    let database = explaining();
    let job = JobId("j".into());
    let filters = [
        Filter::default(),
        Filter {
            state: Some(JobState::Dead),
            ..Filter::default()
        },
        Filter {
            label: Some("gpu".into()),
            created_from_ms: Some(UnixMillis(1)),
            ..Filter::default()
        },
    ];
    let mut queries = vec![
        Query::Job { job: job.clone() },
        Query::Attempts { job: job.clone() },
        Query::Log {
            job: job.clone(),
            token: FencingToken(1),
            from: 0,
            limit: 10,
        },
        Query::Stats,
        Query::Ready {
            labels: [].into(),
            kinds: [].into(),
        },
        Query::Keeper,
        Query::Execution { job: job.clone() },
        Query::Frames {
            job: job.clone(),
            from: 3,
            bytes_max: 9,
        },
        Query::Inbox {
            job,
            beyond: 3,
            limit: 9,
        },
        Query::Modules,
        Query::Module {
            name: "m".into(),
            version: "1".into(),
        },
        Query::Chunk {
            hash: "h".into(),
            number: 0,
        },
    ];
    for filter in filters {
        for order in [Order::OldestFirst, Order::NewestFirst] {
            for after in [Some(Cursor(9)), None] {
                let page = Query::List {
                    after,
                    limit: 10,
                    order,
                    filter: filter.clone(),
                };
                // A page without bounds walks, and stops: see below.
                if after.is_some() || filter.state.is_some() {
                    queries.push(page);
                }
            }
        }
    }
    for query in queries {
        let statement = sql::select(&query);
        let lines = plan(&database, &statement);
        // What a bounded inner query found is walked over.
        let lines: Vec<String> = lines
            .into_iter()
            .filter(|line| !line.contains("SUBQUERY"))
            .collect();
        let walks = walks(&lines);
        assert!(
            walks.is_empty(),
            "{}:\n{walks:#?}\n{lines:#?}",
            statement.sql
        );
    }
    check(&database, &sql::outcomes(&[]), 1);
}

#[test]
fn a_walk_is_noticed() {
    let database = explaining();
    for sql in [
        "SELECT * FROM jobs WHERE priority = 1",
        "SELECT count(*) FROM jobs",
        "UPDATE jobs SET renewals = 0 WHERE schedule = 'x'",
    ] {
        let lines = plan(&database, &Statement::new(sql, vec![]));
        assert!(!walks(&lines).is_empty(), "{sql}: {lines:?}");
    }
}

/// Searches which are as short as they should be only with these columns of these indexes: SQLite does not say in the
/// plan of a trigger when it sorts what it found.
const SEARCHES: [&str; 7] = [
    "SEARCH first USING COVERING INDEX jobs_ready (lane=?)",
    "SEARCH first USING COVERING INDEX jobs_ready_own (lane=? AND submitted_on=?)",
    "SEARCH first USING INDEX jobs_of_key (concurrency_key=? AND lane=?)",
    "SEARCH jobs USING COVERING INDEX jobs_admitted (concurrency_key=?)",
    "SEARCH jobs USING INDEX jobs_run_after (run_after_ms<?)",
    "SEARCH jobs USING COVERING INDEX jobs_finished (finished_at_ms>?)",
    "SEARCH dependencies USING COVERING INDEX dependencies_of (waiting=?)",
];

fn missing(database: &Database) -> Vec<&'static str> {
    let mut lines = Vec::new();
    let queue = Queue::new();
    let mut drawer = Drawer::default();
    for what in 0..48_u16 {
        let command = drawer.command([what, 0, 0, 0, 0, 0, 0, 0], &queue);
        lines.extend(plan(database, &sql::statements(&[command])[0]));
    }
    let found = |search: &&str| lines.iter().any(|line| line == search);
    SEARCHES
        .into_iter()
        .filter(|search| !found(search))
        .collect()
}

#[test]
fn each_index_is_used_and_would_be_missed() {
    assert_eq!(missing(&explaining()), [""; 0]);
    for search in SEARCHES {
        let database = explaining();
        let index = search
            .split_once("INDEX ")
            .unwrap()
            .1
            .split(' ')
            .next()
            .unwrap();
        database
            .0
            .execute(&format!("DROP INDEX {index}"), [])
            .unwrap();
        assert_eq!(missing(&database), [search]);
    }
}

/// hiqlite runs `PRAGMA optimize`, so statistics of any moment may be in force at any other.
#[test]
fn statistics_do_not_mislead() {
    for count in [1, 30, 300, 3_000] {
        let mut database = explaining();
        let mut queue = Queue::new();
        let mut drawer = Drawer::default();
        let commands: Vec<_> = draws(7, count)
            .into_iter()
            .map(|draw| {
                let command = drawer.command(draw, &queue);
                let _ = queue.apply(&command);
                command
            })
            .collect();
        database.apply(&commands);
        database.0.execute_batch("ANALYZE").unwrap();
        assert_eq!(missing(&database), [""; 0], "after {count} commands");
    }
}
