//! The core, command by command.

use std::time::UNIX_EPOCH;

use expect_test::{Expect, expect};

use super::*;
use crate::{
    abi::{HttpConfig, Line},
    id::Epoch,
};

const ID: ExecutionId = ExecutionId::new(7);

fn given() -> Given {
    Given {
        now: UNIX_EPOCH + Duration::from_millis(1_000),
        entropy: 0x0123_4567_89ab_cdef,
        caller_gone: false,
    }
}

fn get(idempotent: bool) -> Command {
    Command::HttpRequest(HttpRequest {
        config: HttpConfig {
            idempotent,
            timeout: Duration::from_secs(120),
            response_body_limit: 10,
        },
        method: "GET".into(),
        url: "http://a/".into(),
        headers: vec![],
        body: String::new(),
    })
}

fn ok() -> Performed {
    Performed::Http(Box::new(Ok(HttpResponse {
        status_code: 200,
        url: "http://a/".into(),
        headers: vec![],
        body: String::new(),
    })))
}

fn live(past: Vec<Record>) -> Execution {
    Execution::new(ID, "null".into(), past, Mode::Live)
}

/// Begins a command, and if that has an effect, says how it went.
fn run(execution: &mut Execution, command: Command, performed: Option<Performed>) -> Answer {
    match (execution.submit(command, given()), performed) {
        (Step::Answer(answer), None) => answer,
        (Step::Perform(_), Some(performed)) => execution.performed(performed, given().now).unwrap(),
        (step, performed) => panic!("{step:?}, {performed:?}"),
    }
}

/// What a guest does that uses every command; its answers.
fn everything(execution: &mut Execution, replays: bool) -> Vec<Answer> {
    let log = Command::Log(Line::Info("a".into()));
    let receive = Command::RecvMessage(Some(Duration::from_secs(1)), vec!["b".into()]);
    let received = Performed::Received {
        number: 3,
        kind: "b".into(),
        data: "1".into(),
    };
    let commands = [
        (Command::GetInput, None),
        (log, Some(Performed::Logged)),
        (Command::Random(Number::F64(0.0)), None),
        (Command::TimeNow, None),
        (
            Command::Sleep(Duration::from_millis(5)),
            Some(Performed::Slept),
        ),
        (get(false), Some(ok())),
        (receive, Some(received)),
        (
            Command::RecvMessage(None, vec![]),
            Some(Performed::TimedOut),
        ),
        (
            Command::StartWorkflow("w".into(), "null".into()),
            Some(Performed::Started),
        ),
        (Command::ReplayDebug("x".into()), None),
        (
            Command::SendResponse("1".into()),
            Some(Performed::Responded { heard: true }),
        ),
    ];
    let performed = |performed| if replays { None } else { performed };
    commands
        .map(|(command, effect)| run(execution, command, performed(effect)))
        .into()
}

#[test]
fn a_second_run_is_told_what_the_first_one_was() {
    let mut first = live(vec![]);
    let told = everything(&mut first, false);
    let mut journal = first.take_fresh();
    assert_eq!(journal.len(), 12, "an intent, two waits, nine answers");
    // Owners change anywhere.
    for place in [0, 3, 6] {
        journal.insert(
            place,
            Record::Taken {
                epoch: Epoch(1),
                by: "node1".into(),
                at: UnixMillis(0),
            },
        );
    }
    let mut second = live(journal);
    assert_eq!(everything(&mut second, true), told);
    assert_eq!(second.take_fresh(), []);
    assert_eq!(second.ended(), Ok(()));
}

#[test]
fn what_was_under_way_is_interrupted_or_done_again() {
    for idempotent in [false, true] {
        let mut first = live(vec![]);
        assert!(matches!(
            first.submit(get(idempotent), given()),
            Step::Perform(Effect::Http(_))
        ));
        let asked = first.take_fresh();
        assert!(matches!(asked[..], [Record::Asked { .. }]));
        let mut second = live(asked);
        match second.submit(get(idempotent), given()) {
            Step::Perform(Effect::Http(_)) if idempotent => {
                assert!(matches!(second.take_fresh()[..], [Record::Asked { .. }]));
                second.performed(ok(), given().now).unwrap();
            }
            Step::Answer(Answer::HttpResponse(Err(HttpError::Transport(error)))) if !idempotent => {
                assert_eq!(error.kind, HttpErrorKind::RequestInterrupted);
            }
            step => panic!("{step:?}"),
        }
        assert!(matches!(
            second.take_fresh()[..],
            [Record::Answered { what: None, .. }]
        ));
    }
}

#[test]
fn a_wait_keeps_its_deadline() {
    let sleep = Command::Sleep(Duration::from_nanos(2_000_001));
    let receive = Command::RecvMessage(Some(Duration::from_millis(9)), vec!["b".into()]);
    let mut first = live(vec![]);
    assert_eq!(
        first.submit(sleep.clone(), given()),
        Step::Perform(Effect::Sleep {
            until: UnixMillis(1_003)
        })
    );
    let later = Given {
        now: given().now + Duration::from_secs(60),
        ..given()
    };
    let mut second = live(first.take_fresh());
    assert_eq!(
        second.submit(sleep, later),
        Step::Perform(Effect::Sleep {
            until: UnixMillis(1_003)
        })
    );
    second.performed(Performed::Slept, later.now).unwrap();
    second.submit(receive.clone(), given());
    let mut third = live(second.take_fresh()[1..].to_vec());
    let Step::Perform(Effect::Receive { until, .. }) = third.submit(receive, later) else {
        panic!("it waits")
    };
    assert_eq!(until, Some(UnixMillis(1_009)));
}

#[test]
fn another_guest_is_told_where_it_differs() {
    let check = |past: &[Command], now: Option<Command>, expected: Expect| {
        let mut first = live(vec![]);
        for command in past {
            if let Step::Perform(_) = first.submit(command.clone(), given()) {
                first.performed(Performed::Logged, given().now).unwrap();
            }
        }
        let mut second = Execution::new(ID, "null".into(), first.take_fresh(), Mode::Replay);
        let halt = match now {
            Some(command) => match second.submit(command, given()) {
                Step::Stop(halt) => halt,
                step => panic!("{step:?}"),
            },
            None => second.ended().unwrap_err(),
        };
        expected.assert_eq(&halt.to_string());
    };
    let log = |text: &str| Command::Log(Line::Warn(text.into()));
    check(
        &[log("a")],
        Some(log("b")),
        expect![[
            r#"the module diverged from its journal at step 0: it asked for `log warn "b"`, the journal has `log warn "a"`"#
        ]],
    );
    check(
        &[log("a")],
        Some(Command::TimeNow),
        expect![[
            r#"the module diverged from its journal at step 0: it asked for `time`, the journal has `log warn "a"`"#
        ]],
    );
    check(
        &[log("a")],
        None,
        expect![[
            r#"the module diverged from its journal at step 0: it asked for `its end`, the journal has `log warn "a"`"#
        ]],
    );
    check(
        &[],
        Some(get(true)),
        expect!["the journal ends before step 0: `GET http://a/, idempotent`"],
    );
}

#[test]
fn secrets_are_in_no_record() {
    let secret = Command::GetSecret("TOKEN".into());
    let said = Command::Log(Line::Info("it is s3cret".into()));
    let mut first = live(vec![]);
    let told = Performed::Secret(Some("s3cret".into()));
    assert_eq!(
        run(&mut first, secret.clone(), Some(told.clone())),
        Answer::Secret(Some("s3cret".into()))
    );
    run(&mut first, said.clone(), Some(Performed::Logged));
    let journal = first.take_fresh();
    let text = serde_json::to_string(&journal).unwrap();
    assert!(
        !text.contains("s3cret") && text.contains("it is [TOKEN]"),
        "{text}"
    );
    // Again, with the secret, and in a replay by somebody who does not have it.
    let mut second = live(journal.clone());
    assert_eq!(
        run(&mut second, secret.clone(), Some(told)),
        Answer::Secret(Some("s3cret".into()))
    );
    assert_eq!(run(&mut second, said, None), Answer::Unit);
    let mut replay = Execution::new(ID, "null".into(), journal, Mode::Replay);
    let stand_in = Performed::Secret(Some("[TOKEN]".into()));
    run(&mut replay, secret, Some(stand_in));
    let said = Command::Log(Line::Info("it is [TOKEN]".into()));
    assert_eq!(run(&mut replay, said, None), Answer::Unit);
}

#[test]
fn a_response_is_taken_once_and_only_if_somebody_is_there() {
    let respond = || Command::SendResponse("1".into());
    let mut execution = live(vec![]);
    assert_eq!(
        run(
            &mut execution,
            respond(),
            Some(Performed::Responded { heard: true })
        ),
        Answer::ResponseSent(true)
    );
    assert_eq!(
        run(&mut execution, respond(), None),
        Answer::ResponseSent(false)
    );
    let mut execution = live(vec![]);
    let gone = Given {
        caller_gone: true,
        ..given()
    };
    let Step::Perform(Effect::Respond { heard, .. }) = execution.submit(respond(), gone) else {
        panic!("it responds")
    };
    let answer = execution.performed(Performed::Responded { heard }, gone.now);
    assert_eq!(answer, Ok(Answer::ResponseSent(false)));
    // The next owner is told the same.
    let mut next = live(execution.take_fresh());
    assert_eq!(run(&mut next, respond(), None), Answer::ResponseSent(false));
}

#[test]
fn random_floats_are_within_their_bounds() {
    for entropy in [0, u64::MAX, 1 << 63, 0x0123_4567_89ab_cdef] {
        let (Number::F32(single), Number::F64(double)) = (
            random(Number::F32(0.0), entropy),
            random(Number::F64(0.0), entropy),
        ) else {
            panic!("the types are kept")
        };
        assert!((0.0..1.0).contains(&single) && (0.0..1.0).contains(&double));
    }
}
