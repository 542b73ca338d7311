//! What a claim costs in queues of 1 k and 100 k jobs, with `--large` also of 1 M, and what else must not depend on that
//! number.
//!
//! With a million it takes ten minutes, most of it to fill the queues. Prints one line of JSON per measurement: the median of
//! single transactions on a database file with hiqlite's settings, in microseconds, and its ratio to the same in the
//! shortest queue. The goal is a ratio of at most 1.5. `cargo xtask bench queue` prints it beside what nodes reach.
//!
//! - `same lane`: all jobs fit the worker, a third of them from its own node.
//! - `not for this worker`: so many jobs of higher priority, and older, are before those it may take.
//! - `lanes`: the jobs are in 50 pairs of kind and labels, half of which the worker may take.
//! - `one key`: the jobs have one concurrency key with limit 1; each claim's end, which lets the next job in, beside it.
//! - `blocked`: so many jobs wait for a time to come.
//! - `whole life`: a job's share of submit, claim, start and finish, in transactions of 64 such commands.
//! - `submit`, `page`, `page by label`, `stats`: beside the `lanes` case.

// The lines are this program's output, and a measurement that cannot be made ends it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    missing_docs
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use mvm_queue::{
    Change, Command, Effect, Filter, JobId, JobSpec, Order, Query, Report, RequestId, UnixMillis,
    sql::{self, Statement, Value},
};
use rusqlite::{Connection, types::Value as Sqlite};
use serde_json::json;

const SIZES: [u64; 3] = [1_000, 100_000, 1_000_000];
const ROUNDS: u64 = 300;
/// How much more anything may cost than in the shortest queue.
const RATIO_MAX: f64 = 1.5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = |flag: &str| arguments.iter().any(|argument| argument == flag);
    // `cargo test --benches` is to say that it starts.
    let sizes = match (given("--bench"), given("--large")) {
        (false, _) => &SIZES[..1],
        (true, false) => &SIZES[..2],
        (true, true) => &SIZES[..],
    };
    let mut base: BTreeMap<&'static str, f64> = BTreeMap::new();
    for size in sizes {
        for (case, micros) in measure(*size) {
            let name = format!("in SQLite alone, {case}, {size} jobs");
            println!("{}", json!({ "name": name, "unit": "us", "value": micros }));
            if let Some(base) = base.get(case) {
                let (name, ratio) = (format!("{name}, to {}", SIZES[0]), micros / base);
                println!(
                    "{}",
                    json!({ "name": name, "unit": "x", "value": ratio, "at_most": RATIO_MAX })
                );
            }
            base.entry(case).or_insert(micros);
        }
    }
}

fn measure(size: u64) -> Vec<(&'static str, f64)> {
    let mut lines = Vec::new();

    let mut queue = Queue::new();
    queue.fill(size, "k", "'[]'", "0", "NULL", "NULL");
    lines.push(("same lane", queue.claims(&["k"], &[])));

    let mut queue = Queue::new();
    queue.fill(size, "k", "'[\"gpu\"]'", "9", "NULL", "NULL");
    queue.fill(2 * ROUNDS, "k", "'[]'", "0", "NULL", "NULL");
    lines.push(("not for this worker", queue.claims(&["k"], &["arm"])));

    let mut queue = Queue::new();
    queue.fill(
        size,
        "k",
        "'[\"l' || (i % 50) || '\"]'",
        "i % 3",
        "NULL",
        "NULL",
    );
    let labels: Vec<String> = (0..25).map(|label| format!("l{}", label * 2)).collect();
    let labels: Vec<&str> = labels.iter().map(|label| &**label).collect();
    lines.push(("lanes", queue.claims(&[], &labels)));
    lines.push(("submit", queue.submits()));
    lines.push(("whole life", queue.lives()));
    let list = |filter| Query::List {
        after: None,
        limit: 100,
        order: Order::NewestFirst,
        filter,
    };
    lines.push(("page", queue.reads(&list(Filter::default()))));
    let label = Some("l7".into());
    lines.push((
        "page by label",
        queue.reads(&list(Filter {
            label,
            ..Filter::default()
        })),
    ));
    lines.push(("stats", queue.reads(&Query::Stats)));

    let mut queue = Queue::new();
    queue.fill(size, "k", "'[]'", "i % 3", "NULL", "'deploy'");
    let (claim, end) = queue.claims_and_ends();
    lines.push(("one key", claim));
    lines.push(("one key, end", end));

    let mut queue = Queue::new();
    queue.fill(size, "k", "'[]'", "9", "i", "NULL");
    queue.fill(2 * ROUNDS, "k", "'[]'", "0", "NULL", "NULL");
    lines.push(("blocked", queue.claims(&["k"], &[])));
    lines
}

struct Queue {
    database: Connection,
    requests: u64,
    _folder: tempfile::TempDir,
}

impl Queue {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Connection::open(folder.path().join("queue.db")).unwrap();
        // As hiqlite sets them: what is on disk for ever is its log, not this file.
        database.pragma_update(None, "journal_mode", "WAL").unwrap();
        database.pragma_update(None, "synchronous", "OFF").unwrap();
        database
            .pragma_update(None, "wal_autocheckpoint", 4_000)
            .unwrap();
        // As the node sets it, by other means: undoing a statement takes no temporary file.
        database
            .pragma_update(None, "temp_store", "MEMORY")
            .unwrap();
        database.set_prepared_statement_cache_capacity(1024);
        let mut queue = Self {
            database,
            requests: 0,
            _folder: folder,
        };
        queue.transact(&sql::upgrade(0));
        queue
    }

    /// Submits jobs by the same procedure as single ones, in one statement. The last four are SQL over the number `i`.
    fn fill(
        &mut self,
        count: u64,
        kind: &str,
        labels: &str,
        priority: &str,
        run_after: &str,
        key: &str,
    ) {
        let name = self.requests;
        self.requests += 1;
        let sql = format!(
            "WITH RECURSIVE number(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM number WHERE i < {count})
             INSERT INTO call_submit SELECT 'fill{name}-' || i, 'digest', 1, 'fill{name}-' || i, i % 3,
                json_object('kind', '{kind}', 'payload', json_object('url', 'http://example.org/' || i)), 'digest', '{kind}',
                {labels}, {priority}, {run_after}, 1, 3, '{{\"base_ms\":1,\"max_ms\":1}}', NULL, {key}, 1, '[]', 'cancel',
                NULL, NULL, NULL, NULL, NULL FROM number"
        );
        self.database.execute(&sql, []).unwrap();
        self.database
            .execute_batch("PRAGMA wal_checkpoint(PASSIVE)")
            .unwrap();
    }

    fn transact(&mut self, statements: &[Statement]) {
        let transaction = self.database.transaction().unwrap();
        for statement in statements {
            let mut prepared = transaction.prepare_cached(&statement.sql).unwrap();
            prepared
                .execute(rusqlite::params_from_iter(
                    statement.parameters.iter().map(value),
                ))
                .unwrap();
        }
        transaction.commit().unwrap();
    }

    fn command(&mut self, change: Change) -> Command {
        self.requests += 1;
        Command {
            request: RequestId(format!("r{}", self.requests)),
            at: UnixMillis(7),
            change,
        }
    }

    fn outcome(&self, command: &Command) -> Effect {
        let commands = std::slice::from_ref(command);
        let rows = self.rows(&sql::outcomes(commands));
        let outcomes = sql::interpret(commands, rows).unwrap();
        outcomes.into_iter().next().unwrap().unwrap().unwrap()
    }

    fn rows(&self, statement: &Statement) -> Vec<String> {
        let mut prepared = self.database.prepare_cached(&statement.sql).unwrap();
        let parameters = rusqlite::params_from_iter(statement.parameters.iter().map(value));
        prepared
            .query_map(parameters, |row| row.get("row"))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    fn timed(&mut self, command: &Command) -> f64 {
        let statements = sql::statements(std::slice::from_ref(command));
        let start = Instant::now();
        self.transact(&statements);
        start.elapsed().as_secs_f64() * 1e6
    }

    fn claim(&mut self, kinds: &[&str], labels: &[&str]) -> Command {
        let words = |words: &[&str]| {
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<BTreeSet<_>>()
        };
        self.command(Change::Claim {
            node: 1,
            worker: "w".into(),
            slots: 1,
            labels: words(labels),
            kinds: words(kinds),
        })
    }

    fn claims(&mut self, kinds: &[&str], labels: &[&str]) -> f64 {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let command = self.claim(kinds, labels);
            times.push(self.timed(&command));
            let Effect::Claimed { claims } = self.outcome(&command) else {
                panic!("{command:?}")
            };
            assert_eq!(claims.len(), 1, "a claim found nothing");
        }
        median(times)
    }

    fn claims_and_ends(&mut self) -> (f64, f64) {
        let mut claims_took = Vec::new();
        let mut ends_took = Vec::new();
        for _ in 0..ROUNDS {
            let command = self.claim(&[], &[]);
            claims_took.push(self.timed(&command));
            let Effect::Claimed { claims } = self.outcome(&command) else {
                panic!("{command:?}")
            };
            let report = Report::Failed {
                error: "no".into(),
                permanent: true,
            };
            let (job, token) = (claims[0].job.clone(), claims[0].token);
            let command = self.command(Change::Finish { job, token, report });
            ends_took.push(self.timed(&command));
        }
        (median(claims_took), median(ends_took))
    }

    fn submits(&mut self) -> f64 {
        let mut times = Vec::new();
        for number in 0..ROUNDS {
            let spec = JobSpec::new("k", serde_json::json!({ "url": "http://example.org/" }));
            let command = self.command(Change::Submit {
                job: JobId(format!("new{number}")),
                submitted_on: 1,
                spec: Box::new(spec),
                tick: None,
            });
            times.push(self.timed(&command));
        }
        median(times)
    }

    fn lives(&mut self) -> f64 {
        let mut times = Vec::new();
        for round in 0..ROUNDS / 10 {
            let mut spec =
                JobSpec::new("life", serde_json::json!({ "url": "http://example.org/" }));
            spec.priority = 99;
            let submits = (0..64)
                .map(|number| Change::Submit {
                    job: JobId(format!("life{round}-{number}")),
                    submitted_on: 1,
                    spec: Box::new(spec.clone()),
                    tick: None,
                })
                .collect();
            let (mut time, _) = self.batch(submits);
            let claim = Change::Claim {
                node: 1,
                worker: "w".into(),
                slots: 4,
                labels: BTreeSet::new(),
                kinds: ["life".to_owned()].into(),
            };
            let (took, effects) = self.batch(vec![claim; 16]);
            time += took;
            let claims: Vec<_> = effects
                .into_iter()
                .flat_map(|effect| match effect {
                    Effect::Claimed { claims } => claims,
                    other => panic!("{other:?}"),
                })
                .map(|claim| (claim.job, claim.token))
                .collect();
            assert_eq!(claims.len(), 64);
            let start = |(job, token)| Change::Start { job, token };
            time += self.batch(claims.iter().cloned().map(start).collect()).0;
            let finish = |(job, token)| Change::Finish {
                job,
                token,
                report: Report::Succeeded {
                    result: serde_json::Value::Null,
                },
            };
            time += self.batch(claims.into_iter().map(finish).collect()).0;
            times.push(time / 64.0);
        }
        median(times)
    }

    /// One transaction: how long it and the reading of its outcomes took, and what they are.
    fn batch(&mut self, changes: Vec<Change>) -> (f64, Vec<Effect>) {
        let commands: Vec<Command> = changes
            .into_iter()
            .map(|change| self.command(change))
            .collect();
        let start = Instant::now();
        self.transact(&sql::statements(&commands));
        let rows = self.rows(&sql::outcomes(&commands));
        let outcomes = sql::interpret(&commands, rows).unwrap();
        let took = start.elapsed().as_secs_f64() * 1e6;
        (
            took,
            outcomes
                .into_iter()
                .map(|outcome| outcome.unwrap().unwrap())
                .collect(),
        )
    }

    fn reads(&self, query: &Query) -> f64 {
        let statement = sql::select(query);
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let rows = self.rows(&statement);
            times.push(start.elapsed().as_secs_f64() * 1e6);
            assert!(!rows.is_empty());
        }
        median(times)
    }
}

fn value(value: &Value) -> Sqlite {
    match value {
        Value::Null => Sqlite::Null,
        Value::Integer(number) => Sqlite::Integer(*number),
        Value::Text(text) => Sqlite::Text(text.clone()),
        Value::Blob(bytes) => Sqlite::Blob(bytes.clone()),
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2] * 10.0).round() / 10.0
}
