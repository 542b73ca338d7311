//! From an empty database, and from what earlier versions left.

use rusqlite::Connection;

use super::{database::Database, model::consistent};
use crate::{
    command::{Change, Command, Report},
    effect::Effect,
    id::{FencingToken, JobId, RequestId, UnixMillis},
    job::{JobSpec, JobState},
    query::{Answer, Query},
    sql,
};

/// The tables of the first release, with a job in each state that it had.
const FIRST_RELEASE: &str = r#"
CREATE TABLE jobs (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, payload TEXT NOT NULL,
    state TEXT NOT NULL, created_at_ms INTEGER NOT NULL, updated_at_ms INTEGER NOT NULL,
    submitted_on INTEGER NOT NULL, claimed_by TEXT, attempts INTEGER NOT NULL) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, seq);
CREATE TABLE requests (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, digest TEXT NOT NULL, verdict TEXT,
    outcome TEXT, job_seq INTEGER, state_before TEXT, state TEXT, updated_at_ms INTEGER, claimed_by TEXT,
    attempts INTEGER) STRICT;
CREATE TABLE barriers (node INTEGER PRIMARY KEY, mark INTEGER NOT NULL) STRICT;
INSERT INTO barriers VALUES (1, 77);
INSERT INTO jobs VALUES (1, 'a', 'fetch', '{"url":"u"}', 'pending', 10, 10, 1, NULL, 0),
    (2, 'b', 'fetch', '{"url":"u"}', 'claimed', 11, 12, 2, 'w', 1),
    (3, 'c', 'build', 'null', 'in_progress', 11, 13, 2, 'w', 1),
    (5, 'd', 'build', 'null', 'completed', 11, 14, 3, 'w', 1),
    (6, 'e', 'build', 'null', 'failed', 11, 15, 3, 'w', 1),
    (7, 'f', 'build', 'null', 'cancelled', 11, 16, 3, NULL, 0);
INSERT INTO requests (id, digest, verdict, outcome, job_seq) VALUES
    ('key-a', 'DIGEST', 'submitted', 'submitted', 1), ('claim', 'x', 'claimed', 'claimed', 2);
"#;

fn first_release() -> Database {
    let database = Database(Connection::open_in_memory().unwrap());
    let spec = JobSpec::new("fetch", serde_json::json!({ "url": "u" }));
    let script = FIRST_RELEASE.replace("DIGEST", &spec.digest());
    database.0.execute_batch(&script).unwrap();
    database
}

/// A database that version 2 made: a held job, one for later, one of the kind `flow` that is nothing special yet, one
/// that waits for the first, a cancelled one, and a schedule.
const VERSION_2: &str = include_str!("upgrades/version_2.sql");

fn version_2() -> Database {
    let database = Database(Connection::open_in_memory().unwrap());
    database.0.execute_batch(VERSION_2).unwrap();
    database
}

/// What a database is made of, but for the marks of its versions.
fn objects(database: &Database) -> Vec<String> {
    let sql = "SELECT type || ' ' || name AS row FROM sqlite_master
        WHERE name NOT GLOB 'schema_version_*' ORDER BY type, name";
    database.rows(&sql::Statement::new(sql, vec![]))
}

fn version(database: &Database) -> String {
    database
        .rows(&sql::Statement::new(sql::VERSION_QUERY, vec![]))
        .pop()
        .unwrap()
}

fn apply(database: &mut Database, request: &str, change: Change) -> crate::queue::Outcome {
    let command = Command {
        request: RequestId(request.into()),
        at: UnixMillis(100),
        change,
    };
    database.apply(&[command]).pop().unwrap()
}

#[test]
fn an_upgrade_is_done_once() {
    let mut database = Database(Connection::open_in_memory().unwrap());
    assert_eq!(version(&database), "0");
    database.transact(&sql::upgrade(0)).unwrap();
    assert_eq!(version(&database), sql::VERSION.to_string());
    assert!(sql::upgrade(sql::VERSION).is_empty());
    // A second leader that proposes it as well changes nothing.
    assert!(database.transact(&sql::upgrade(0)).is_err());
    assert_eq!(version(&database), sql::VERSION.to_string());
}

#[test]
fn jobs_of_the_first_release_go_on() {
    let mut database = first_release();
    assert_eq!(version(&database), "1");
    database.transact(&sql::upgrade(1)).unwrap();
    assert_eq!(version(&database), sql::VERSION.to_string());

    let Answer::Stats { counts } = database.answer(&Query::Stats) else {
        panic!()
    };
    assert_eq!(
        counts.iter().map(|(_, count)| *count).collect::<Vec<_>>(),
        [1, 1, 1, 1, 1, 1, 0]
    );
    let state = |database: &Database, id: &str| {
        let answer = database.answer(&Query::Job {
            job: JobId(id.into()),
        });
        let Answer::Job { job: Some(job) } = answer else {
            panic!("{answer:?}")
        };
        (job.state, job.token.0)
    };
    assert_eq!(state(&database, "a"), (JobState::Pending, 0));
    assert_eq!(state(&database, "c"), (JobState::InProgress, 1));

    // A submission whose answer was lost is repeated, by its key, and is the same job.
    let mut spec = JobSpec::new("fetch", serde_json::json!({ "url": "u" }));
    spec.idempotency_key = Some("key-a".into());
    let submit = Change::Submit {
        job: JobId("new".into()),
        submitted_on: 1,
        spec: Box::new(spec),
        tick: None,
    };
    let outcome = apply(&mut database, "key-a", submit).unwrap();
    assert!(matches!(outcome, Effect::Submitted { existing: true, job, .. } if job.0 == "a"));

    // Who holds a job finishes it; what waited is claimed.
    let finish = Change::Finish {
        job: JobId("c".into()),
        token: FencingToken(1),
        report: Report::Succeeded {
            result: serde_json::Value::Null,
        },
    };
    assert!(apply(&mut database, "r1", finish).is_ok());
    assert_eq!(state(&database, "c"), (JobState::Completed, 1));
    let claim = Change::Claim {
        node: 1,
        worker: "w".into(),
        slots: 5,
        labels: [].into(),
        kinds: [].into(),
    };
    let Ok(Effect::Claimed { claims }) = apply(&mut database, "r2", claim) else {
        panic!()
    };
    assert_eq!(
        claims.iter().map(|claim| &*claim.job.0).collect::<Vec<_>>(),
        ["a"]
    );
    let mark: i64 = database
        .0
        .query_row("SELECT mark FROM barriers", [], |row| row.get(0))
        .unwrap();
    assert_eq!(mark, 77);
}

#[test]
fn jobs_of_version_2_go_on() {
    let mut database = version_2();
    assert_eq!(version(&database), "2");
    database.transact(&sql::upgrade(2)).unwrap();
    assert_eq!(version(&database), sql::VERSION.to_string());
    assert!(database.transact(&sql::upgrade(2)).is_err());
    assert_eq!(objects(&database), objects(&Database::new()));
    consistent(&database);

    // The same request again, as a node sent it before.
    let cancel = Change::Cancel {
        job: JobId("gone".into()),
        reason: None,
    };
    let cancelled = Effect::Cancelled {
        state: JobState::Cancelled,
        dependents: false,
    };
    assert_eq!(apply(&mut database, "r8", cancel), Ok(cancelled));

    let mut request = 100;
    let mut say = |change| {
        request += 1;
        apply(&mut database, &format!("r{request}"), change)
    };
    let finish = Change::Finish {
        job: JobId("held".into()),
        token: FencingToken(1),
        report: Report::Succeeded {
            result: serde_json::Value::Null,
        },
    };
    let ended = Effect::Ended {
        state: JobState::Completed,
        waits_for: None,
        pause_ms: None,
        dependents: true,
    };
    assert_eq!(say(finish), Ok(ended));
    let settled = Effect::Settled {
        count: 1,
        more: false,
        next_ms: Some(UnixMillis(50)),
    };
    assert_eq!(say(Change::Settle { steps: 9 }), Ok(settled));
    let due = Change::Due {
        now_ms: UnixMillis(50),
        steps: 9,
    };
    let effect = Effect::Due {
        count: 1,
        next_ms: None,
    };
    assert_eq!(say(due), Ok(effect));
    let claim = Change::Claim {
        node: 1,
        worker: "w".into(),
        slots: 9,
        labels: [].into(),
        kinds: [].into(),
    };
    let Ok(Effect::Claimed { claims }) = say(claim) else {
        panic!()
    };
    let claimed = claims.iter().map(|claim| &*claim.job.0);
    assert_eq!(claimed.collect::<Vec<_>>(), ["later", "flow", "waits"]);
    let append = Change::Append {
        job: JobId("flow".into()),
        token: FencingToken(1),
        first: 0,
        frames: vec![b"frame".to_vec()],
        consumed: vec![],
        response: None,
    };
    assert_eq!(say(append), Ok(Effect::Appended { next: 1 }));
    consistent(&database);
}

/// After an upgrade a node of version 2 may lead for a while.
#[test]
fn what_version_2_calls_is_there() {
    let mut database = version_2();
    database.transact(&sql::upgrade(2)).unwrap();
    database
        .0
        .execute_batch(
            "INSERT INTO call_cancel VALUES ('a', 'x', 7, 'later');
             INSERT INTO call_cancel VALUES ('a', 'x', 8, 'flow');
             INSERT INTO call_retry VALUES ('b', 'x', 7, 'gone');
             INSERT INTO call_prune SELECT 'c', 'x', 7, step.value, 1, NULL FROM json_each('[0, 1]') AS step;",
        )
        .unwrap();
    let rows = database.rows(&sql::Statement::new(
        "SELECT id || ' ' || verdict || ' ' || coalesce(number, '') AS row FROM requests ORDER BY seq DESC LIMIT 3",
        vec![],
    ));
    assert_eq!(
        rows,
        ["c pruned 1", "b illegal_transition ", "a cancelled "]
    );
    let jobs = database.rows(&sql::Statement::new(
        "SELECT id || ' ' || state AS row FROM jobs ORDER BY seq",
        vec![],
    ));
    assert_eq!(
        jobs,
        [
            "held in_progress",
            "flow pending",
            "waits pending",
            "gone cancelled"
        ]
    );
    consistent(&database);
}
