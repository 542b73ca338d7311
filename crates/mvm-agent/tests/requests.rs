//! What a host can ask of a guest, with the real daemon.

#![cfg(all(feature = "client", feature = "daemon"))]
// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::{net::SocketAddr, os::unix::fs::PermissionsExt, time::Duration};

use mvm_agent::client::{AgentError, Event, ExitStatus, Identity, Running};
use support::{Guest, HANG, wait_gone};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Reads one line of standard output.
async fn line(running: &mut Running) -> String {
    let mut text = Vec::new();
    while text.last() != Some(&b'\n') {
        match running.next_event().await.unwrap() {
            Some(Event::Stdout(bytes)) => text.extend_from_slice(&bytes),
            other => panic!("{other:?} instead of a line; so far {text:?}"),
        }
    }
    String::from_utf8(text).unwrap().trim().to_owned()
}

#[tokio::test]
async fn commands_at_once_keep_their_outputs_apart() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let mut commands = JoinSet::new();
    for number in 0..40 {
        let agent = agent.clone();
        let script =
            format!("echo out {number}; echo err {number} >&2; sleep 0.0{number}; exit {number}");
        commands.spawn(async move { (number, agent.shell(script).output().await.unwrap()) });
    }
    while let Some(ended) = commands.join_next().await {
        let (number, output) = ended.unwrap();
        assert_eq!(output.status, ExitStatus::Code(number));
        assert_eq!(output.stdout, format!("out {number}\n").into_bytes());
        assert_eq!(output.stderr, format!("err {number}\n").into_bytes());
    }
}

#[tokio::test]
async fn standard_input_comes_back_whole() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    // Several windows, with every byte value.
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n * 31 / 7) as u8).collect();
    let output = agent
        .command("cat")
        .stdin_bytes(bytes.clone())
        .output()
        .await
        .unwrap();
    assert!(output.success());
    assert!(
        output.stdout == bytes,
        "{} bytes came back",
        output.stdout.len()
    );
}

#[tokio::test]
async fn output_is_seen_while_the_command_runs() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let mut running = agent
        .shell("echo ready; read answer; echo got $answer")
        .stdin_piped()
        .spawn()
        .await
        .unwrap();
    let mut stdin = running.take_stdin().unwrap();
    assert_eq!(line(&mut running).await, "ready");
    assert!(stdin.write_all(b"this\n").await.unwrap());
    assert_eq!(line(&mut running).await, "got this");
}

#[tokio::test]
async fn a_signal_is_told_from_an_exit_code() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let output = agent.shell("kill -9 $$").output().await.unwrap();
    assert_eq!(output.status, ExitStatus::Signal(9));
    let mut running = agent
        .shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done")
        .spawn()
        .await
        .unwrap();
    assert_eq!(line(&mut running).await, "ready");
    running.signal(15).unwrap();
    loop {
        match running.next_event().await.unwrap() {
            Some(Event::Exit(status)) => break assert_eq!(status, ExitStatus::Code(7)),
            Some(_) => {}
            None => panic!("no exit status"),
        }
    }
}

#[tokio::test]
async fn a_timeout_kills_the_whole_process_group() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let output = agent
        .shell("sleep 1000 & echo $!; (trap '' TERM; sleep 1000) & echo $!; wait")
        .timeout(Duration::from_millis(300))
        .output()
        .await
        .unwrap();
    assert_eq!(output.status, ExitStatus::TimedOut);
    let text = String::from_utf8(output.stdout).unwrap();
    let children: Vec<i32> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(children.len(), 2);
    for child in children {
        wait_gone(child).await;
    }
}

#[tokio::test]
async fn dropping_a_command_kills_it() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let mut running = agent
        .shell("echo $$; exec sleep 1000")
        .spawn()
        .await
        .unwrap();
    let pid = line(&mut running).await.parse().unwrap();
    drop(running);
    wait_gone(pid).await;
}

#[tokio::test]
async fn a_flood_that_nobody_reads_fills_a_window_and_no_more() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let before = guest.resident_bytes();
    let flood = agent.command("yes").spawn().await.unwrap();
    // The other streams live on.
    for _ in 0..50 {
        agent.ping(HANG).await.unwrap();
    }
    let output = agent.shell("echo still here").output().await.unwrap();
    assert_eq!(output.stdout, b"still here\n");
    let grown = guest.resident_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "the daemon grew by {grown} bytes");
    drop(flood);
    let output = agent
        .command("yes")
        .output_max_bytes(1000)
        .timeout(Duration::from_millis(200))
        .output()
        .await
        .unwrap();
    assert_eq!((output.stdout.len(), output.stdout_truncated), (1000, true));
    assert_eq!(output.status, ExitStatus::TimedOut);
}

#[tokio::test]
async fn what_cannot_be_started_is_named() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    for command in [
        agent.command("no-such-program"),
        agent.command("/dev/null"),
        agent.command("true").cwd("/no/such/folder"),
    ] {
        let error = command.output().await.unwrap_err();
        assert!(matches!(error, AgentError::Guest { .. }), "{error:?}");
    }
    let error = agent
        .command("no-such-program")
        .output()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("no-such-program"), "{error}");
    let huge = agent.command("true").arg("x".repeat(1 << 20));
    let error = huge.output().await.unwrap_err();
    assert!(matches!(error, AgentError::RequestTooLarge(_)), "{error:?}");
    agent.ping(HANG).await.unwrap();
}

#[tokio::test]
async fn files_travel_with_their_modes() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/file");
    let name = path.to_str().unwrap();
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    agent.upload(name, 0o751, &bytes).await.unwrap();
    assert!(std::fs::read(&path).unwrap() == bytes);
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
        0o751
    );
    let (content, mode) = agent.download(name, 2_000_000).await.unwrap();
    assert!(content == bytes);
    assert_eq!(mode & 0o7777, 0o751);

    let error = agent.download(name, 1000).await.unwrap_err();
    assert!(
        matches!(error, AgentError::FileTooLarge { .. }),
        "{error:?}"
    );
    let error = agent
        .download("/no/such/file", 1000)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("/no/such/file"), "{error}");
    let error = agent
        .upload("/proc/nothing", 0o600, b"x")
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("/proc/nothing"), "{error}");
}

#[tokio::test]
async fn ports_are_waited_for_and_forwarded() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    agent
        .wait_for_port("127.0.0.1", address.port(), HANG)
        .await
        .unwrap();
    let mut servers = JoinSet::new();
    servers.spawn(async move {
        // The first connection is the look at the port.
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.unwrap();
            bytes.reverse();
            // Whoever only looked is gone.
            let _ = stream.write_all(&bytes).await;
        }
    });
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let forward = agent.forward(here, address).await.unwrap();
    let mut connections = JoinSet::new();
    for number in 0..20_u8 {
        let local = forward.local_addr();
        connections.spawn(async move {
            let sent: Vec<u8> = (0..100_000_u32).map(|n| n as u8 ^ number).collect();
            let mut stream = TcpStream::connect(local).await.unwrap();
            stream.write_all(&sent).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut back = Vec::new();
            stream.read_to_end(&mut back).await.unwrap();
            back.reverse();
            assert!(back == sent, "{} bytes came back", back.len());
        });
    }
    while let Some(ended) = connections.join_next().await {
        ended.unwrap();
    }
    servers.shutdown().await;

    let error = agent
        .wait_for_port("127.0.0.1", address.port(), Duration::from_millis(200))
        .await
        .unwrap_err();
    assert!(matches!(error, AgentError::PortClosed { .. }), "{error:?}");
    let error = agent.dial(address).await.unwrap_err();
    assert!(matches!(error, AgentError::Guest { .. }), "{error:?}");
}

#[tokio::test]
async fn an_agent_on_a_host_leaves_the_host_alone() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let identity = Identity {
        hostname: "stranger".to_owned(),
        interfaces: Vec::new(),
        hosts: Vec::new(),
        name_servers: Vec::new(),
        layers: None,
        machine_id: None,
        mounts: Vec::new(),
    };
    let error = agent.configure(identity).await.unwrap_err();
    assert!(matches!(error, AgentError::Guest { .. }), "{error:?}");
    let error = agent.set_clock().await.unwrap_err();
    assert!(matches!(error, AgentError::Guest { .. }), "{error:?}");
    let error = agent.reseed().await.unwrap_err();
    assert!(matches!(error, AgentError::Guest { .. }), "{error:?}");
    let error = agent.power_off().await.unwrap_err();
    assert!(matches!(error, AgentError::Guest { .. }), "{error:?}");
    agent.ping(HANG).await.unwrap();
}
