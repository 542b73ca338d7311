//! The queue in SQL: the schema, the statements of each command, and how rows become answers.
//!
//! Every replica runs these statements while applying the log, each command in one transaction, so
//! they are deterministic: no clock, no randomness, no `rowid` left to chance. They decide as
//! [`crate::job`] does; a property test below runs both side by side.
//!
//! # One effect per request id
//!
//! The first statement of a command adds a row to `requests` unless there is one. The ones that
//! follow act only while that row has no `outcome`, and the last one sets it. A command that is
//! applied a second time - a retry, or a late commit after a leader change - finds the outcome and
//! does nothing.

use std::borrow::Cow;

use hiqlite::{Param, Params, Row};

use crate::{
    command::{Answer, Change, Command, Cursor, Effect, Query},
    job::{FencingToken, Job, JobId, JobState, Refusal, UnixMillis},
};

/// A statement with its parameters.
pub(super) type Statement = (Cow<'static, str>, Params);

/// How many requests the store remembers. Counted, not timed: replicas must agree on what to forget.
const REQUESTS_KEPT: i64 = 100_000;

/// Creates what is missing. Running it again changes nothing.
pub(super) const SCHEMA: [&str; 4] = [
    "CREATE TABLE IF NOT EXISTS jobs (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        payload TEXT NOT NULL,
        state TEXT NOT NULL,
        created_at_ms INTEGER NOT NULL,
        updated_at_ms INTEGER NOT NULL,
        submitted_on INTEGER NOT NULL,
        claimed_by TEXT,
        attempts INTEGER NOT NULL
    ) STRICT",
    "CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, seq)",
    "CREATE TABLE IF NOT EXISTS requests (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        digest TEXT NOT NULL,
        verdict TEXT,
        outcome TEXT,
        job_seq INTEGER,
        state_before TEXT,
        state TEXT,
        updated_at_ms INTEGER,
        claimed_by TEXT,
        attempts INTEGER
    ) STRICT",
    "CREATE TABLE IF NOT EXISTS barriers (
        node INTEGER PRIMARY KEY,
        mark INTEGER NOT NULL
    ) STRICT",
];

/// Whether the last table of [`SCHEMA`] is on this replica; all of it comes in one transaction.
pub(super) const SCHEMA_PRESENT: &str =
    "SELECT count(*) AS number FROM sqlite_master WHERE type = 'table' AND name = 'barriers'";

/// Leaves a mark in the log that [`BARRIER_MARK`] finds again: ?1 node, ?2 mark.
pub(super) const BARRIER: &str = "INSERT INTO barriers (node, mark) VALUES (?1, ?2)
     ON CONFLICT (node) DO UPDATE SET mark = excluded.mark";

/// The latest mark of a node that this replica has applied: ?1 node.
pub(super) const BARRIER_MARK: &str = "SELECT mark AS number FROM barriers WHERE node = ?1";

/// A row with one number.
#[derive(Debug)]
pub(super) struct NumberRow(pub(super) i64);

impl TryFrom<&mut Row<'_>> for NumberRow {
    type Error = hiqlite::Error;

    fn try_from(row: &mut Row<'_>) -> Result<Self, Self::Error> {
        Ok(Self(row.try_get("number")?))
    }
}

/// The statements that apply a command.
pub(super) fn statements(command: &Command) -> Vec<Statement> {
    let request = || Param::from(&command.request.0);
    let at = || Param::from(command.at.0);
    let mut statements: Vec<Statement> = vec![(
        "INSERT INTO requests (id, digest) VALUES (?1, ?2) ON CONFLICT (id) DO NOTHING".into(),
        vec![request(), Param::from(command.change.digest())],
    )];
    match &command.change {
        Change::Submit {
            job,
            kind,
            payload,
            submitted_on,
        } => {
            statements.push((
                "INSERT INTO jobs (id, kind, payload, state, created_at_ms, updated_at_ms, submitted_on, attempts)
                 SELECT ?2, ?3, ?4, 'pending', ?5, ?5, ?6, 0 FROM requests WHERE id = ?1 AND outcome IS NULL"
                    .into(),
                vec![
                    request(),
                    Param::from(&job.0),
                    Param::from(kind),
                    Param::from(payload.to_string()),
                    at(),
                    Param::from(submitted_on.cast_signed()),
                ],
            ));
            statements.push((
                "UPDATE requests SET verdict = 'submitted', job_seq = (SELECT seq FROM jobs WHERE id = ?2)
                 WHERE id = ?1 AND outcome IS NULL"
                    .into(),
                vec![request(), Param::from(&job.0)],
            ));
        }
        Change::Claim { worker, kinds } => {
            let (filter, mut parameters) = kind_filter(kinds, 2);
            parameters.insert(0, request());
            statements.push((
                format!(
                    "UPDATE requests SET verdict = 'claimed', job_seq =
                     (SELECT seq FROM jobs WHERE state = 'pending'{filter} ORDER BY seq LIMIT 1)
                     WHERE id = ?1 AND outcome IS NULL"
                )
                .into(),
                parameters,
            ));
            statements.push((
                "UPDATE jobs SET state = 'claimed', claimed_by = ?2, attempts = attempts + 1, updated_at_ms = ?3
                 WHERE seq = (SELECT job_seq FROM requests WHERE id = ?1 AND outcome IS NULL)"
                    .into(),
                vec![request(), Param::from(worker), at()],
            ));
        }
        Change::Move { job, target, token } => {
            statements.push((
                move_verdict(*target).into(),
                vec![
                    request(),
                    Param::from(&job.0),
                    Param::from(token.map(|token| token.0)),
                ],
            ));
            statements.push((
                "UPDATE jobs SET state = ?2, updated_at_ms = ?3 WHERE seq =
                 (SELECT job_seq FROM requests WHERE id = ?1 AND outcome IS NULL AND verdict = 'moved')"
                    .into(),
                vec![request(), Param::from(target.as_str()), at()],
            ));
        }
    }
    statements.push((
        "UPDATE requests SET outcome = verdict, (state, updated_at_ms, claimed_by, attempts) =
         (SELECT state, updated_at_ms, claimed_by, attempts FROM jobs WHERE jobs.seq = requests.job_seq)
         WHERE id = ?1 AND outcome IS NULL"
            .into(),
        vec![request()],
    ));
    statements.push((
        "DELETE FROM requests WHERE seq <= (SELECT max(seq) FROM requests) - ?1".into(),
        vec![Param::from(REQUESTS_KEPT)],
    ));
    statements
}

/// ` AND kind IN (?2, ?3)` and its parameters; nothing for no kinds.
fn kind_filter(kinds: &[String], first: usize) -> (String, Params) {
    if kinds.is_empty() {
        return (String::new(), Vec::new());
    }
    let places: Vec<String> = (first..first + kinds.len())
        .map(|place| format!("?{place}"))
        .collect();
    (
        format!(" AND kind IN ({})", places.join(", ")),
        kinds.iter().map(Param::from).collect(),
    )
}

/// [`Job::move_to`] as one statement: ?1 request, ?2 job, ?3 token.
fn move_verdict(target: JobState) -> String {
    let words = |wanted: &dyn Fn(JobState) -> bool| -> String {
        let words: Vec<String> = JobState::ALL
            .into_iter()
            .filter(|state| wanted(*state))
            .map(|state| format!("'{state}'"))
            .collect();
        words.join(", ")
    };
    let held = words(&|state| state.is_held());
    let sources = words(&|state| state.successors().contains(&target));
    format!(
        "UPDATE requests SET (job_seq, state_before) = (SELECT seq, state FROM jobs WHERE id = ?2),
         verdict = coalesce((SELECT CASE
            WHEN state IN ({held}) AND ?3 IS NULL THEN 'token_missing'
            WHEN state IN ({held}) AND attempts <> ?3 THEN 'token_stale'
            WHEN state NOT IN ({sources}) THEN 'illegal_transition'
            ELSE 'moved' END
         FROM jobs WHERE id = ?2), 'unknown_job')
         WHERE id = ?1 AND outcome IS NULL"
    )
}

/// Reads what became of a request: ?1 request.
pub(super) const OUTCOME: &str =
    "SELECT requests.digest AS digest, requests.outcome AS outcome, requests.state_before AS state_before,
            requests.state AS state, requests.updated_at_ms AS updated_at_ms,
            requests.claimed_by AS claimed_by, requests.attempts AS attempts,
            jobs.seq AS seq, jobs.id AS id, jobs.kind AS kind, jobs.payload AS payload,
            jobs.created_at_ms AS created_at_ms, jobs.submitted_on AS submitted_on
     FROM requests LEFT JOIN jobs ON jobs.seq = requests.job_seq WHERE requests.id = ?1";

/// A row of [`OUTCOME`].
#[derive(Debug)]
pub(super) struct OutcomeRow {
    digest: String,
    outcome: String,
    state_before: Option<String>,
    job: Option<JobRow>,
}

impl TryFrom<&mut Row<'_>> for OutcomeRow {
    type Error = hiqlite::Error;

    fn try_from(row: &mut Row<'_>) -> Result<Self, Self::Error> {
        let has_job = row.try_get::<Option<i64>>("seq")?.is_some();
        Ok(Self {
            digest: row.try_get("digest")?,
            outcome: row.try_get("outcome")?,
            state_before: row.try_get("state_before")?,
            job: if has_job {
                Some(JobRow::try_from(row)?)
            } else {
                None
            },
        })
    }
}

impl OutcomeRow {
    /// What the store did with `command`, given the row that its request id leads to.
    pub(super) fn interpret(self, command: &Command) -> Result<Result<Effect, Refusal>, String> {
        if self.digest != command.change.digest() {
            return Ok(Err(Refusal::KeyReused));
        }
        let before = self.state_before.as_deref().and_then(JobState::parse);
        let outcome = self.outcome.as_str();
        let undefined = || {
            format!(
                "request {:?} has the undefined outcome {outcome:?}",
                command.request.0
            )
        };
        match (&command.change, outcome, self.job, before) {
            (Change::Submit { .. }, "submitted", Some(row), _) => {
                Ok(Ok(Effect::Submitted { job: row.job }))
            }
            (Change::Claim { .. }, "claimed", None, _) => Ok(Ok(Effect::Claimed { claim: None })),
            (Change::Claim { .. }, "claimed", Some(row), _) => {
                let token = FencingToken(row.job.attempts);
                Ok(Ok(Effect::Claimed {
                    claim: Some((row.job, token)),
                }))
            }
            (Change::Move { .. }, "moved", Some(row), _) => Ok(Ok(Effect::Moved { job: row.job })),
            (Change::Move { job, .. }, "unknown_job", _, _) => {
                Ok(Err(Refusal::UnknownJob { job: job.clone() }))
            }
            (Change::Move { .. }, "token_missing", _, Some(state)) => {
                Ok(Err(Refusal::TokenMissing { state }))
            }
            (
                Change::Move {
                    token: Some(given), ..
                },
                "token_stale",
                _,
                _,
            ) => Ok(Err(Refusal::TokenStale { given: *given })),
            (Change::Move { target, .. }, "illegal_transition", _, Some(from)) => {
                Ok(Err(Refusal::IllegalTransition { from, to: *target }))
            }
            _ => Err(undefined()),
        }
    }
}

/// A job with its place in the queue.
#[derive(Debug)]
pub(super) struct JobRow {
    seq: i64,
    job: Job,
}

impl TryFrom<&mut Row<'_>> for JobRow {
    type Error = hiqlite::Error;

    fn try_from(row: &mut Row<'_>) -> Result<Self, Self::Error> {
        let odd = |what: String| hiqlite::Error::Sqlite(what.into());
        let payload: String = row.try_get("payload")?;
        let state: String = row.try_get("state")?;
        let job = Job {
            id: JobId(row.try_get("id")?),
            kind: row.try_get("kind")?,
            payload: serde_json::from_str(&payload)
                .map_err(|error| odd(format!("a job's payload is not JSON: {error}")))?,
            state: JobState::parse(&state)
                .ok_or_else(|| odd(format!("undefined job state {state:?}")))?,
            created_at_ms: UnixMillis(row.try_get("created_at_ms")?),
            updated_at_ms: UnixMillis(row.try_get("updated_at_ms")?),
            submitted_on: row.try_get::<i64>("submitted_on")?.cast_unsigned(),
            claimed_by: row.try_get("claimed_by")?,
            attempts: row.try_get("attempts")?,
        };
        Ok(Self {
            seq: row.try_get("seq")?,
            job,
        })
    }
}

/// A row of the statistics.
#[derive(Debug)]
pub(super) struct CountRow {
    state: String,
    count: i64,
}

impl TryFrom<&mut Row<'_>> for CountRow {
    type Error = hiqlite::Error;

    fn try_from(row: &mut Row<'_>) -> Result<Self, Self::Error> {
        Ok(Self {
            state: row.try_get("state")?,
            count: row.try_get("count")?,
        })
    }
}

/// The statement that answers a query for jobs, or nothing if the query is for statistics.
pub(super) fn job_query(query: &Query) -> Option<Statement> {
    match query {
        Query::Job { job } => Some((
            "SELECT * FROM jobs WHERE id = ?1".into(),
            vec![Param::from(&job.0)],
        )),
        Query::List {
            after,
            limit,
            state,
        } => {
            let after = Param::from(after.map_or(0, |cursor| cursor.0));
            // One more than asked for tells whether there is a next page.
            let limit = Param::from(i64::from(*limit) + 1);
            Some(match state {
                None => (
                    "SELECT * FROM jobs WHERE seq > ?1 ORDER BY seq LIMIT ?2".into(),
                    vec![after, limit],
                ),
                Some(state) => (
                    "SELECT * FROM jobs WHERE seq > ?1 AND state = ?3 ORDER BY seq LIMIT ?2".into(),
                    vec![after, limit, Param::from(state.as_str())],
                ),
            })
        }
        Query::Latest { limit } => Some((
            "SELECT * FROM jobs ORDER BY seq DESC LIMIT ?1".into(),
            vec![Param::from(*limit)],
        )),
        Query::Stats => None,
    }
}

/// Counts the jobs in each state that has any.
pub(super) const STATS: &str = "SELECT state, count(*) AS count FROM jobs GROUP BY state";

/// Turns the rows of [`job_query`] into the answer.
pub(super) fn job_answer(query: &Query, mut rows: Vec<JobRow>) -> Answer {
    match query {
        Query::Job { .. } => Answer::Job {
            job: rows.pop().map(|row| row.job),
        },
        Query::List { limit, .. } => {
            let more = rows.len() > *limit as usize;
            rows.truncate(*limit as usize);
            let next = rows.last().map(|row| Cursor(row.seq)).filter(|_| more);
            Answer::Jobs {
                jobs: rows.into_iter().map(|row| row.job).collect(),
                next,
            }
        }
        Query::Latest { .. } | Query::Stats => Answer::Jobs {
            jobs: rows.into_iter().map(|row| row.job).collect(),
            next: None,
        },
    }
}

/// Turns the rows of [`STATS`] into the answer.
pub(super) fn stats_answer(rows: &[CountRow]) -> Answer {
    let count = |state: JobState| {
        rows.iter()
            .find(|row| row.state == state.as_str())
            .map_or(0, |row| row.count.cast_unsigned())
    };
    Answer::Stats {
        counts: JobState::ALL.map(|state| (state, count(state))).into(),
    }
}

#[cfg(test)]
mod tests {
    use hiqlite::rusqlite::{self, Connection, types::Value};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        command::{Proposal, RequestId},
        store::{Deadline, MemoryStore, Store},
    };

    fn value(parameter: &Param) -> Value {
        match parameter {
            Param::Null => Value::Null,
            Param::Integer(number) => Value::Integer(*number),
            Param::Real(number) => Value::Real(*number),
            Param::Text(text) => Value::Text(text.clone()),
            Param::Blob(bytes) => Value::Blob(bytes.clone()),
            Param::StmtOutputIndexed(..) | Param::StmtOutputNamed(..) => {
                unreachable!("not used here")
            }
        }
    }

    fn database() -> Connection {
        let database = Connection::open_in_memory().unwrap();
        for statement in SCHEMA {
            database.execute(statement, []).unwrap();
        }
        database
    }

    fn rows<T>(database: &Connection, (sql, parameters): Statement) -> Vec<T>
    where
        T: for<'a, 'r> TryFrom<&'a mut Row<'r>, Error = hiqlite::Error>,
    {
        let mut statement = database.prepare(&sql).unwrap();
        let mut rows = statement
            .query(rusqlite::params_from_iter(parameters.iter().map(value)))
            .unwrap();
        let mut read = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            read.push(T::try_from(&mut Row::Borrowed(row)).unwrap());
        }
        read
    }

    /// Applies a command as hiqlite's writer does: all its statements in one transaction.
    fn apply(database: &mut Connection, command: &Command) -> Proposal {
        let transaction = database.transaction().unwrap();
        for (sql, parameters) in statements(command) {
            let mut statement = transaction.prepare(&sql).unwrap();
            assert_eq!(statement.parameter_count(), parameters.len(), "{sql}");
            statement
                .execute(rusqlite::params_from_iter(parameters.iter().map(value)))
                .unwrap();
        }
        transaction.commit().unwrap();
        let mut found: Vec<OutcomeRow> = rows(
            database,
            (OUTCOME.into(), vec![Param::from(&command.request.0)]),
        );
        match found.pop().unwrap().interpret(command).unwrap() {
            Ok(effect) => Proposal::Committed { effect },
            Err(refusal) => Proposal::Rejected { refusal },
        }
    }

    fn read(database: &Connection, query: &Query) -> Answer {
        match job_query(query) {
            Some(statement) => job_answer(query, rows(database, statement)),
            None => stats_answer(&rows(database, (STATS.into(), vec![]))),
        }
    }

    /// Commands over few jobs, kinds and request ids, so that they meet often.
    fn command() -> impl Strategy<Value = Command> {
        let kind = prop_oneof![Just("fetch".to_owned()), Just("build".to_owned())];
        let change = prop_oneof![
            (0..1_000_000_u32, kind.clone()).prop_map(|(number, kind)| Change::Submit {
                job: JobId(format!("job{number}")),
                kind,
                payload: serde_json::json!({ "url": "http://x/'\"\u{1F600}" }),
                submitted_on: 2,
            }),
            (0..2_u8, proptest::collection::vec(kind, 0..3)).prop_map(|(worker, kinds)| {
                Change::Claim {
                    worker: format!("w{worker}"),
                    kinds,
                }
            }),
            (0..6_usize, 0..6_usize, proptest::option::of(1..3_i64)).prop_map(
                |(job, state, token)| {
                    Change::Move {
                        job: JobId(job.to_string()),
                        target: JobState::ALL[state],
                        token: token.map(FencingToken),
                    }
                }
            ),
        ];
        (0..40_u32, 1..1000_i64, change).prop_map(|(request, at, change)| Command {
            request: RequestId(request.to_string()),
            at: UnixMillis(at),
            change,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Any sequence of commands, repeats included, has the same answers and leaves the same
        /// queue in SQL as in the pure core.
        #[test]
        fn sql_and_core_agree(commands in proptest::collection::vec(command(), 1..60)) {
            let mut database = database();
            let memory = MemoryStore::new();
            let mut submitted: Vec<JobId> = Vec::new();
            let mut ids = std::collections::HashSet::new();
            for mut command in commands {
                match &mut command.change {
                    // A job id is made once; the strategy may draw it twice.
                    Change::Submit { job, .. } => {
                        if !ids.insert(job.clone()) { continue }
                        submitted.push(job.clone());
                    }
                    // The strategy draws places; turn them into ids of jobs, or of none.
                    Change::Move { job, .. } => {
                        let place: usize = job.0.parse().unwrap();
                        if let Some(known) = submitted.get(place) { *job = known.clone() }
                    }
                    Change::Claim { .. } => {}
                }
                prop_assert_eq!(apply(&mut database, &command), memory.apply(&command), "{:?}", command);
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let cursor = Some(Cursor(2));
            let state = Some(JobState::Pending);
            for query in [
                Query::Stats,
                Query::Latest { limit: 3 },
                Query::List { after: None, limit: 2, state: None },
                Query::List { after: cursor, limit: 100, state },
            ] {
                let barrier = crate::command::Barrier::Local;
                let reading = runtime.block_on(memory.read(barrier, query.clone(), Deadline::starting_now()));
                let crate::command::Reading::Done { answer, .. } = reading else { panic!("{reading:?}") };
                prop_assert_eq!(read(&database, &query), answer);
            }
        }
    }

    #[test]
    fn old_requests_are_forgotten_by_count() {
        let mut database = database();
        let claim = |request: i64| Command {
            request: RequestId(request.to_string()),
            at: UnixMillis(1),
            change: Change::Claim {
                worker: "w".into(),
                kinds: vec![],
            },
        };
        apply(&mut database, &claim(1));
        apply(&mut database, &claim(2));
        // Ages the first one: it is now exactly out of reach of the third.
        database
            .execute(
                "UPDATE requests SET seq = 3 - ?1 WHERE id = '1'",
                [REQUESTS_KEPT],
            )
            .unwrap();
        apply(&mut database, &claim(3));
        let count = |database: &Connection| -> i64 {
            database
                .query_row("SELECT count(*) FROM requests", [], |row| row.get(0))
                .unwrap()
        };
        assert_eq!(count(&database), 2);
    }
}
