//! At the limits: the largest commands, logs, the number of lanes, and what is forgotten.

use super::both::Both;
use crate::{
    COMMAND_BYTES_MAX,
    backoff::Backoff,
    command::{Change, Command, Report, Stream, Tick},
    effect::Effect,
    id::{FencingToken, JobId, RequestId, UnixMillis},
    job::{Concurrency, JobSpec},
    limits::*,
    query::{Answer, Query},
    refusal::Refusal,
    sql,
};

fn plain() -> JobSpec {
    JobSpec::new("k", serde_json::Value::Null)
}

#[test]
fn the_largest_commands_stay_within_their_bound() {
    let long = |byte: &str, number: usize| format!("{number:03}{}", byte.repeat(KEY_BYTES_MAX - 3));
    let mut spec = JobSpec::new(long("k", 0), "x".repeat(PAYLOAD_BYTES_MAX - 2).into());
    spec.labels = (0..LABELS_MAX).map(|number| long("l", number)).collect();
    spec.dependencies = (0..DEPENDENCIES_MAX)
        .map(|number| JobId(long("d", number)))
        .collect();
    spec.concurrency = Some(Concurrency {
        key: long("\"", 0),
        limit: CONCURRENCY_MAX,
    });
    spec.idempotency_key = Some(long("\\", 0));
    spec.backoff = Backoff {
        base_ms: PAUSE_MS_MAX,
        max_ms: PAUSE_MS_MAX,
    };
    spec.validate().unwrap();
    let report = Report::Succeeded {
        result: "x".repeat(RESULT_BYTES_MAX - 2).into(),
    };
    report.validate().unwrap();
    let (job, token) = (JobId(long("j", 0)), FencingToken(i64::MAX));
    let tick = Tick {
        schedule: long("s", 0),
        revision: i64::MAX,
        tick_ms: UnixMillis(i64::MAX),
        next_ms: UnixMillis(i64::MAX),
    };
    let largest = [
        Change::Submit {
            job: job.clone(),
            submitted_on: u64::MAX,
            spec: Box::new(spec.clone()),
            tick: Some(tick),
        },
        Change::SetSchedule {
            name: long("s", 0),
            cron: "x".repeat(256),
            missed: crate::cron::Missed::Once,
            spec: Box::new(spec.clone()),
            next_ms: UnixMillis(i64::MAX),
        },
        Change::Finish {
            job: job.clone(),
            token,
            report,
        },
        Change::Log {
            job: job.clone(),
            token,
            number: 0,
            stream: Stream::Stdout,
            bytes: vec![0; CHUNK_BYTES_MAX],
        },
        Change::Claim {
            node: u64::MAX,
            worker: long("w", 0),
            slots: u32::MAX,
            labels: spec.labels.clone(),
            kinds: spec.labels,
        },
        Change::Settle { steps: u32::MAX },
        Change::Append {
            job: job.clone(),
            token,
            first: JOURNAL_FRAMES_MAX,
            frames: vec![vec![0; APPEND_BYTES_MAX / APPEND_FRAMES_MAX]; APPEND_FRAMES_MAX],
            consumed: vec![u64::MAX; 1_000],
            response: Some(u64::MAX),
        },
        Change::Send {
            job: job.clone(),
            kind: long("t", 0),
            data: "x".repeat(MESSAGE_BYTES_MAX - 2).into(),
        },
        Change::PutChunk {
            hash: "0".repeat(64),
            number: u32::MAX,
            bytes: vec![0; CHUNK_BYTES_MAX],
        },
        Change::Cancel {
            job,
            reason: Some("x".repeat(ERROR_BYTES_MAX)),
        },
    ];
    for change in largest {
        let command = Command {
            request: RequestId(long("r", 0)),
            at: UnixMillis(i64::MAX),
            change,
        };
        let bytes = sql::encoded_bytes(&sql::statements(&[command]));
        assert!(bytes <= COMMAND_BYTES_MAX, "{bytes}");
    }
}

#[test]
fn what_a_log_has_beyond_its_limit_is_counted_and_not_kept() {
    let mut both = Both::new();
    both.submit("j", plain()).unwrap();
    assert_eq!(both.claim(), 1);
    let chunk = |number| Change::Log {
        job: JobId("j".into()),
        token: FencingToken(1),
        number,
        stream: Stream::Stdout,
        bytes: vec![b'x'; CHUNK_BYTES_MAX - 1],
    };
    assert_eq!(both.apply(chunk(1)), Err(Refusal::LogGap { expected: 0 }));
    let logged = |next, dropped_bytes| {
        Ok(Effect::Logged {
            next,
            dropped_bytes,
        })
    };
    for number in 0..16 {
        assert_eq!(both.apply(chunk(number)), logged(number + 1, 0));
    }
    // Sixteen bytes are left.
    let all = (CHUNK_BYTES_MAX - 1) as u64;
    assert_eq!(both.apply(chunk(16)), logged(17, all - 16));
    assert_eq!(both.apply(chunk(17)), logged(18, 2 * all - 16));
    assert_eq!(both.apply(chunk(3)), logged(18, 2 * all - 16));
    let query = Query::Log {
        job: JobId("j".into()),
        token: FencingToken(1),
        from: 15,
        limit: 100,
    };
    let Answer::Log { chunks } = both.database.answer(&query) else {
        panic!()
    };
    let lengths: Vec<usize> = chunks.iter().map(|chunk| chunk.bytes().len()).collect();
    assert_eq!(lengths, [CHUNK_BYTES_MAX - 1, 16]);
}

#[test]
fn label_sets_have_a_limit_that_frees_itself() {
    let mut both = Both::new();
    let labelled = |number: usize| {
        let mut spec = plain();
        spec.labels = [format!("l{number}")].into();
        spec
    };
    for number in 0..LANES_MAX {
        both.submit(&format!("j{number}"), labelled(number))
            .unwrap();
    }
    assert_eq!(
        both.submit("more", labelled(LANES_MAX)),
        Err(Refusal::TooManyLabelSets)
    );
    // One more of a set that there is.
    both.submit("same", labelled(0)).unwrap();
    both.apply(Change::Cancel {
        job: JobId("j7".into()),
        reason: None,
    })
    .unwrap();
    both.submit("more", labelled(LANES_MAX)).unwrap();
}

#[test]
fn old_requests_are_forgotten_by_count() {
    let mut both = Both::new();
    both.submit("a", plain()).unwrap();
    both.submit("b", plain()).unwrap();
    // Ages the first one: it is now exactly out of reach of the third.
    let aged = "UPDATE requests SET seq = 3 - ?1 WHERE id = 'r1'";
    both.database.0.execute(aged, [REQUESTS_KEPT]).unwrap();
    both.submit("c", plain()).unwrap();
    let left: i64 = both
        .database
        .0
        .query_row("SELECT count(*) FROM requests", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 2);
}

#[test]
fn a_page_ends_where_it_has_looked_far_enough() {
    let mut both = Both::new();
    for number in 0..crate::query::PAGE_SCAN_MAX + 50 {
        let mut spec = plain();
        if number % 500 == 0 {
            spec.labels = ["rare".to_owned()].into();
        }
        both.submit(&format!("j{number}"), spec).unwrap();
    }
    let filter = crate::query::Filter {
        label: Some("rare".into()),
        ..Default::default()
    };
    let mut after = None;
    let mut found = Vec::new();
    let mut pages = 0;
    loop {
        let query = Query::List {
            after,
            limit: 10,
            order: Default::default(),
            filter: filter.clone(),
        };
        let answer = both.database.answer(&query);
        assert_eq!(answer, both.queue.answer(&query));
        let Answer::Jobs { jobs, next } = answer else {
            panic!()
        };
        found.extend(jobs.into_iter().map(|job| job.id.0));
        pages += 1;
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(
        (pages, found),
        (2, ["j0", "j500", "j1000"].map(str::to_owned).into())
    );
}
