//! What each command makes of a job in each state, in the core and in SQL: one line per case.

use super::database::Database;
use crate::{
    command::{Change, Command, Expiry, Report, Stream},
    effect::Effect,
    id::{FencingToken, JobId, RequestId, UnixMillis},
    job::{Job, JobSpec},
    query::{Answer, Query},
    queue::{Outcome, Queue},
};

/// A queue with one job, `j`, which commands in words are applied to.
struct Table {
    queue: Queue,
    database: Database,
    requests: u32,
}

const TOKEN: FencingToken = FencingToken(1);

impl Table {
    fn new(spec: JobSpec) -> Self {
        let mut table = Self {
            queue: Queue::new(),
            database: Database::new(),
            requests: 0,
        };
        table
            .apply(Change::Submit {
                job: JobId("j".into()),
                submitted_on: 1,
                spec: Box::new(spec),
                tick: None,
            })
            .unwrap();
        table
    }

    fn apply(&mut self, change: Change) -> Outcome {
        self.requests += 1;
        self.repeat(self.requests, change)
    }

    fn repeat(&mut self, request: u32, change: Change) -> Outcome {
        let command = Command {
            request: RequestId(format!("r{request}")),
            at: UnixMillis(5),
            change,
        };
        let outcome = self.queue.apply(&command);
        let found = self.database.apply(&[command]);
        assert_eq!(found.first(), Some(&outcome));
        let query = Query::Job {
            job: JobId("j".into()),
        };
        assert_eq!(self.database.answer(&query), self.queue.answer(&query));
        outcome
    }

    fn job(&self) -> &Job {
        self.queue.job(&JobId("j".into())).unwrap()
    }

    fn say(&mut self, word: &str) -> Outcome {
        self.apply(change(word))
    }
}

fn change(word: &str) -> Change {
    let (word, token) = match word.strip_prefix("stale ") {
        Some(word) => (word, FencingToken(0)),
        None => (word, TOKEN),
    };
    let job = JobId("j".into());
    let finish = |report| Change::Finish {
        job: JobId("j".into()),
        token,
        report,
    };
    let expire = |cause| Change::Expire {
        job: JobId("j".into()),
        token,
        cause,
    };
    match word {
        "claim" => Change::Claim {
            node: 1,
            worker: "w".into(),
            slots: 1,
            labels: [].into(),
            kinds: [].into(),
        },
        "start" => Change::Start { job, token },
        "renew" => Change::Renew { job, token },
        "log" => Change::Log {
            job,
            token,
            number: 0,
            stream: Stream::Stdout,
            bytes: b"x".to_vec(),
        },
        "succeed" => finish(Report::Succeeded {
            result: serde_json::json!({ "code": 0 }),
        }),
        "fail" => finish(Report::failed("no", false)),
        "fail for ever" => finish(Report::failed("no", true)),
        "time out" => finish(Report::TimedOut),
        "give back" => finish(Report::Lost),
        "stop" => finish(Report::Cancelled),
        "expire" => expire(Expiry::Lease { renewals: 0 }),
        "expire timeout" => expire(Expiry::Timeout),
        "expire cancel" => expire(Expiry::Cancel),
        "ready" => Change::Ready { job, token },
        "cancel" => Change::Cancel { job, reason: None },
        "retry" => Change::Retry {
            job,
            keep_frames: None,
        },
        "cancel another" => Change::Cancel {
            job: JobId("x".into()),
            reason: None,
        },
        other => panic!("{other:?}"),
    }
}

fn word(table: &Table, outcome: &Outcome) -> String {
    match outcome {
        Err(refusal) => refusal.to_string(),
        Ok(Effect::Renewed { cancel: true, .. }) => "must stop".into(),
        Ok(_) => {
            let job = table.job();
            let waits = job
                .waits_for
                .map_or(String::new(), |waits| format!(" for {}", waits.as_str()));
            format!("{}{waits}", job.state)
        }
    }
}

#[track_caller]
fn check_with(spec: JobSpec, before: &[&str], last: &str, expected: &str) {
    let mut table = Table::new(spec);
    for word in before {
        table.say(word).unwrap();
    }
    let job = table.job().clone();
    let outcome = table.say(last);
    assert_eq!(word(&table, &outcome), expected, "{before:?}, {last}");
    if outcome.is_err() {
        assert_eq!(*table.job(), job, "a refusal changed the job");
    }
    // The same request again has the same answer and no second effect.
    let after = table.job().clone();
    assert_eq!(table.repeat(table.requests, change(last)), outcome);
    assert_eq!(*table.job(), after);
}

#[track_caller]
fn check(before: &[&str], last: &str, expected: &str) {
    let mut spec = JobSpec::new("k", serde_json::Value::Null);
    spec.attempts_max = 2;
    spec.losses_max = 2;
    spec.timeout_ms = Some(1);
    check_with(spec, before, last, expected);
}

#[test]
fn a_job_moves_along_its_life() {
    check(&[], "claim", "claimed");
    check(&["claim"], "start", "in_progress");
    check(&["claim", "start"], "renew", "in_progress");
    check(&["claim", "start"], "log", "in_progress");
    check(&["claim", "start"], "succeed", "completed");
    check(&["claim", "start"], "fail", "pending for backoff");
    check(&["claim", "start", "fail"], "ready", "pending for worker");
    check(&["claim"], "fail", "pending for backoff");
    check(&["claim", "start"], "fail for ever", "failed");
    check(&["claim", "start"], "time out", "pending for backoff");
    check(&["claim", "start"], "give back", "pending for worker");
    check(&["claim", "start"], "stop", "cancelled");
    check(&[], "cancel", "cancelled");
    check(&["claim", "fail for ever"], "retry", "pending for worker");
}

#[test]
fn the_leader_ends_what_is_due_and_nothing_else() {
    check(&["claim"], "expire", "pending for worker");
    check(&["claim", "start"], "expire", "pending for worker");
    check(
        &["claim", "renew"],
        "expire",
        "the lease was renewed in the meantime",
    );
    check(&["claim", "start"], "expire timeout", "pending for backoff");
    check(
        &["claim"],
        "expire timeout",
        "nothing is due: the job is claimed",
    );
    check(&["claim", "cancel"], "expire cancel", "cancelled");
    check(&["claim", "cancel"], "expire", "cancelled");
    check(
        &["claim"],
        "expire cancel",
        "nothing is due: the job is claimed",
    );
    check(&["claim"], "ready", "nothing is due: the job is claimed");
}

#[test]
fn a_stop_is_asked_for_and_told_at_the_next_renewal() {
    check(&["claim", "start"], "cancel", "in_progress");
    check(&["claim", "start", "cancel"], "renew", "must stop");
    check(&["claim", "start", "cancel"], "cancel", "in_progress");
    check(&["claim", "start", "cancel"], "stop", "cancelled");
    check(&["claim", "start", "cancel"], "fail", "cancelled");
    check(&["claim", "start", "cancel"], "succeed", "completed");
}

#[test]
fn a_job_does_not_jump_or_return() {
    check(
        &["claim"],
        "succeed",
        "a job that is claimed cannot become completed",
    );
    check(
        &["claim"],
        "time out",
        "a job that is claimed cannot become failed",
    );
    check(
        &["claim", "start"],
        "start",
        "a job that is in_progress cannot become in_progress",
    );
    check(
        &["claim", "start", "succeed"],
        "cancel",
        "a job that is completed cannot become cancelled",
    );
    check(
        &["claim", "start", "succeed"],
        "retry",
        "a job that is completed cannot become pending",
    );
    check(&[], "retry", "a job that is pending cannot become pending");
    check(
        &["cancel"],
        "retry",
        "a job that is cancelled cannot become pending",
    );
    check(&[], "cancel another", "there is no job x");
}

#[test]
fn a_token_is_good_for_its_own_lease_only() {
    let held = [
        "start",
        "renew",
        "log",
        "succeed",
        "fail",
        "give back",
        "stop",
        "expire",
    ];
    for word in held {
        check(
            &["claim"],
            &format!("stale {word}"),
            "token 0 is not the one of the latest claim",
        );
        // After the next claim.
        check(
            &["claim", "expire", "claim"],
            word,
            "token 1 is not the one of the latest claim",
        );
        // Before it.
        check(
            &["claim", "expire"],
            word,
            "the lease has ended: the job is pending",
        );
        check(
            &["claim", "start", "succeed"],
            word,
            "the lease has ended: the job is completed",
        );
    }
    check(&[], "start", "token 1 is not the one of the latest claim");
}

#[test]
fn a_job_that_kills_its_workers_ends_and_can_be_retried() {
    let mut spec = JobSpec::new("k", serde_json::Value::Null);
    spec.losses_max = 2;
    let mut table = Table::new(spec);
    let claim_and_lose = |table: &mut Table| {
        table.say("claim").unwrap();
        let token = table.job().token;
        let cause = Expiry::Lease { renewals: 0 };
        table
            .apply(Change::Expire {
                job: JobId("j".into()),
                token,
                cause,
            })
            .unwrap();
        (
            table.job().state.as_str(),
            table.job().losses,
            table.job().failures,
        )
    };
    assert_eq!(claim_and_lose(&mut table), ("pending", 1, 0));
    assert_eq!(claim_and_lose(&mut table), ("dead", 2, 0));
    table.say("retry").unwrap();
    assert_eq!(claim_and_lose(&mut table), ("pending", 1, 0));
    // Tokens go on.
    assert_eq!(table.job().token, FencingToken(3));
}

#[test]
fn a_used_request_id_does_nothing_for_another_request() {
    let mut table = Table::new(JobSpec::new("k", serde_json::Value::Null));
    for number in 0..3 {
        table
            .apply(Change::Submit {
                job: JobId(format!("more{number}")),
                submitted_on: 1,
                spec: Box::new(JobSpec::new("k", serde_json::Value::Null)),
                tick: None,
            })
            .unwrap();
    }
    table.say("claim").unwrap();
    let used = table.requests;
    let mut more = change("claim");
    if let Change::Claim { slots, .. } = &mut more {
        *slots = 3;
    }
    let refused = table.repeat(used, more).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "this idempotency key was used before for a different request"
    );
    let held = table.queue.answer(&Query::Stats);
    let Answer::Stats { counts } = held else {
        panic!()
    };
    assert_eq!(counts[1].1, 1);
    assert_eq!(
        table.database.answer(&Query::Stats),
        Answer::Stats { counts }
    );
}
