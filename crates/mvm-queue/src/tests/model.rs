//! The pure core and real SQLite do the same: random commands, single and in batches, repeated and not, have the same
//! outcomes and leave the same queue.

use proptest::prelude::*;
use rand_pcg::{
    Pcg64Mcg,
    rand_core::{Rng, SeedableRng},
};

use super::{
    database::Database,
    draw::{Draw, Drawer},
};
use crate::{
    command::Command,
    effect::Effect,
    id::FencingToken,
    job::JobState,
    query::{Answer, Cursor, Filter, KeeperFact, Order, Query},
    queue::{Outcome, Queue},
};

/// What can be read of a queue, in one form for both; `whole` adds what belongs to single jobs.
fn visible(whole: bool, answer: impl Fn(&Query) -> Answer) -> Vec<Answer> {
    let list = |order, filter| Query::List {
        after: None,
        limit: 500,
        order,
        filter,
    };
    let all = answer(&list(Order::OldestFirst, Filter::default()));
    let Answer::Jobs { jobs, .. } = &all else {
        panic!("{all:?}");
    };
    let mut seen = Vec::new();
    for job in jobs.iter().filter(|_| whole) {
        seen.push(answer(&Query::Job {
            job: job.id.clone(),
        }));
        seen.push(answer(&Query::Attempts {
            job: job.id.clone(),
        }));
        seen.push(answer(&Query::Execution {
            job: job.id.clone(),
        }));
        for from in [0, 1] {
            seen.push(answer(&Query::Frames {
                job: job.id.clone(),
                from,
                bytes_max: 3,
            }));
        }
        seen.push(answer(&Query::Inbox {
            job: job.id.clone(),
            beyond: 1,
            limit: 3,
        }));
        for token in 0..=job.token.0 {
            seen.push(answer(&Query::Log {
                job: job.id.clone(),
                token: FencingToken(token),
                from: 1,
                limit: 2,
            }));
        }
    }
    seen.push(all);
    seen.push(answer(&Query::Stats));
    seen.push(answer(&Query::Schedules));
    seen.push(answer(&Query::Modules));
    seen.push(answer(&Query::Module {
        name: "m1".into(),
        version: "0".into(),
    }));
    for (hash, number) in [("h0", 0), ("h1", 1), ("h2", 2)] {
        let hash = hash.into();
        seen.push(answer(&Query::Chunk { hash, number }));
    }
    for (labels, kinds) in [
        (vec!["gpu"], vec![]),
        (vec!["arm", "gpu"], vec!["k1", "flow"]),
        (vec![], vec!["k0", "k1"]),
    ] {
        let words = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect();
        seen.push(answer(&Query::Ready {
            labels: words(labels),
            kinds: words(kinds),
        }));
    }
    let Answer::Keeper { mut facts } = answer(&Query::Keeper) else {
        panic!("no facts");
    };
    facts.sort_by_key(|fact: &KeeperFact| serde_json::to_string(fact).unwrap());
    seen.push(Answer::Keeper { facts });
    for filter in [
        Filter {
            state: Some(JobState::Pending),
            ..Filter::default()
        },
        Filter {
            label: Some("gpu".into()),
            ..Filter::default()
        },
        Filter {
            claimed_on: Some(1),
            state: Some(JobState::Completed),
            ..Filter::default()
        },
    ] {
        for (after, order) in [
            (None, Order::NewestFirst),
            (Some(Cursor(2)), Order::OldestFirst),
            (Some(Cursor(9)), Order::NewestFirst),
        ] {
            seen.push(answer(&Query::List {
                after,
                limit: 2,
                order,
                filter: filter.clone(),
            }));
        }
    }
    seen
}

/// What the triggers keep agrees with what it is kept about.
pub(super) fn consistent(database: &Database) {
    for (what, sql) in [
        ("a lane's counts", "SELECT count(*) FROM lanes WHERE
            ready <> (SELECT count(*) FROM jobs WHERE lane = lanes.id AND waits_for = 'worker') OR
            unfinished <> (SELECT count(*) FROM jobs WHERE lane = lanes.id AND finished_at_ms IS NULL) OR
            unfinished = 0"),
        ("a key's counts", "SELECT count(*) FROM keys WHERE
            held <> (SELECT count(*) FROM jobs WHERE concurrency_key = key AND state IN ('claimed', 'in_progress')) OR
            unfinished <> (SELECT count(*) FROM jobs WHERE concurrency_key = key AND finished_at_ms IS NULL) OR
            unfinished = 0"),
        ("a job's lane or key", "SELECT count(*) FROM jobs WHERE finished_at_ms IS NULL AND (
            NOT EXISTS (SELECT 1 FROM lanes WHERE id = lane AND lanes.kind = jobs.kind AND lanes.labels = jobs.labels)
            OR (concurrency_key IS NOT NULL AND NOT EXISTS (SELECT 1 FROM keys WHERE key = concurrency_key)))"),
        ("an execution's counts", "SELECT count(*) FROM executions WHERE
            frames <> (SELECT count(*) FROM frames WHERE frames.job_seq = executions.job_seq) OR
            bytes <> (SELECT coalesce(sum(length(bytes)), 0) FROM frames WHERE frames.job_seq = executions.job_seq) OR
            messages <> (SELECT count(*) FROM messages WHERE messages.job_seq = executions.job_seq) OR
            message_bytes <> (SELECT coalesce(sum(bytes), 0) FROM messages WHERE messages.job_seq = executions.job_seq)"),
        ("whose an execution, a frame or a message is", "SELECT count(*) FROM (
            SELECT job_seq FROM executions EXCEPT SELECT seq FROM jobs WHERE kind = 'flow'
            UNION ALL SELECT seq FROM jobs WHERE kind = 'flow' EXCEPT SELECT job_seq FROM executions
            UNION ALL SELECT job_seq FROM messages EXCEPT SELECT job_seq FROM executions
            UNION ALL SELECT job_seq FROM frames EXCEPT SELECT job_seq FROM executions EXCEPT SELECT job_seq FROM leftovers)"),
        ("whose a chunk is", "SELECT count(*) FROM (
            SELECT hash FROM chunks EXCEPT SELECT hash FROM modules EXCEPT SELECT hash FROM strays)"),
        ("who must be told", "SELECT count(*) FROM (SELECT DISTINCT on_seq FROM dependencies JOIN jobs ON seq = on_seq
            WHERE finished_at_ms IS NOT NULL EXCEPT SELECT on_seq FROM settling)"),
    ] {
        let wrong: i64 = database.0.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(wrong, 0, "{what}");
    }
}

fn forget_removed(outcome: &mut Outcome, queue: &Queue) {
    match outcome {
        Ok(Effect::Claimed { claims }) => {
            claims.retain(|claim| queue.job(&claim.job).is_some());
        }
        Ok(Effect::All { outcomes }) => {
            for outcome in outcomes {
                forget_removed(outcome, queue);
            }
        }
        _ => {}
    }
}

/// Runs commands through both; says where they differ first.
pub(super) fn compare(draws: &[Draw], database: &mut Database) -> Result<(), String> {
    let mut queue = Queue::new();
    let mut drawer = Drawer::default();
    let mut rest = draws;
    while let Some(first) = rest.first() {
        let (batch, later) = rest.split_at(rest.len().min(1 + usize::from(first[6] % 5)));
        rest = later;
        let mut commands: Vec<Command> = Vec::new();
        let mut expected = Vec::new();
        for draw in batch {
            let command = drawer.command(*draw, &queue);
            expected.push(queue.apply(&command));
            commands.push(command);
        }
        // Answers are put together after the batch, when an old claim's job may have been removed.
        for outcome in &mut expected {
            forget_removed(outcome, &queue);
        }
        let found = database
            .try_apply(&commands)
            .map_err(|error| format!("{commands:?}\n sql: {error}"))?;
        for ((command, expected), found) in commands.iter().zip(&expected).zip(&found) {
            if expected != found {
                return Err(format!("{command:?}\ncore: {expected:?}\n sql: {found:?}"));
            }
        }
        let whole = rest.is_empty();
        let core = visible(whole, |query| queue.answer(query));
        let sql = visible(whole, |query| database.answer(query));
        if let Some((core, sql)) = core.iter().zip(&sql).find(|(core, sql)| core != sql) {
            return Err(format!("after {commands:?}\ncore: {core:?}\n sql: {sql:?}"));
        }
        consistent(database);
    }
    Ok(())
}

/// Draws for commands out of a seed.
pub(super) fn draws(seed: u64, count: usize) -> Vec<Draw> {
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    let mut draw = || (random.next_u32() >> 16) as u16;
    (0..count)
        .map(|_| std::array::from_fn(|_| draw()))
        .collect()
}

#[test]
fn sql_and_core_agree_over_many_seeds() {
    for seed in 0..80 {
        if let Err(difference) = compare(&draws(seed, 80), &mut Database::new()) {
            panic!("seed {seed}: {difference}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40, max_shrink_time: 20_000, failure_persistence: None, ..ProptestConfig::default()
    })]

    /// The same with sequences that can be made smaller.
    #[test]
    fn sql_and_core_agree(draws in proptest::collection::vec(any::<Draw>(), 1..60)) {
        if let Err(difference) = compare(&draws, &mut Database::new()) {
            return Err(TestCaseError::fail(difference));
        }
    }
}
