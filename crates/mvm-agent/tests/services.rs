//! Services belong to the guest and not to a conversation, with the real daemon.

#![cfg(all(feature = "client", feature = "daemon"))]
// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use mvm_agent::{
    client::{
        Agent, AgentError, ExitStatus, FollowedService, ServiceCommand, ServiceEvent, ServiceState,
    },
    protocol::{BACKLOG_BYTES_MAX, Cause, SERVICES_MAX},
};
use support::{
    Guest, HANG, check_counted, counting, is_alive, next_counted, wait_for_service, wait_gone,
};

const BACKLOG: u64 = BACKLOG_BYTES_MAX as u64;

fn has_ended(info: &mvm_agent::client::ServiceInfo) -> bool {
    matches!(info.state, ServiceState::Ended(_))
}

/// Reads a service to its end: all that it wrote since the follower's place, and its status.
async fn read_to_end(follower: &mut FollowedService) -> (Vec<u8>, ExitStatus) {
    let mut output = Vec::new();
    let status = loop {
        match follower.next_event().await.unwrap() {
            Some(ServiceEvent::Output { bytes, .. }) => output.extend_from_slice(&bytes),
            Some(ServiceEvent::Ended(status)) => break status,
            None => panic!("no status after {output:?}"),
        }
    };
    assert_eq!(follower.next_event().await.unwrap(), None);
    (output, status)
}

/// Reads as many lines, each a number.
async fn numbers(follower: &mut FollowedService, count: usize) -> Vec<i32> {
    let mut text = String::new();
    while text.lines().count() < count || !text.ends_with('\n') {
        match follower.next_event().await.unwrap() {
            Some(ServiceEvent::Output { bytes, .. }) => {
                text.push_str(std::str::from_utf8(&bytes).unwrap());
            }
            other => panic!("{other:?} after {text:?}"),
        }
    }
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// Starts a script whose end nobody waits for and follows it from the beginning.
async fn start(agent: &Agent, name: &str, script: impl Into<String>) -> (i32, FollowedService) {
    let pid = agent
        .start_service(ServiceCommand::shell(name, script))
        .await
        .unwrap();
    (pid, agent.follow_service(name, 0).await.unwrap())
}

#[tokio::test]
async fn a_service_outlives_conversations_and_its_output_goes_on_where_it_was_left() {
    let guest = Guest::start();
    let mut agent = guest.connect().await.unwrap();
    // It writes while conversations change, and less than is kept, so that nothing may be lost.
    let script =
        "i=0; while [ $i -lt 100000 ]; do printf '%07d\\n' $i; i=$((i+1)); done; sleep 1000";
    let (pid, mut follower) = start(&agent, "counter", script).await;
    for _ in 0..5 {
        let enough = follower.offset() + 150_000;
        while follower.offset() < enough {
            next_counted(&mut follower).await;
        }
        // The old conversation breaks off in the middle of the service's output.
        let left_at = follower.offset();
        drop((agent, follower));
        agent = guest.connect().await.unwrap();
        follower = agent.follow_service("counter", left_at).await.unwrap();
        assert_eq!(follower.offset(), left_at, "nothing was lost");
        assert!(is_alive(pid));
    }
    while follower.offset() < 800_000 {
        next_counted(&mut follower).await;
    }
    agent.signal_service("counter", 9).await.unwrap();
    let told = read_to_end(&mut follower).await;
    assert_eq!(told, (Vec::new(), ExitStatus::Signal(9)));
}

#[tokio::test]
async fn a_flood_that_nobody_follows_drops_the_oldest_bytes() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let script = counting(Some(500_000));
    let command = ServiceCommand::shell("flood", script);
    agent.start_service(command).await.unwrap();
    let info = wait_for_service(&agent, "flood", has_ended).await;
    assert_eq!(info.state, ServiceState::Ended(ExitStatus::Code(0)));
    wait_for_service(&agent, "flood", |info| info.output_offset == 4_000_000).await;

    let mut follower = agent.follow_service("flood", 5).await.unwrap();
    assert_eq!(follower.offset(), 4_000_000 - BACKLOG);
    let (output, status) = read_to_end(&mut follower).await;
    check_counted(4_000_000 - BACKLOG, &output);
    assert_eq!(
        (output.len() as u64, status),
        (BACKLOG, ExitStatus::Code(0))
    );

    let mut follower = agent.follow_service("flood", 3_999_990).await.unwrap();
    assert_eq!(read_to_end(&mut follower).await.0, b"8\n0499999\n");
    let mut follower = agent.follow_service("flood", u64::MAX).await.unwrap();
    assert_eq!(follower.offset(), 4_000_000);
    assert_eq!(read_to_end(&mut follower).await.0, b"");
}

#[tokio::test]
async fn a_flood_waits_for_its_slow_follower() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.01; done; {}",
        gate.display(),
        counting(Some(1_000_000))
    );
    let (_, mut follower) = start(&agent, "flood", script).await;
    let mut other = agent.follow_service("flood", 0).await.unwrap();
    std::fs::write(&gate, "").unwrap();
    // Nothing is read, so all that is kept is what was not got: the service stands still at its limit.
    wait_for_service(&agent, "flood", |info| info.output_offset == BACKLOG).await;
    let output = agent.shell("echo others go on").output().await.unwrap();
    assert_eq!(output.stdout, b"others go on\n");
    while other.offset() < BACKLOG {
        next_counted(&mut other).await;
    }
    let info = wait_for_service(&agent, "flood", |_| true).await;
    assert_eq!(info.state, ServiceState::Running, "the slower one counts");
    assert_eq!(info.output_offset, BACKLOG, "the slower one counts");
    drop(other);
    while follower.offset() < 8_000_000 {
        next_counted(&mut follower).await;
    }
    assert_eq!(
        read_to_end(&mut follower).await,
        (Vec::new(), ExitStatus::Code(0))
    );
}

#[tokio::test]
async fn a_late_follower_is_told_everything() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    for (name, script, expected) in [
        (
            "three",
            "echo out; echo err >&2; exit 3",
            ExitStatus::Code(3),
        ),
        (
            "killed",
            "echo out; echo err >&2; kill -9 $$",
            ExitStatus::Signal(9),
        ),
        (
            "closed",
            "echo out; echo err >&2; exec >&- 2>&-; exit 4",
            ExitStatus::Code(4),
        ),
    ] {
        let command = ServiceCommand::shell(name, script);
        let pid = agent.start_service(command).await.unwrap();
        let info = wait_for_service(&agent, name, has_ended).await;
        assert_eq!((info.pid, info.state), (pid, ServiceState::Ended(expected)));
        for _ in 0..2 {
            let mut follower = agent.follow_service(name, 0).await.unwrap();
            let told = read_to_end(&mut follower).await;
            assert_eq!(told, (b"out\nerr\n".to_vec(), expected));
        }
    }
    let names = agent.services().await.unwrap().into_iter();
    let names: Vec<String> = names.map(|info| info.name).collect();
    assert_eq!(names, ["three", "killed", "closed"]);
}

#[tokio::test]
async fn a_service_gets_what_it_is_given() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    let command = ServiceCommand::new("given", "sh")
        .args(["-c", "cat; pwd; echo $1 $COLOUR", "sh"])
        .arg("word")
        .env("COLOUR", "green")
        .cwd(path.to_str().unwrap());
    agent.start_service(command).await.unwrap();
    let mut follower = agent.follow_service("given", 0).await.unwrap();
    let (output, status) = read_to_end(&mut follower).await;
    assert_eq!(
        output,
        format!("{}\nword green\n", path.display()).into_bytes()
    );
    assert!(status.success());
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let sleeper = |name: &str| ServiceCommand::new(name, "sleep").arg("1000");
    #[track_caller]
    fn check<T>(result: Result<T, AgentError>, words: &[&str]) {
        let Err(error @ AgentError::Guest { .. }) = result else {
            panic!("not refused")
        };
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
    for name in ["", "a b", "a/b", "\u{e9}", &"x".repeat(65)] {
        check(agent.start_service(sleeper(name)).await, &["a-z", name]);
    }
    let pid = agent.start_service(sleeper("one")).await.unwrap();
    check(
        agent.start_service(sleeper("one")).await,
        &["`one`", "runs already", &pid.to_string()],
    );
    check(
        agent.follow_service("two", 0).await,
        &["`two`", "no service"],
    );
    check(
        agent.signal_service("two", 9).await,
        &["`two`", "no service"],
    );
    check(agent.signal_service("one", 1000).await, &["1000"]);
    let missing = ServiceCommand::new("two", "no-such-program");
    check(
        agent.start_service(missing).await,
        &["`two`", "no-such-program"],
    );
    let astray = sleeper("two").cwd("/no/such/folder");
    check(
        agent.start_service(astray).await,
        &["`two`", "/no/such/folder"],
    );
    assert_eq!(agent.services().await.unwrap().len(), 1);

    for number in 1..SERVICES_MAX {
        let command = ServiceCommand::new(format!("more-{number}"), "true");
        agent.start_service(command).await.unwrap();
    }
    check(agent.start_service(sleeper("last")).await, &["64"]);
    // One that ended makes room for its successor.
    wait_for_service(&agent, "more-1", has_ended).await;
    agent.start_service(sleeper("more-1")).await.unwrap();
}

#[tokio::test]
async fn a_signal_reaches_the_whole_group() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let script = "sleep 1000 & echo $!; sleep 1000 & echo $!; wait";
    let (leader, mut follower) = start(&agent, "group", script).await;
    let children = numbers(&mut follower, 2).await;
    agent.signal_service("group", 15).await.unwrap();
    assert_eq!(read_to_end(&mut follower).await.1, ExitStatus::Signal(15));
    for pid in [leader, children[0], children[1]] {
        wait_gone(pid).await;
    }
}

#[tokio::test]
async fn a_group_that_lost_its_leader_is_still_reached() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let script = "sleep 1000 & echo $!; exit 5";
    let (leader, mut follower) = start(&agent, "orphans", script).await;
    let orphan = numbers(&mut follower, 1).await[0];
    // The orphan holds the output open: the end is told all the same.
    assert_eq!(read_to_end(&mut follower).await.1, ExitStatus::Code(5));
    wait_gone(leader).await;
    assert!(is_alive(orphan));
    agent.signal_service("orphans", 0).await.unwrap();
    agent.signal_service("orphans", 9).await.unwrap();
    wait_gone(orphan).await;
    let begin = std::time::Instant::now();
    loop {
        match agent.signal_service("orphans", 9).await {
            Ok(()) => assert!(begin.elapsed() < HANG, "nobody noticed that all are gone"),
            Err(AgentError::Guest { cause, .. }) => break assert_eq!(cause, Cause::Os(3)),
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn a_service_is_replaced_once_it_ended_and_its_follower_still_hears_the_end() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let script = format!("sleep 1000 >/dev/null 2>&1 & {}", counting(Some(60_000)));
    let (_, mut first) = start(&agent, "again", script).await;
    let old = wait_for_service(&agent, "again", |info| {
        has_ended(info) && info.output_offset == 480_000
    })
    .await;
    // More than a window of it is still in the guest.
    let (pid, mut second) = start(&agent, "again", "echo $0 second; sleep 1000").await;
    assert_ne!(pid, old.pid);
    let (output, status) = read_to_end(&mut first).await;
    check_counted(0, &output);
    assert_eq!((output.len(), status), (480_000, ExitStatus::Code(0)));
    let event = second.next_event().await.unwrap();
    let bytes = b"sh second\n"[..].into();
    assert_eq!(event, Some(ServiceEvent::Output { offset: 0, bytes }));
    let infos = agent.services().await.unwrap();
    assert_eq!(
        (infos.len(), infos[0].pid, infos[0].output_offset),
        (1, pid, 10)
    );
}

#[tokio::test]
async fn services_end_with_the_daemon() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let (leader, mut follower) = start(&agent, "one", "sleep 1000 & echo $!; wait").await;
    let child = numbers(&mut follower, 1).await[0];
    drop(guest);
    wait_gone(leader).await;
    wait_gone(child).await;
}
