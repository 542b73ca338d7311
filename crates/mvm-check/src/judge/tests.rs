//! Known bad histories, each found by its rule and by no other, beside the good history they are made of.

use std::time::Duration;

use super::{Ends, Invariant, Rules, judge};
use crate::{
    action::{
        Action, At, AttemptSeen, Claim, Consistency, Ended, JobId, JobSeen, NodeId, Token, Told,
    },
    history::{Event, Fault, FinalState, History, OperationId},
};

const RULES: Rules = Rules {
    lease: Some(Duration::from_millis(100)),
    ends: Ends::Completed,
};

/// A history under construction; moments are milliseconds.
struct Story {
    history: History,
    operations: u64,
    jobs: Vec<JobSeen>,
    attempts: Vec<AttemptSeen>,
}

impl Story {
    fn new() -> Story {
        Story {
            history: History::new(1),
            operations: 0,
            jobs: Vec::new(),
            attempts: Vec::new(),
        }
    }

    fn ask(&mut self, from: u64, to: u64, node: u64, request: &str, action: Action, told: Told) {
        self.operations += 1;
        let operation = OperationId(self.operations);
        self.history.push(Event::Invoked {
            at: At(from * 1000),
            operation,
            process: "p".to_owned(),
            node: NodeId(node),
            request: request.to_owned(),
            action,
        });
        self.history.push(Event::Returned {
            at: At(to * 1000),
            operation,
            told,
        });
    }

    fn submit(&mut self, at: u64, node: u64, key: &str, told: Told) {
        let action = Action::Submit {
            key: key.to_owned(),
            spec: serde_json::Value::Null,
        };
        self.ask(at, at + 5, node, key, action, told);
    }

    fn claim(&mut self, at: u64, request: &str, told: Told) {
        let action = Action::Claim {
            worker: request.to_owned(),
            slots: 1,
            kinds: Vec::new(),
        };
        self.ask(at, at + 5, 1, request, action, told);
    }

    fn renew(&mut self, at: u64, token: i64, told: Told) {
        let action = Action::Renew {
            job: job("a"),
            token: Token(token),
        };
        self.ask(at, at + 5, 1, &format!("renew at {at}"), action, told);
    }

    fn finish(&mut self, at: u64, token: i64, told: Told) {
        let action = Action::Finish {
            job: job("a"),
            token: Token(token),
            ended: Ended::Succeeded,
        };
        self.ask(at, at + 5, 1, &format!("finish at {at}"), action, told);
    }

    fn listed(&mut self, id: &str, key: &str, state: &str, token: i64) {
        self.jobs.push(JobSeen {
            id: job(id),
            key: key.to_owned(),
            state: state.to_owned(),
            token: Token(token),
            claimed_by: None,
        });
    }

    fn tried(&mut self, token: i64, worker: &str, outcome: &str) {
        self.attempts.push(AttemptSeen {
            token: Token(token),
            worker: worker.to_owned(),
            outcome: Some(outcome.to_owned()),
        });
    }

    fn told_by(&self) -> FinalState {
        FinalState {
            jobs: self.jobs.clone(),
            attempts: [(job("a"), self.attempts.clone())].into(),
        }
    }

    /// Both nodes tell the same; the history must break just this, or nothing, also after it was a file.
    #[track_caller]
    fn check(mut self, expected: Option<Invariant>) {
        let state = self.told_by();
        for node in [1, 2] {
            self.history.push(Event::Final {
                node: NodeId(node),
                state: state.clone(),
            });
        }
        check(&self.history, expected);
    }
}

#[track_caller]
fn check(history: &History, expected: Option<Invariant>) {
    let mut file = Vec::new();
    history.write(&mut file).unwrap();
    let read = History::parse(std::str::from_utf8(&file).unwrap()).unwrap();
    assert_eq!(&read, history);
    let violations = judge(&read, RULES);
    let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(lines.iter().all(|line| !line.contains('\n')), "{lines:?}");
    let mut found: Vec<Invariant> = violations.iter().map(|found| found.invariant).collect();
    found.sort();
    found.dedup();
    assert_eq!(found, Vec::from_iter(expected), "{lines:#?}");
}

fn job(id: &str) -> JobId {
    JobId(id.to_owned())
}

fn submitted(id: &str) -> Told {
    Told::Submitted { job: job(id) }
}

fn granted(token: i64) -> Told {
    Told::Claimed {
        claims: vec![Claim {
            job: job("a"),
            token: Token(token),
        }],
    }
}

fn moved(state: &str) -> Told {
    Told::Moved {
        state: state.to_owned(),
    }
}

fn refused() -> Told {
    Told::Refused {
        detail: "no quorum".to_owned(),
    }
}

fn unknown() -> Told {
    Told::Unknown {
        detail: "no answer".to_owned(),
    }
}

fn rejected() -> Told {
    Told::Rejected {
        status: 409,
        detail: "the lease has ended".to_owned(),
    }
}

/// One job under the key `k`, claimed by `w1` and then by `w2`, which completes it.
fn twice_claimed() -> Story {
    let mut story = Story::new();
    story.submit(0, 1, "k", submitted("a"));
    story.claim(10, "w1", granted(1));
    story.renew(20, 1, Told::Renewed);
    story.claim(130, "w2", granted(2));
    story.finish(140, 1, rejected());
    story.finish(150, 2, moved("completed"));
    story.tried(1, "w1", "lost");
    story.tried(2, "w2", "succeeded");
    story.listed("a", "k", "completed", 2);
    story
}

#[test]
fn what_may_have_been_so_is_valid() {
    twice_claimed().check(None);

    let mut story = twice_claimed();
    story.submit(200, 1, "never", refused());
    story.submit(200, 2, "perhaps", unknown());
    story.check(None);

    // The answer was lost, and the repetition is told the same.
    let mut story = twice_claimed();
    story.submit(200, 1, "k2", unknown());
    story.submit(210, 2, "k2", submitted("b"));
    story.listed("b", "k2", "cancelled", 0);
    let cancel = Action::Cancel { job: job("b") };
    story.ask(220, 225, 1, "cancel", cancel, moved("cancelled"));
    story.check(None);

    // A claim that was answered late was made early.
    let mut story = twice_claimed();
    story.history = History::new(1);
    story.submit(0, 1, "k", submitted("a"));
    story.claim(10, "w1", unknown());
    story.claim(130, "w2", granted(2));
    story.claim(140, "w1", granted(1));
    story.finish(150, 2, moved("completed"));
    story.check(None);

    // Given back before its lease ended.
    let mut story = Story::new();
    story.submit(0, 1, "k", submitted("a"));
    story.claim(10, "w1", granted(1));
    let lost = Action::Finish {
        job: job("a"),
        token: Token(1),
        ended: Ended::Lost,
    };
    story.ask(20, 25, 1, "back", lost, unknown());
    story.claim(30, "w2", granted(2));
    story.finish(40, 2, moved("completed"));
    story.tried(1, "w1", "lost");
    story.tried(2, "w2", "succeeded");
    story.listed("a", "k", "completed", 2);
    story.check(None);
}

#[test]
fn acknowledged_jobs_are_kept_and_end() {
    let mut story = twice_claimed();
    story.submit(200, 1, "gone", submitted("b"));
    story.check(Some(Invariant::AcknowledgedEnds));

    let mut story = twice_claimed();
    story.submit(200, 1, "stuck", submitted("b"));
    story.listed("b", "stuck", "pending", 0);
    story.check(Some(Invariant::AcknowledgedEnds));

    let mut story = twice_claimed();
    story.claim(300, "w3", granted(3));
    story.check(Some(Invariant::AcknowledgedEnds));
}

#[test]
fn jobs_complete_once() {
    let mut story = twice_claimed();
    story.finish(160, 2, moved("completed"));
    story.check(Some(Invariant::CompletedOnce));

    let mut story = twice_claimed();
    story.attempts[0].outcome = Some("succeeded".to_owned());
    story.finish(30, 1, unknown());
    story.check(Some(Invariant::CompletedOnce));
}

#[test]
fn leases_do_not_overlap() {
    // Accepted under the old token.
    let mut story = twice_claimed();
    story.renew(145, 1, Told::Renewed);
    story.check(Some(Invariant::OneLease));

    // Taken away too soon.
    let mut story = twice_claimed();
    story.renew(50, 1, Told::Renewed);
    story.check(Some(Invariant::OneLease));
}

#[test]
fn tokens_grow() {
    let mut story = Story::new();
    story.submit(0, 1, "k", submitted("a"));
    story.claim(10, "w1", granted(2));
    story.claim(150, "w2", granted(1));
    story.finish(160, 1, unknown());
    story.tried(1, "w2", "succeeded");
    story.tried(2, "w1", "lost");
    story.listed("a", "k", "completed", 2);
    story.check(Some(Invariant::TokensGrow));

    // One token for two.
    let mut story = twice_claimed();
    story.claim(132, "w4", granted(2));
    story.check(Some(Invariant::TokensGrow));

    let mut story = twice_claimed();
    story.attempts.reverse();
    story.check(Some(Invariant::TokensGrow));
}

#[test]
fn what_was_refused_was_not_applied() {
    let mut story = twice_claimed();
    story.submit(200, 1, "refused", refused());
    story.listed("b", "refused", "completed", 0);
    story.check(Some(Invariant::RefusedNeverApplied));

    let mut story = twice_claimed();
    story.claim(300, "w3", refused());
    story.tried(3, "w3", "lost");
    story.check(Some(Invariant::RefusedNeverApplied));

    let mut story = Story::new();
    story.submit(0, 1, "k", submitted("a"));
    story.claim(10, "w1", granted(1));
    story.finish(20, 1, refused());
    story.tried(1, "w1", "succeeded");
    story.listed("a", "k", "completed", 1);
    story.check(Some(Invariant::RefusedNeverApplied));
}

#[test]
fn minorities_do_not_acknowledge() {
    for (from, expected) in [
        (0, Some(Invariant::MinorityNeverAcknowledges)),
        // It was on its way when the cut came.
        (302, None),
    ] {
        let mut story = Story::new();
        let fault = Fault::CutOff { node: NodeId(1) };
        let at = At(from * 1000);
        story.history.push(Event::Nemesis { at, fault });
        story.submit(300, 1, "k", submitted("a"));
        let fault = Fault::Healing { node: NodeId(1) };
        let at = At(400_000);
        story.history.push(Event::Nemesis { at, fault });
        story.listed("a", "k", "cancelled", 0);
        let cancel = Action::Cancel { job: job("a") };
        story.ask(410, 420, 1, "cancel", cancel, moved("cancelled"));
        story.check(expected);
    }
}

#[test]
fn nodes_agree() {
    let mut story = twice_claimed();
    let all = story.told_by();
    let mut other = all.clone();
    other.attempts.clear();
    other.jobs[0].token = Token(1);
    for (node, state) in [(1, all), (2, other)] {
        let node = NodeId(node);
        story.history.push(Event::Final { node, state });
    }
    check(&story.history, Some(Invariant::NodesAgree));
}

#[test]
fn a_key_is_one_job() {
    let mut story = twice_claimed();
    story.submit(1, 2, "k", submitted("b"));
    story.check(Some(Invariant::OneJobPerKey));

    let mut story = twice_claimed();
    story.listed("b", "k", "completed", 0);
    story.check(Some(Invariant::OneJobPerKey));
}

#[test]
fn linearizable_lists_are_fresh() {
    for (at, expected) in [(50, Some(Invariant::ReadsAreFresh)), (4, None)] {
        let mut story = twice_claimed();
        let list = Action::List {
            consistency: Consistency::Linearizable,
        };
        story.ask(at, 60, 2, "read", list, Told::Listed { jobs: Vec::new() });
        story.check(expected);
    }
}

#[test]
fn nothing_is_invented() {
    let mut story = twice_claimed();
    story.listed("b", "whose", "completed", 0);
    story.check(Some(Invariant::NothingInvented));

    let mut story = Story::new();
    story.submit(0, 1, "k", submitted("a"));
    story.claim(10, "w1", granted(1));
    story.tried(1, "w1", "succeeded");
    story.listed("a", "k", "completed", 1);
    story.check(Some(Invariant::NothingInvented));
}

#[test]
fn defects_are_told() {
    let mut story = twice_claimed();
    let detail = "500: the node failed".to_owned();
    story.renew(300, 2, Told::Broken { detail });
    story.check(Some(Invariant::NoDefect));

    let mut story = twice_claimed();
    story.submit(300, 1, "fine", rejected());
    story.check(Some(Invariant::NoDefect));
}

#[test]
fn a_violation_is_a_line_with_its_operations() {
    let mut story = twice_claimed();
    story.submit(200, 1, "gone", submitted("b"));
    let node = NodeId(1);
    let state = story.told_by();
    story.history.push(Event::Final { node, state });
    let violations = judge(&story.history, RULES);
    assert_eq!(
        violations[0].to_string(),
        "an acknowledged job is kept and ends: node 1 does not list key gone: \
         [7 p on node 1, 0.200 to 0.205 s: submit gone: acknowledged as job b]"
    );
}

#[test]
fn files_that_are_no_histories_are_refused() {
    for (text, expected) in [
        ("", "first line"),
        (r#"{"event":"began","version":2,"seed":1}"#, "first line"),
        ("{}", "line 1"),
    ] {
        let error = History::parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
