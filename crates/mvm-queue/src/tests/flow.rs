//! Workflows in the core and in SQL: journals, inboxes, waits, pauses and modules, each in a short story.

use std::num::NonZeroU64;

use super::both::Both;
use crate::{
    command::{Change, Expiry, Report, Stream},
    effect::Effect,
    id::{FencingToken, JobId, UnixMillis},
    job::{FLOW_KIND, Job, JobSpec, JobState, WaitsFor},
    limits::*,
    query::{Answer, Execution, Query},
    queue::Outcome,
    refusal::Refusal,
};

const JOB: &str = "j";

fn job() -> JobId {
    JobId(JOB.into())
}

/// A workflow `j`.
struct Story(Both);

impl Story {
    fn new() -> Self {
        Self::of(JobSpec::new(FLOW_KIND, serde_json::Value::Null))
    }

    fn of(spec: JobSpec) -> Self {
        let mut both = Both::new();
        both.submit(JOB, spec).unwrap();
        Self(both)
    }

    fn claimed() -> Self {
        let mut story = Self::new();
        assert_eq!(story.0.claim(), 1);
        story
    }

    fn job(&self) -> &Job {
        self.0.queue.job(&job()).unwrap()
    }

    fn token(&self) -> FencingToken {
        self.job().token
    }

    fn append(&mut self, first: u64, frames: &[&[u8]], consumed: &[u64]) -> Outcome {
        self.append_with(self.token(), first, frames, consumed, None)
    }

    fn append_with(
        &mut self,
        token: FencingToken,
        first: u64,
        frames: &[&[u8]],
        consumed: &[u64],
        response: Option<u64>,
    ) -> Outcome {
        self.0.apply(Change::Append {
            job: job(),
            token,
            first,
            frames: frames.iter().map(|frame| frame.to_vec()).collect(),
            consumed: consumed.to_vec(),
            response,
        })
    }

    fn send(&mut self, data: serde_json::Value) -> Outcome {
        self.0.apply(Change::Send {
            job: job(),
            kind: "approval".into(),
            data,
        })
    }

    fn park(&mut self, until: Option<i64>, seen: Option<u64>) -> Outcome {
        self.0.apply(Change::Park {
            job: job(),
            token: self.token(),
            until_ms: until.map(UnixMillis),
            seen,
            reason: None,
        })
    }

    fn finish(&mut self, report: Report) -> Outcome {
        let token = self.token();
        self.0.apply(Change::Finish {
            job: job(),
            token,
            report,
        })
    }

    fn expire(&mut self) -> Outcome {
        let token = self.token();
        self.0.apply(Change::Expire {
            job: job(),
            token,
            cause: Expiry::Lease { renewals: 0 },
        })
    }

    fn start(&mut self) {
        let token = self.token();
        self.0.apply(Change::Start { job: job(), token }).unwrap();
    }

    fn due(&mut self, now: i64) -> Outcome {
        self.0.apply(Change::Due {
            now_ms: UnixMillis(now),
            steps: 9,
        })
    }

    fn pause(&mut self, reason: Option<&str>) -> Outcome {
        self.0.apply(Change::Pause {
            job: job(),
            reason: reason.map(str::to_owned),
        })
    }

    fn resume(&mut self) -> Outcome {
        self.0.apply(Change::Resume { job: job() })
    }

    fn prune(&mut self) -> Outcome {
        self.0.apply(Change::Prune {
            keep: 0,
            before_ms: None,
            chunks_before_ms: None,
            steps: 3,
        })
    }

    fn execution(&self) -> Option<Execution> {
        match self.0.ask(&Query::Execution { job: job() }) {
            Answer::Execution { execution } => execution,
            other => panic!("{other:?}"),
        }
    }

    fn frames(&self, from: u64, bytes_max: u64) -> Vec<Vec<u8>> {
        let query = Query::Frames {
            job: job(),
            from,
            bytes_max,
        };
        match self.0.ask(&query) {
            Answer::Frames { frames } => frames.iter().map(|frame| frame.hex.bytes()).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn inbox(&self) -> Vec<u64> {
        let query = Query::Inbox {
            job: job(),
            beyond: 0,
            limit: 99,
        };
        match self.0.ask(&query) {
            Answer::Inbox { messages } => messages.iter().map(|message| message.number).collect(),
            other => panic!("{other:?}"),
        }
    }
}

fn parked(waits_for: WaitsFor) -> Outcome {
    Ok(Effect::Parked {
        state: JobState::Pending,
        waits_for: Some(waits_for),
        dependents: false,
    })
}

#[test]
fn frames_are_read_back_whole_and_in_order() {
    let mut story = Story::claimed();
    assert_eq!(
        story.append(0, &[b"one", b"", &[0, 255]], &[]),
        Ok(Effect::Appended { next: 3 })
    );
    assert_eq!(
        story.append(3, &[b"four"], &[]),
        Ok(Effect::Appended { next: 4 })
    );
    let all: [&[u8]; 4] = [b"one", b"", &[0, 255], b"four"];
    assert_eq!(story.frames(0, u64::MAX), all);
    assert_eq!(story.frames(0, 5), all[..3]);
    assert_eq!(story.frames(1, 0), all[1..2]);
    // One at least.
    assert_eq!(story.frames(3, 1), all[3..]);
    assert_eq!(story.frames(4, 9), [b""; 0]);
    assert_eq!(story.execution().unwrap().bytes, 9);
}

#[test]
fn a_journal_is_written_by_who_holds_the_job_and_at_its_end() {
    let mut story = Story::claimed();
    story.append(0, &[b"a"], &[]).unwrap();
    let gap = Err(Refusal::JournalGap { next: 1 });
    assert_eq!(story.append(0, &[b"b"], &[]), gap);
    assert_eq!(story.append(2, &[b"b"], &[]), gap);
    story.expire().unwrap();
    let state = JobState::Pending;
    assert_eq!(
        story.append(1, &[b"b"], &[]),
        Err(Refusal::LeaseEnded { state })
    );
    assert_eq!(story.0.claim(), 1);
    let given = FencingToken(1);
    assert_eq!(
        story.append_with(given, 1, &[b"b"], &[], None),
        Err(Refusal::TokenStale { given })
    );
    assert_eq!(
        story.append(1, &[b"b"], &[]),
        Ok(Effect::Appended { next: 2 })
    );
    assert_eq!(story.frames(0, 9), [b"a", b"b"]);
}

#[test]
fn other_jobs_have_no_journal_and_no_inbox_and_are_not_parked() {
    let mut story = Story::of(JobSpec::new("k", serde_json::Value::Null));
    assert_eq!(story.0.claim(), 1);
    let refused = Err(Refusal::NotAWorkflow { job: job() });
    assert_eq!(story.append(0, &[b"a"], &[]), refused);
    assert_eq!(story.send(true.into()), refused);
    assert_eq!(story.park(None, None), refused);
    assert_eq!(story.execution(), None);
}

#[test]
fn a_message_wakes_who_waits_for_it_and_stays_until_it_is_consumed() {
    let mut story = Story::claimed();
    assert_eq!(story.park(None, Some(0)), parked(WaitsFor::Message));
    assert_eq!(
        story.due(i64::MAX),
        Ok(Effect::Due {
            count: 0,
            next_ms: None
        })
    );
    assert_eq!(story.0.claim(), 0);
    let sent = |number, waits_for| Ok(Effect::Sent { number, waits_for });
    assert_eq!(story.send(1.into()), sent(1, Some(WaitsFor::Worker)));
    assert_eq!(story.send(2.into()), sent(2, Some(WaitsFor::Worker)));
    assert_eq!(story.0.claim(), 1);
    assert_eq!(story.send(3.into()), sent(3, None));
    assert_eq!(
        story.append(0, &[b"got 2"], &[2, 77]),
        Ok(Effect::Appended { next: 1 })
    );
    assert_eq!(story.inbox(), [1, 3]);
    // One that it has not seen is there already.
    assert_eq!(story.park(None, Some(2)), parked(WaitsFor::Worker));
    assert_eq!(story.0.claim(), 1);
    assert_eq!(story.park(None, Some(3)), parked(WaitsFor::Message));
}

#[test]
fn a_finished_workflow_receives_nothing() {
    let mut story = Story::claimed();
    story.start();
    let result = serde_json::Value::Null;
    story.finish(Report::Succeeded { result }).unwrap();
    let state = JobState::Completed;
    assert_eq!(story.send(1.into()), Err(Refusal::Finished { state }));
}

#[test]
fn one_that_sleeps_leaves_no_attempt_and_wakes_at_its_time() {
    let mut story = Story::claimed();
    for night in 1..=20 {
        let token = story.token();
        assert_eq!(token, FencingToken(night));
        let log = Change::Log {
            job: job(),
            token,
            number: 0,
            stream: Stream::Stdout,
            bytes: b"good night".to_vec(),
        };
        story.0.apply(log).unwrap();
        // Every second time for a message as well, which does not come.
        let (seen, waits_for) = match night % 2 {
            0 => (None, WaitsFor::RunAfter),
            _ => (Some(0), WaitsFor::Message),
        };
        assert_eq!(story.park(Some(night * 10), seen), parked(waits_for));
        assert_eq!(story.job().run_after_ms, Some(UnixMillis(night * 10)));
        let next_ms = Some(UnixMillis(night * 10));
        let early = story.due(night * 10 - 1);
        assert_eq!(early, Ok(Effect::Due { count: 0, next_ms }));
        let due = story.due(night * 10);
        assert_eq!(
            due,
            Ok(Effect::Due {
                count: 1,
                next_ms: None
            })
        );
        assert_eq!(story.0.claim(), 1);
    }
    let attempts = story.0.ask(&Query::Attempts { job: job() });
    assert!(matches!(attempts, Answer::Attempts { attempts } if attempts.len() == 1));
    let log = story.0.ask(&Query::Log {
        job: job(),
        token: FencingToken(7),
        from: 0,
        limit: 9,
    });
    assert_eq!(log, Answer::Log { chunks: [].into() });
    assert_eq!((story.job().failures, story.job().losses), (0, 0));
}

#[test]
fn a_workflow_that_is_to_be_cancelled_is_so_when_it_is_parked() {
    let mut story = Story::new();
    let mut waits = JobSpec::new("k", serde_json::Value::Null);
    waits.dependencies = vec![job()];
    story.0.submit("waits", waits).unwrap();
    assert_eq!(story.0.claim(), 1);
    let reason = Some("not needed".to_owned());
    story
        .0
        .apply(Change::Cancel { job: job(), reason })
        .unwrap();
    assert_eq!(
        story.park(Some(1), None),
        Ok(Effect::Parked {
            state: JobState::Cancelled,
            waits_for: None,
            dependents: true,
        })
    );
    assert_eq!(story.job().error.as_deref(), Some("not needed"));
    assert_eq!(
        story.due(9),
        Ok(Effect::Due {
            count: 0,
            next_ms: None
        })
    );
}

#[test]
fn the_reason_to_cancel_is_what_is_told_in_the_end() {
    let cancel = |reason: Option<&str>| Change::Cancel {
        job: job(),
        reason: reason.map(str::to_owned),
    };
    let error = |story: &Story| story.job().error.clone().unwrap_or_default();

    let mut story = Story::new();
    story.0.apply(cancel(Some("too late"))).unwrap();
    assert_eq!(error(&story), "too late");

    let mut story = Story::claimed();
    story.0.apply(cancel(Some("too late"))).unwrap();
    story.0.apply(cancel(None)).unwrap();
    story.finish(Report::Cancelled).unwrap();
    assert_eq!(error(&story), "too late");

    let mut story = Story::claimed();
    story.0.apply(cancel(None)).unwrap();
    story.finish(Report::Cancelled).unwrap();
    assert_eq!(error(&story), "the worker stopped the job");

    // Of what was done all the same nothing is wrong.
    let mut story = Story::claimed();
    story.start();
    story.0.apply(cancel(Some("too late"))).unwrap();
    let result = serde_json::Value::Null;
    story.finish(Report::Succeeded { result }).unwrap();
    assert_eq!(story.job().error, None);
}

#[test]
fn a_paused_job_rests_until_it_is_resumed() {
    let mut story = Story::new();
    let state = JobState::Pending;
    assert_eq!(story.pause(None), Ok(Effect::Paused { state }));
    assert_eq!(story.pause(Some("later")), Ok(Effect::Paused { state }));
    assert_eq!(story.job().paused.as_deref(), Some("later"));
    assert!(story.execution().unwrap().paused);
    assert_eq!(story.0.claim(), 0);
    let resumed = |waits_for, next_ms| Ok(Effect::Resumed { waits_for, next_ms });
    assert_eq!(story.resume(), resumed(Some(WaitsFor::Worker), None));
    assert_eq!(story.resume(), Err(Refusal::NotPaused));
    assert_eq!(story.0.claim(), 1);
    // Its worker is told, and gives it back; or is lost.
    let state = JobState::Claimed;
    assert_eq!(story.pause(None), Ok(Effect::Paused { state }));
    let token = story.token();
    let renew = story.0.apply(Change::Renew { job: job(), token });
    assert!(matches!(
        renew,
        Ok(Effect::Renewed {
            cancel: false,
            pause: true,
            ..
        })
    ));
    assert_eq!(story.park(Some(5), None), parked(WaitsFor::Paused));
    assert_eq!(
        story.due(9),
        Ok(Effect::Due {
            count: 0,
            next_ms: None
        })
    );
    assert_eq!(story.resume(), resumed(Some(WaitsFor::Worker), None));
    assert_eq!(story.0.claim(), 1);
    story.pause(None).unwrap();
    assert_eq!(story.resume(), resumed(None, None));
    story.pause(None).unwrap();
    story.expire().unwrap();
    assert_eq!(story.job().waits_for, Some(WaitsFor::Paused));
    // A message does not wake it.
    story.send(1.into()).unwrap();
    assert_eq!(story.0.claim(), 0);
    let cancel = Change::Cancel {
        job: job(),
        reason: None,
    };
    story.0.apply(cancel).unwrap();
    assert_eq!(story.job().paused, None);
    let state = JobState::Cancelled;
    assert_eq!(story.pause(None), Err(Refusal::CannotPause { state }));
}

#[test]
fn what_a_paused_job_waited_for_holds_again() {
    let mut spec = JobSpec::new("k", serde_json::Value::Null);
    spec.run_after_ms = Some(UnixMillis(50));
    let mut story = Story::of(spec);
    story.pause(None).unwrap();
    assert_eq!(
        story.due(99),
        Ok(Effect::Due {
            count: 0,
            next_ms: None
        })
    );
    let waits_for = Some(WaitsFor::RunAfter);
    let next_ms = Some(UnixMillis(50));
    assert_eq!(story.resume(), Ok(Effect::Resumed { waits_for, next_ms }));
    story.due(50).unwrap();
    assert_eq!(story.0.claim(), 1);
    let state = JobState::Claimed;
    assert_eq!(story.pause(None), Err(Refusal::CannotPause { state }));

    // The ends of others are told to it while it rests.
    let mut both = Both::new();
    let plain = || JobSpec::new("k", serde_json::Value::Null);
    both.submit("a", plain()).unwrap();
    both.submit("b", plain()).unwrap();
    let mut spec = plain();
    spec.dependencies = ["a", "b"].map(|id| JobId(id.into())).into();
    spec.on_dependency_failure = crate::job::DependencyFailure::Run;
    both.submit(JOB, spec).unwrap();
    let mut story = Story(both);
    story.pause(None).unwrap();
    let mut end = |id: &str| {
        let job = JobId(id.into());
        story.0.apply(Change::Cancel { job, reason: None }).unwrap();
        story.0.apply(Change::Settle { steps: 9 }).unwrap();
    };
    end("a");
    end("b");
    assert_eq!(story.job().waits_for, Some(WaitsFor::Paused));
    let waits_for = Some(WaitsFor::Worker);
    assert_eq!(
        story.resume(),
        Ok(Effect::Resumed {
            waits_for,
            next_ms: None
        })
    );
}

#[test]
fn a_retry_cuts_the_journal_if_it_is_told_to() {
    let mut story = Story::claimed();
    story.append(0, &[b"a", b"bb"], &[]).unwrap();
    let token = story.token();
    story
        .append_with(token, 2, &[b"ccc"], &[], Some(2))
        .unwrap();
    // The first one that is told is kept.
    story.append_with(token, 3, &[b"d"], &[], Some(3)).unwrap();
    assert_eq!(story.execution().unwrap().response, Some(2));
    let retry = |keep| Change::Retry {
        job: job(),
        keep_frames: NonZeroU64::new(keep),
    };
    let fail = |story: &mut Story| story.finish(Report::failed("no", true)).unwrap();
    fail(&mut story);
    assert_eq!(story.0.apply(retry(0)), Ok(Effect::Retried));
    assert_eq!(story.execution().unwrap().frames, 4);
    for (keep, frames, bytes, response) in [(9, 4, 7, Some(2)), (3, 3, 6, Some(2)), (2, 2, 3, None)]
    {
        assert_eq!(story.0.claim(), 1);
        fail(&mut story);
        story.0.apply(retry(keep)).unwrap();
        let expected = Execution {
            frames,
            bytes,
            response,
            messages: 0,
            paused: false,
        };
        assert_eq!(story.execution(), Some(expected));
    }
    assert_eq!(story.frames(0, 9), [&b"a"[..], b"bb"]);
    assert_eq!(story.0.claim(), 1);
    assert_eq!(
        story.append(2, &[b"e"], &[]),
        Ok(Effect::Appended { next: 3 })
    );

    let mut other = Story::of(JobSpec::new("k", serde_json::Value::Null));
    assert_eq!(other.0.claim(), 1);
    fail(&mut other);
    let refused = Err(Refusal::NotAWorkflow { job: job() });
    assert_eq!(other.0.apply(retry(1)), refused);
    assert_eq!(other.0.apply(retry(0)), Ok(Effect::Retried));
}

#[test]
fn what_a_removed_workflow_had_goes_in_bounded_steps() {
    let mut story = Story::claimed();
    let frame: &[u8] = b"f";
    for append in 0..5 {
        story.append(append * 64, &[frame; 64], &[]).unwrap();
    }
    story.append(5 * 64, &[frame; 10], &[]).unwrap();
    story.send(1.into()).unwrap();
    story.finish(Report::Cancelled).unwrap();
    let left = |story: &Story, table: &str| -> isize {
        let count = format!("SELECT count(*) FROM {table}");
        let database = &story.0.database.0;
        database.query_row(&count, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(story.prune(), Ok(Effect::Pruned { count: 3 }));
    assert_eq!(story.execution(), None);
    assert_eq!(story.frames(0, 9), [b""; 0]);
    assert_eq!(left(&story, "messages") + left(&story, "executions"), 0);
    assert_eq!(left(&story, "frames"), 2 * 64 + 10);
    assert_eq!(story.prune(), Ok(Effect::Pruned { count: 3 }));
    assert_eq!(left(&story, "frames") + left(&story, "leftovers"), 0);
    assert_eq!(story.prune(), Ok(Effect::Pruned { count: 0 }));
}

#[test]
fn a_journal_and_an_inbox_have_limits() {
    let mut story = Story::claimed();
    let most = vec![0; APPEND_BYTES_MAX];
    let times = JOURNAL_BYTES_MAX / APPEND_BYTES_MAX as u64;
    for number in 0..times - 1 {
        story.append(number, &[&most], &[]).unwrap();
    }
    // All but one byte, and then two.
    story.append(times - 1, &[&most[1..]], &[]).unwrap();
    assert_eq!(
        story.append(times, &[b"ab"], &[]),
        Err(Refusal::JournalFull)
    );
    story.append(times, &[b"a"], &[]).unwrap();

    let text = |length: usize| "x".repeat(length - 2).into();
    let times = INBOX_BYTES_MAX / MESSAGE_BYTES_MAX as u64;
    for _ in 0..times {
        story.send(text(MESSAGE_BYTES_MAX)).unwrap();
    }
    assert_eq!(story.send(1.into()), Err(Refusal::InboxFull));
    story
        .append(1_025, &[], &(1..=times).collect::<Vec<_>>())
        .unwrap();
    for _ in 0..INBOX_MESSAGES_MAX {
        story.send(1.into()).unwrap();
    }
    assert_eq!(story.send(1.into()), Err(Refusal::InboxFull));
    story.append(1_025, &[], &[times + 1]).unwrap();
    story.send(1.into()).unwrap();
}

#[test]
fn the_number_of_frames_has_a_limit() {
    let mut story = Story::claimed();
    let frames = [&b"f"[..]; 1_000];
    for thousand in 0..JOURNAL_FRAMES_MAX / 1_000 {
        story.append(thousand * 1_000, &frames, &[]).unwrap();
    }
    let next = JOURNAL_FRAMES_MAX;
    assert_eq!(story.append(next, &[b"f"], &[]), Err(Refusal::JournalFull));
    assert_eq!(story.append(next, &[], &[]), Ok(Effect::Appended { next }));
}

fn put(hash: &str, number: u32, bytes: &[u8]) -> Change {
    Change::PutChunk {
        hash: hash.into(),
        number,
        bytes: bytes.to_vec(),
    }
}

fn deploy(name: &str, version: &str, hash: &str, bytes: u64, chunks: u32) -> Change {
    Change::Deploy {
        name: name.into(),
        version: version.into(),
        hash: hash.into(),
        bytes,
        chunks,
    }
}

#[test]
fn a_module_is_deployed_when_all_of_it_is_there() {
    let mut both = Both::new();
    let mut apply = |change| both.apply(change);
    let incomplete = |chunks, bytes| Err(Refusal::ModuleIncomplete { chunks, bytes });
    let deployed = |existing| Ok(Effect::Deployed { existing });
    apply(put("h", 1, b"bc")).unwrap();
    assert_eq!(apply(deploy("m", "1", "h", 3, 2)), incomplete(1, 2));
    apply(put("h", 0, b"wrong")).unwrap();
    assert_eq!(apply(deploy("m", "1", "h", 3, 2)), incomplete(2, 7));
    apply(put("h", 0, b"a")).unwrap();
    assert_eq!(apply(deploy("m", "1", "h", 3, 2)), deployed(false));
    assert_eq!(apply(deploy("m", "1", "h", 3, 2)), deployed(true));
    apply(put("other", 0, b"o")).unwrap();
    assert_eq!(
        apply(deploy("m", "1", "other", 1, 1)),
        Err(Refusal::VersionTaken {
            name: "m".into(),
            version: "1".into()
        })
    );
    assert_eq!(apply(deploy("m", "2", "h", 3, 2)), deployed(false));
    // What is deployed stays as it is.
    apply(put("h", 0, b"x")).unwrap();
    let chunk = |hash: &str, number| {
        let hash = hash.into();
        match both.ask(&Query::Chunk { hash, number }) {
            Answer::Chunk { chunk } => chunk.map(|hex| hex.bytes()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(chunk("h", 0), Some(b"a".to_vec()));
    assert_eq!(chunk("h", 1), Some(b"bc".to_vec()));
    assert_eq!(chunk("h", 2), None);
    let Answer::Modules { modules } = both.ask(&Query::Modules) else {
        panic!()
    };
    let versions = modules.iter().map(|module| &*module.version);
    assert_eq!(versions.collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn chunks_that_nobody_deploys_go_when_they_are_old() {
    let mut both = Both::new();
    for number in 0..70 {
        both.apply(put("stray", number, b"s")).unwrap();
    }
    both.apply(put("used", 0, b"u")).unwrap();
    both.apply(deploy("m", "1", "used", 1, 1)).unwrap();
    let mut prune = |before| {
        both.apply(Change::Prune {
            keep: 9,
            before_ms: None,
            chunks_before_ms: Some(UnixMillis(before)),
            steps: 1,
        })
    };
    // They came at 1.
    assert_eq!(prune(1), Ok(Effect::Pruned { count: 0 }));
    assert_eq!(prune(2), Ok(Effect::Pruned { count: 1 }));
    assert_eq!(prune(2), Ok(Effect::Pruned { count: 1 }));
    assert_eq!(prune(2), Ok(Effect::Pruned { count: 0 }));
    let count = "SELECT group_concat(hash) FROM chunks";
    let left: String = both
        .database
        .0
        .query_row(count, [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, "used");
}

#[test]
fn modules_have_a_limit() {
    let mut both = Both::new();
    both.apply(put("h", 0, b"m")).unwrap();
    for version in 0..MODULES_MAX {
        both.apply(deploy("m", &version.to_string(), "h", 1, 1))
            .unwrap();
    }
    let more = both.apply(deploy("m", "more", "h", 1, 1));
    assert_eq!(more, Err(Refusal::TooManyModules));
}
