//! Conversations that end in order, and the next one on the same channel.

#![cfg(all(feature = "client", feature = "daemon"))]
// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use mvm_agent::{
    client::{Agent, AgentError, ChannelEnd, Event, Running, ServiceCommand, ServiceEvent},
    protocol::{self, Hello, Nonce, Packet, Reply, Request, StreamId, ToGuest, ToHost, VERSION},
    wire::Decoder,
};
use support::{
    Guest, HANG, check_counted, counting, is_alive, next_counted, wait_for_service, wait_gone,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, UnixStream},
};

#[track_caller]
fn check_refused(result: Result<(), AgentError>, open: &str) {
    let error = result.unwrap_err();
    assert!(matches!(error, AgentError::Guest { .. }), "{error:?}");
    assert!(error.to_string().ends_with(open), "{error}");
}

#[track_caller]
fn check_parted<T: std::fmt::Debug>(result: Result<T, AgentError>) {
    let error = result.unwrap_err();
    assert!(
        matches!(error, AgentError::Closed(ChannelEnd::Parted)),
        "{error:?}"
    );
}

/// Has a `cat` repeat a line.
async fn check_echo(running: &mut Running, stdin: &mut mvm_agent::client::Stdin) {
    assert!(stdin.write_all(b"again\n").await.unwrap());
    let event = running.next_event().await.unwrap();
    assert_eq!(event, Some(Event::Stdout(b"again\n"[..].into())));
}

#[tokio::test]
async fn parting_is_refused_while_something_is_under_way_and_disturbs_nothing() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let mut first = agent.command("cat").stdin_piped().spawn().await.unwrap();
    let mut stdin = first.take_stdin().unwrap();
    check_refused(agent.part().await, "still open: 1 command");
    check_echo(&mut first, &mut stdin).await;

    let (mut source, reader) = tokio::io::duplex(1);
    let upload = {
        let (agent, path) = (agent.clone(), path.to_str().unwrap().to_owned());
        tokio::spawn(async move { agent.upload_from(path, 0o600, reader).await })
    };
    // The second byte finds room once the upload has begun and taken the first.
    source.write_all(b"ab").await.unwrap();
    let second = agent.command("sleep").arg("1000").spawn().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialed = agent.dial(listener.local_addr().unwrap()).await.unwrap();
    check_refused(
        agent.part().await,
        "still open: 2 commands, 1 transfer, 1 connection",
    );
    drop((second, dialed));
    check_echo(&mut first, &mut stdin).await;
    drop((first, stdin));
    check_refused(agent.part().await, "still open: 1 transfer");
    source.write_all(b"c").await.unwrap();
    drop(source);
    upload.await.unwrap().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"abc");
    agent.part().await.unwrap();
}

#[tokio::test]
async fn calls_after_parting_find_the_conversation_closed() {
    let guest = Guest::start();
    let agent = guest.connect().await.unwrap();
    let detached = agent.command("sleep").arg("1000").detached();
    let detached = detached.start().await.unwrap();
    let command = ServiceCommand::shell("counter", counting(Some(10_000)));
    agent.start_service(command).await.unwrap();
    let mut follower = agent.follow_service("counter", 0).await.unwrap();
    wait_for_service(&agent, "counter", |info| info.output_offset == 80_000).await;
    let clone = agent.clone();
    agent.part().await.unwrap();

    check_parted(clone.ping(HANG).await);
    check_parted(clone.shell("true").output().await);
    check_parted(clone.services().await);
    check_parted(clone.follow_service("counter", 0).await);
    check_parted(clone.upload("/nowhere", 0o600, b"").await);
    clone.part().await.unwrap();
    // What had come is not lost.
    let closed = loop {
        match follower.next_event().await {
            Ok(Some(ServiceEvent::Output { offset, bytes })) => check_counted(offset, &bytes),
            Ok(Some(ServiceEvent::Ended(_)) | None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    if closed.is_err() {
        check_parted(closed);
    }

    let agent = guest.connect().await.unwrap();
    assert!(is_alive(detached));
    let kill = agent.command("kill").arg(detached.to_string());
    assert!(kill.output().await.unwrap().success());
    wait_gone(detached).await;
    assert_eq!(agent.services().await.unwrap().len(), 1);
}

/// A channel that tells when it is dropped.
struct Watched {
    inner: UnixStream,
    dropped: Arc<AtomicBool>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::SeqCst);
    }
}

/// On several threads, so that the client's task really runs beside its caller.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_channel_bears_fifty_conversations_while_a_service_writes() {
    let guest = Guest::start();
    let first = guest.connect().await.unwrap();
    let command = ServiceCommand::shell("counter", counting(None));
    let pid = first.start_service(command).await.unwrap();
    first.part().await.unwrap();
    let mut offset = 0;
    for round in 0..50 {
        let dropped = Arc::new(AtomicBool::new(false));
        let channel = Watched {
            inner: guest.socket(),
            dropped: Arc::clone(&dropped),
        };
        let agent = Agent::connect(channel, HANG).await.unwrap();
        let mut follower = agent.follow_service("counter", offset).await.unwrap();
        let begin = follower.offset();
        assert!(begin >= offset, "round {round}");
        while follower.offset() < begin + 20_000 {
            next_counted(&mut follower).await;
        }
        let output = agent.shell(format!("echo {round}")).output().await.unwrap();
        assert_eq!(output.stdout, format!("{round}\n").into_bytes());

        agent.part().await.unwrap();
        assert!(dropped.load(Ordering::SeqCst), "round {round}");
        let end = loop {
            match follower.next_event().await {
                Ok(Some(ServiceEvent::Output { offset, bytes })) => check_counted(offset, &bytes),
                other => break other,
            }
        };
        check_parted(end);
        offset = follower.offset();
    }
    assert!(is_alive(pid));
}

/// Speaks as a host does, byte by byte.
struct RawHost {
    socket: UnixStream,
    decoder: Decoder,
}

impl RawHost {
    async fn greet(&mut self, nonce: Nonce) {
        let mut bytes = Vec::new();
        let version = VERSION;
        protocol::write_hello(&Hello { version, nonce }, &mut bytes);
        self.socket.write_all(&bytes).await.unwrap();
    }

    async fn say(&mut self, nonce: Nonce, sequence: u32, stream: u32, message: ToGuest) {
        let mut bytes = Vec::new();
        protocol::write_frame(nonce, sequence, StreamId(stream), &message, &[], &mut bytes)
            .unwrap();
        self.socket.write_all(&bytes).await.unwrap();
    }

    async fn hear(&mut self) -> Packet<ToHost> {
        loop {
            let byte = [self.socket.read_u8().await.unwrap()];
            if let Some(content) = self.decoder.next(&mut &byte[..]) {
                return protocol::read_packet(&content).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_guest_that_parted_is_silent_until_it_is_greeted() {
    let guest = Guest::start();
    let mut host = RawHost {
        socket: guest.socket(),
        decoder: Decoder::new(),
    };
    let (first, second) = (Nonce(1), Nonce(2));
    host.greet(first).await;
    let mut answer = host.hear().await;
    if answer == Packet::Gone(None) {
        // Said by an agent that just started, unless it was greeted before it could.
        answer = host.hear().await;
    }
    assert!(matches!(answer, Packet::HelloBack(back) if back.nonce == first));
    host.say(first, 0, 1, ToGuest::Open(Request::Part)).await;
    // What a client may still have under way, and what a stranger says.
    host.say(first, 1, 2, ToGuest::Open(Request::Ping)).await;
    host.say(first, 2, 0, ToGuest::KeepAlive).await;
    host.say(Nonce(9), 0, 0, ToGuest::KeepAlive).await;
    let last_word = host.hear().await;
    assert!(
        matches!(&last_word, Packet::Frame(frame) if frame.message == ToHost::Done(Reply::Parted)),
        "{last_word:?}"
    );
    host.greet(second).await;
    let next = host.hear().await;
    assert!(
        matches!(&next, Packet::HelloBack(back) if back.nonce == second),
        "{next:?}"
    );
    // And only now the old conversation is answered again.
    host.say(first, 3, 0, ToGuest::KeepAlive).await;
    assert_eq!(host.hear().await, Packet::Gone(Some(first)));
}
