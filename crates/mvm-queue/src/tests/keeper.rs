//! The keeper alone: what it proposes, and when.

use std::time::Duration;

use crate::{
    backoff::Backoff,
    command::{Change, Command, Expiry, Report},
    cron::Missed,
    effect::{Claim, Effect},
    id::{FencingToken, JobId, RequestId, UnixMillis},
    job::{JobSpec, JobState, WaitsFor},
    keeper::{Keeper, KeeperConfig},
    query::{KeeperFact, StoredSchedule},
    refusal::Refusal,
};

const LEASE: u64 = 10;
const TIMEOUT: u64 = 30;

struct Desk(Keeper);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn job() -> JobId {
    JobId("j".into())
}

fn lease(token: i64, renewals: u64) -> KeeperFact {
    KeeperFact::Lease {
        job: job(),
        token: FencingToken(token),
        renewals,
        started: false,
        timeout_ms: Some(TIMEOUT * 1_000),
        cancel: false,
    }
}

impl Desk {
    fn elected(facts: &[KeeperFact], now: u64) -> Self {
        let mut keeper = Keeper::new(KeeperConfig {
            node: 7,
            lease: seconds(LEASE),
            timeout_grace: seconds(2),
            cancel_grace: seconds(3),
            repeat: seconds(1),
            retention: None,
        });
        keeper.elected(facts, seconds(now));
        Self(keeper)
    }

    fn applied(&mut self, now: u64, change: Change, outcome: Result<Effect, Refusal>) {
        let command = Command {
            request: RequestId("r".into()),
            at: UnixMillis(0),
            change,
        };
        self.0.applied(&command, &outcome, seconds(now));
    }

    fn claimed(&mut self, now: u64, token: i64) {
        let mut spec = JobSpec::new("k", serde_json::Value::Null);
        spec.timeout_ms = Some(TIMEOUT * 1_000);
        let claim = Claim {
            job: job(),
            token: FencingToken(token),
            submitted_on: 1,
            spec,
        };
        let change = Change::Claim {
            node: 1,
            worker: "w".into(),
            slots: 1,
            labels: [].into(),
            kinds: [].into(),
        };
        self.applied(
            now,
            change,
            Ok(Effect::Claimed {
                claims: vec![claim],
            }),
        );
    }

    fn renewed(&mut self, now: u64, token: i64, renewals: u64, cancel: bool) {
        let change = Change::Renew {
            job: job(),
            token: FencingToken(token),
        };
        self.applied(
            now,
            change,
            Ok(Effect::Renewed {
                renewals,
                cancel,
                pause: false,
            }),
        );
    }

    fn wall(now: u64) -> UnixMillis {
        UnixMillis(i64::try_from(now).unwrap() * 1_000)
    }

    /// What is proposed at that second, and nothing in the second before.
    #[track_caller]
    fn proposes(&mut self, now: u64, expected: &[&str]) {
        if now > 0 {
            self.quiet(now - 1);
        }
        let found = self
            .0
            .poll(seconds(now), Self::wall(now), &mut |_| JobId("new".into()));
        let found: Vec<String> = found.iter().map(word).collect();
        assert_eq!(found, expected);
    }

    #[track_caller]
    fn quiet(&mut self, now: u64) {
        let found = self
            .0
            .poll(seconds(now), Self::wall(now), &mut |_| JobId("new".into()));
        assert!(found.is_empty(), "{found:?}");
        assert_ne!(
            self.0.wake(seconds(now), Self::wall(now)),
            Some(Duration::ZERO)
        );
    }
}

fn word(change: &Change) -> String {
    match change {
        Change::Expire { token, cause, .. } => match cause {
            Expiry::Lease { renewals } => format!("expire {token} after {renewals} renewals"),
            Expiry::Timeout => format!("expire {token} for its timeout"),
            Expiry::Cancel => format!("expire {token} as cancelled"),
        },
        Change::Ready { token, .. } => format!("ready {token}"),
        Change::Due { now_ms, .. } => format!("due {}", now_ms.0),
        Change::Settle { .. } => "settle".into(),
        Change::Submit { tick, .. } => format!("fire {}", tick.as_ref().unwrap().tick_ms.0),
        Change::SkipTick { tick } => format!("skip {}", tick.tick_ms.0),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_lease_ends_so_long_after_the_grant_the_last_renewal_or_the_election() {
    let mut desk = Desk::elected(&[], 0);
    desk.claimed(5, 1);
    desk.proposes(15, &["expire 1 after 0 renewals"]);

    let mut desk = Desk::elected(&[], 0);
    desk.claimed(5, 1);
    desk.renewed(12, 1, 1, false);
    desk.proposes(22, &["expire 1 after 1 renewals"]);

    let mut desk = Desk::elected(&[lease(4, 9)], 100);
    desk.proposes(110, &["expire 4 after 9 renewals"]);
}

#[test]
fn a_proposal_without_an_outcome_is_made_again() {
    let mut desk = Desk::elected(&[lease(1, 0)], 0);
    desk.proposes(10, &["expire 1 after 0 renewals"]);
    let again = desk.0.poll(seconds(11), UnixMillis(0), &mut |_| job());
    assert_eq!(again.len(), 1);
}

#[test]
fn a_node_that_does_not_lead_proposes_nothing() {
    let mut desk = Desk::elected(&[lease(1, 0)], 0);
    desk.0.deposed();
    desk.claimed(1, 2);
    desk.quiet(1_000);
    assert_eq!(desk.0.wake(seconds(1_000), UnixMillis(0)), None);
}

#[test]
fn a_sync_keeps_what_it_knew_and_starts_what_is_new() {
    let mut desk = Desk::elected(&[], 0);
    desk.claimed(5, 1);
    desk.0.doubt();
    assert!(desk.0.doubts() && desk.0.wants_sync(seconds(8)));
    desk.0.sync(&[lease(1, 0)], seconds(8));
    assert!(!desk.0.wants_sync(seconds(8)));
    desk.proposes(15, &["expire 1 after 0 renewals"]);

    // A renewal that it missed counts from when it hears of it.
    let mut desk = Desk::elected(&[], 0);
    desk.claimed(5, 1);
    desk.0.sync(&[lease(1, 1)], seconds(8));
    desk.proposes(18, &["expire 1 after 1 renewals"]);

    // A claim that it missed starts.
    desk.0.sync(&[lease(2, 0)], seconds(20));
    desk.proposes(30, &["expire 2 after 0 renewals"]);
}

#[test]
fn an_outcome_that_comes_late_does_not_bring_back_an_old_lease() {
    let mut desk = Desk::elected(&[lease(2, 0)], 0);
    desk.claimed(3, 1);
    desk.renewed(4, 1, 5, false);
    desk.proposes(10, &["expire 2 after 0 renewals"]);
}

#[test]
fn a_refused_expiry_asks_for_the_facts() {
    let mut desk = Desk::elected(&[lease(1, 0)], 0);
    desk.proposes(10, &["expire 1 after 0 renewals"]);
    let change = Change::Expire {
        job: job(),
        token: FencingToken(1),
        cause: Expiry::Lease { renewals: 0 },
    };
    desk.applied(10, change, Err(Refusal::RenewedSince));
    assert!(desk.0.wants_sync(seconds(10)));
}

#[test]
fn it_asks_for_facts_once_per_lease() {
    let mut desk = Desk::elected(&[], 3);
    assert!(!desk.0.wants_sync(seconds(3 + LEASE - 1)));
    assert!(desk.0.wants_sync(seconds(3 + LEASE)) && !desk.0.doubts());
    desk.0.sync(&[], seconds(14));
    assert!(!desk.0.wants_sync(seconds(14)));
    desk.0.deposed();
    assert!(!desk.0.wants_sync(seconds(1_000)));
}

#[test]
fn timeout_and_request_to_stop_have_a_bound_each() {
    let mut desk = Desk::elected(&[], 0);
    desk.claimed(0, 1);
    let start = Change::Start {
        job: job(),
        token: FencingToken(1),
    };
    desk.applied(1, start, Ok(Effect::Started));
    for now in [8, 16, 24, 32] {
        desk.renewed(now, 1, now, false);
    }
    desk.proposes(33, &["expire 1 for its timeout"]);

    let mut desk = Desk::elected(&[], 0);
    desk.claimed(0, 1);
    let cancel = Effect::Cancelled {
        state: JobState::Claimed,
        dependents: false,
    };
    desk.applied(
        1,
        Change::Cancel {
            job: job(),
            reason: None,
        },
        Ok(cancel),
    );
    desk.proposes(4, &["expire 1 as cancelled"]);
}

#[test]
fn a_pause_is_counted_from_its_failure_or_the_election() {
    let mut desk = Desk::elected(&[lease(1, 0)], 0);
    let finish = Change::Finish {
        job: job(),
        token: FencingToken(1),
        report: Report::TimedOut,
    };
    let ended = Effect::Ended {
        state: JobState::Pending,
        waits_for: Some(WaitsFor::Backoff),
        pause_ms: Some(4_000),
        dependents: true,
    };
    desk.applied(3, finish, Ok(ended));
    let settle = desk.0.poll(seconds(3), UnixMillis(0), &mut |_| job());
    assert_eq!(settle.iter().map(word).collect::<Vec<_>>(), ["settle"]);
    let change = Change::Settle { steps: 64 };
    let effect = Effect::Settled {
        count: 1,
        more: false,
        next_ms: None,
    };
    desk.applied(3, change, Ok(effect));
    desk.proposes(7, &["ready 1"]);

    let backoff = Backoff {
        base_ms: 6_000,
        max_ms: 6_000,
    };
    let rest = KeeperFact::Backoff {
        job: job(),
        token: FencingToken(1),
        failures: 1,
        backoff,
    };
    let mut desk = Desk::elected(&[rest], 100);
    let pause = backoff.pause(&job(), FencingToken(1), 1);
    assert_eq!(desk.0.wake(seconds(100), UnixMillis(0)), Some(pause));
    assert_eq!(
        desk.0
            .poll(seconds(100) + pause, UnixMillis(0), &mut |_| job())
            .len(),
        1
    );
}

#[test]
fn times_and_ticks_follow_the_wall_clock_wherever_it_jumps() {
    let schedule = StoredSchedule {
        name: "s".into(),
        revision: 1,
        cron: "* * * * *".into(),
        missed: Missed::Once,
        spec: JobSpec::new("k", serde_json::Value::Null),
        next_ms: UnixMillis(60_000),
    };
    let facts = [
        KeeperFact::RunAfter {
            next_ms: Some(UnixMillis(90_000)),
        },
        KeeperFact::Schedule {
            schedule: Box::new(schedule),
        },
    ];
    let mut desk = Desk::elected(&facts, 0);
    let mut poll = |now: u64, wall: i64| -> Vec<String> {
        let found = desk.0.poll(seconds(now), UnixMillis(wall), &mut |_| job());
        // Looked at again soon, since the clock may be set.
        assert!(desk.0.wake(seconds(now), UnixMillis(wall)).unwrap() <= seconds(1));
        found.iter().map(word).collect()
    };
    assert_eq!(poll(1, 59_999), [""; 0]);
    assert_eq!(poll(2, 60_000), ["fire 60000"]);
    // Proposed, and not repeated at once.
    assert_eq!(poll(2, 90_000), ["due 90000"]);
    assert_eq!(poll(2, 90_000), [""; 0]);
    // An hour back: nothing is due. An hour forward: both, once.
    assert_eq!(poll(10, -3_600_000), [""; 0]);
    assert_eq!(poll(20, 3_600_000), ["due 3600000", "fire 60000"]);
}

fn park(until: Option<i64>) -> Change {
    Change::Park {
        job: job(),
        token: FencingToken(1),
        until_ms: until.map(UnixMillis),
        seen: Some(0),
        reason: None,
    }
}

fn parked(state: JobState, waits_for: Option<WaitsFor>) -> Result<Effect, Refusal> {
    Ok(Effect::Parked {
        state,
        waits_for,
        dependents: state == JobState::Cancelled,
    })
}

#[test]
fn a_parked_job_has_no_lease_and_wakes_at_its_time() {
    let mut desk = Desk::elected(&[lease(1, 0)], 0);
    let waits = parked(JobState::Pending, Some(WaitsFor::Message));
    desk.applied(1, park(Some(20_000)), waits.clone());
    desk.proposes(20, &["due 20000"]);

    // Without a time, only a message ends the wait.
    let mut desk = Desk::elected(&[lease(1, 0)], 0);
    desk.applied(1, park(None), waits);
    desk.quiet(1_000);

    // What it waited for was there.
    let mut desk = Desk::elected(&[lease(1, 0)], 0);
    let eligible = parked(JobState::Pending, Some(WaitsFor::Worker));
    desk.applied(1, park(Some(20_000)), eligible);
    desk.quiet(1_000);

    let mut desk = Desk::elected(&[lease(1, 0)], 0);
    desk.applied(1, park(Some(20_000)), parked(JobState::Cancelled, None));
    let settle = desk.0.poll(seconds(1), UnixMillis(0), &mut |_| job());
    assert_eq!(settle.iter().map(word).collect::<Vec<_>>(), ["settle"]);
}

#[test]
fn a_paused_job_is_not_called_back_from_its_rest() {
    let backoff = Backoff {
        base_ms: 6_000,
        max_ms: 6_000,
    };
    let rest = KeeperFact::Backoff {
        job: job(),
        token: FencingToken(1),
        failures: 1,
        backoff,
    };
    let pause = || Change::Pause {
        job: job(),
        reason: None,
    };
    let mut desk = Desk::elected(&[rest], 0);
    let state = JobState::Pending;
    desk.applied(1, pause(), Ok(Effect::Paused { state }));
    desk.quiet(1_000);
    let resumed = Effect::Resumed {
        waits_for: Some(WaitsFor::RunAfter),
        next_ms: Some(UnixMillis(1_005_000)),
    };
    desk.applied(1_001, Change::Resume { job: job() }, Ok(resumed));
    desk.proposes(1_005, &["due 1005000"]);

    // The lease of a held one is counted as before; also if the pause is heard of late.
    let mut desk = Desk::elected(&[lease(1, 0)], 0);
    let state = JobState::Claimed;
    desk.applied(1, pause(), Ok(Effect::Paused { state }));
    let state = JobState::Pending;
    desk.applied(1, pause(), Ok(Effect::Paused { state }));
    desk.proposes(10, &["expire 1 after 0 renewals"]);
}
