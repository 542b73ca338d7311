//! Conversations begin, break off at any byte, and begin anew; nobody is trusted to keep the rules.

#![cfg(all(feature = "client", feature = "daemon"))]
// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use mvm_agent::{
    client::{Agent, AgentError},
    protocol::{self, Hello, HelloBack, Nonce, Packet, ToGuest, ToHost, VERSION},
    wire::Decoder,
};
use support::{Guest, HANG, Severed, is_alive, wait_gone};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

#[tokio::test]
async fn a_new_conversation_kills_what_the_old_one_ran_except_what_is_detached() {
    let guest = Guest::start();
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("pid");
    let first = guest.connect().await.unwrap();
    let script = format!("echo $$ > {}; exec sleep 1000", note.display());
    let _running = first.shell(script).spawn().await.unwrap();
    let detached = first.command("sleep").arg("1000").detached();
    let detached = detached.start().await.unwrap();
    let attached = loop {
        match std::fs::read_to_string(&note).unwrap_or_default().trim() {
            "" => tokio::time::sleep(Duration::from_millis(5)).await,
            pid => break pid.parse().unwrap(),
        }
    };

    let second = guest.connect().await.unwrap();
    wait_gone(attached).await;
    assert!(is_alive(detached));
    second.ping(HANG).await.unwrap();
    // Both read the one channel here: the first hears that it is forgotten, or nothing at all.
    let error = first.ping(Duration::from_millis(500)).await.unwrap_err();
    assert!(
        error.is_closed() || matches!(error, AgentError::Unresponsive { .. }),
        "{error:?}"
    );
    let kill = second.command("kill").arg(detached.to_string());
    assert!(kill.output().await.unwrap().success());
}

/// The host stops at a random byte of busy traffic, its reader too, and a new host takes over; again and again.
#[tokio::test]
async fn the_channel_recovers_from_a_host_lost_at_any_byte() {
    let guest = Guest::start();
    // A fixed sequence (Knuth's MMIX generator): a failure names its byte and happens again.
    let mut state = 17_u64;
    for round in 0..60 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let cut = usize::try_from(state >> 33).unwrap() % 40_000;
        let severed = Severed::after(guest.socket(), cut);
        let Ok(lost) = Agent::connect(severed, Duration::from_millis(200)).await else {
            // Cut within the greeting itself.
            assert!(cut < 64, "no answer though the cut is at byte {cut}");
            continue;
        };
        let echo = lost.command("cat").stdin_bytes(vec![round; 100_000]);
        let both = async { tokio::join!(echo.output(), lost.shell("seq 1 20000").output()) };
        // Most never answer: what became of them is not the question.
        let _ = tokio::time::timeout(Duration::from_millis(60), both).await;
        drop(lost);

        let agent = Agent::connect(guest.socket(), HANG)
            .await
            .unwrap_or_else(|error| panic!("round {round}, cut at byte {cut}: {error}"));
        let output = agent.shell("echo fine").output().await.unwrap();
        assert_eq!(output.stdout, b"fine\n", "round {round}, cut at byte {cut}");
        drop(agent);
    }
}

#[tokio::test]
async fn noise_before_and_between_packets_is_survived() {
    let guest = Guest::start();
    let mut socket = guest.socket();
    for noise in [
        &b"\x00\x00\x00"[..],
        b"mvm-agnt and so on",
        &[0xff; 70_000],
        &[1; 3],
    ] {
        socket.write_all(noise).await.unwrap();
        let agent = guest.connect().await.unwrap();
        agent.ping(HANG).await.unwrap();
    }
}

#[tokio::test]
async fn a_guest_of_another_version_is_told_apart() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let guest = tokio::spawn(async move {
        let hello = loop {
            if let Packet::Hello(hello) = next_packet::<ToGuest>(&mut theirs).await {
                break hello;
            }
        };
        let mut bytes = Vec::new();
        let back = HelloBack {
            version: VERSION + 1,
            nonce: hello.nonce,
            guest: None,
        };
        protocol::write_hello_back(&back, &mut bytes);
        theirs.write_all(&bytes).await.unwrap();
        theirs
    });
    let error = Agent::connect(ours, HANG).await.unwrap_err();
    let AgentError::VersionMismatch { host, guest: other } = error else {
        panic!("{error:?}")
    };
    assert_eq!((host, other), (VERSION, VERSION + 1));
    guest.await.unwrap();
}

#[tokio::test]
async fn a_host_of_another_version_is_told_ours() {
    let guest = Guest::start();
    let mut socket = guest.socket();
    let mut bytes = Vec::new();
    let hello = Hello {
        version: VERSION + 1,
        nonce: Nonce(5),
    };
    protocol::write_hello(&hello, &mut bytes);
    socket.write_all(&bytes).await.unwrap();
    let back = loop {
        match next_packet::<ToHost>(&mut socket).await {
            Packet::HelloBack(back) => break back,
            Packet::Gone(None) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((back.version, back.nonce), (VERSION, Nonce(5)));
}

/// Reads one packet; the peer sends no more before it is answered.
async fn next_packet<M: serde::de::DeserializeOwned>(socket: &mut UnixStream) -> Packet<M> {
    let mut decoder = Decoder::new();
    loop {
        // Byte by byte, so that nothing of the next packet is taken.
        let byte = [socket.read_u8().await.unwrap()];
        if let Some(content) = decoder.next(&mut &byte[..]) {
            return protocol::read_packet(&content).unwrap();
        }
    }
}

#[tokio::test]
async fn silence_and_floods_of_noise_end_with_no_answer() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let error = Agent::connect(ours, Duration::from_millis(300))
        .await
        .unwrap_err();
    assert!(matches!(error, AgentError::NoAnswer { .. }), "{error:?}");
    drop(theirs);

    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let flood = tokio::spawn(async move {
        // Ends when the client hangs up.
        while theirs.write_all(&[0xaa; 60_000]).await.is_ok() {}
    });
    let error = Agent::connect(ours, Duration::from_millis(300))
        .await
        .unwrap_err();
    let AgentError::NoAnswer { bytes_received, .. } = error else {
        panic!("{error:?}")
    };
    assert!(bytes_received > 60_000, "{bytes_received}");
    flood.await.unwrap();
}

#[tokio::test]
async fn a_guest_that_hangs_up_ends_every_call() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let waiting = agent.command("sleep").arg("1000");
    let waiting = tokio::spawn(waiting.output());
    agent.ping(HANG).await.unwrap();
    drop(guest);
    let error = waiting.await.unwrap().unwrap_err();
    assert!(error.is_closed(), "{error:?}");
    assert!(agent.ping(HANG).await.unwrap_err().is_closed());
}
