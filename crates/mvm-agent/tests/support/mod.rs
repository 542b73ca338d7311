//! The real daemon as a child of the test, its channel a socket pair.

// Each test binary uses a part of this; helpers may unwrap as tests do.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by several test binaries"
)]

use std::{
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    pin::Pin,
    process::{Child, Command, Stdio},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use mvm_agent::client::{Agent, AgentError, FollowedService, ServiceEvent, ServiceInfo};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};

/// No test waits this long unless it fails.
pub(crate) const HANG: Duration = Duration::from_secs(20);

/// An agent and the host's end of its channel.
pub(crate) struct Guest {
    process: Child,
    socket: StdUnixStream,
}

impl Guest {
    pub(crate) fn start() -> Self {
        let (socket, theirs) = StdUnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_mvm-agent"))
            .args(["--fd", "0"])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        Self { process, socket }
    }

    /// Another handle to the same end: dropping it does not hang up.
    pub(crate) fn socket(&self) -> UnixStream {
        UnixStream::from_std(self.socket.try_clone().unwrap()).unwrap()
    }

    pub(crate) async fn connect(&self) -> Result<Agent, AgentError> {
        Agent::connect(self.socket(), HANG).await
    }

    /// The daemon's resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }
}

impl Drop for Guest {
    /// Stops it in order, so that it kills its services; and at once if it does not.
    fn drop(&mut self) {
        let asked = Command::new("kill")
            .arg(self.process.id().to_string())
            .status();
        let deadline = Instant::now() + HANG;
        while asked.is_ok() && matches!(self.process.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A channel that swallows everything its host writes after so many bytes, as if the host had been
/// stopped in the middle of a packet.
pub(crate) struct Severed {
    inner: UnixStream,
    left: usize,
}

impl Severed {
    pub(crate) fn after(inner: UnixStream, bytes: usize) -> Self {
        Self { inner, left: bytes }
    }
}

impl AsyncRead for Severed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for Severed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let passing = self.left.min(bytes.len());
        if passing == 0 {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.inner).poll_write(context, &bytes[..passing]);
        if let Poll::Ready(Ok(count)) = written {
            self.left -= count;
        }
        written
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    /// The channel of a machine has no half-close.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Whether a process runs; one that waits to be reaped does not.
pub(crate) fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with('Z'))
    })
}

/// Waits until a process is gone.
pub(crate) async fn wait_gone(pid: i32) {
    let begin = Instant::now();
    while is_alive(pid) {
        assert!(
            begin.elapsed() < HANG,
            "process {pid} still runs after {HANG:?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The bytes of one line of a counting service.
const LINE_BYTES: u64 = 8;

/// A shell script which counts up from 0, as fast as it can, in lines of eight bytes, so that every offset
/// in its output tells what is there; for ever, or for so many lines.
pub(crate) fn counting(lines: Option<u64>) -> String {
    match lines {
        Some(lines) => format!("seq -f %07.0f 0 {}", lines - 1),
        None => "i=0; while :; do printf '%07d\\n' $i; i=$((i+1)); done".to_owned(),
    }
}

/// Checks that these are the bytes a counting service writes at this offset.
#[track_caller]
pub(crate) fn check_counted(offset: u64, bytes: &[u8]) {
    let end = offset + bytes.len() as u64;
    let lines = offset / LINE_BYTES..end.div_ceil(LINE_BYTES);
    let text: String = lines.map(|line| format!("{line:07}\n")).collect();
    let skipped = (offset % LINE_BYTES) as usize;
    let expected = &text.as_bytes()[skipped..skipped + bytes.len()];
    assert!(
        bytes == expected,
        "another content at {offset}: {:?}",
        String::from_utf8_lossy(&bytes[..bytes.len().min(40)])
    );
}

/// Takes the next piece of a counting service's output, checks it, and returns its length.
pub(crate) async fn next_counted(follower: &mut FollowedService) -> u64 {
    let begin = follower.offset();
    match follower.next_event().await.unwrap() {
        Some(ServiceEvent::Output { offset, bytes }) => {
            assert_eq!(offset, begin, "no gap");
            check_counted(offset, &bytes);
            bytes.len() as u64
        }
        other => panic!("{other:?} instead of output"),
    }
}

/// Waits until the guest tells of a service what is asked for.
pub(crate) async fn wait_for_service(
    agent: &Agent,
    name: &str,
    is_so: impl Fn(&ServiceInfo) -> bool,
) -> ServiceInfo {
    let begin = Instant::now();
    loop {
        let infos = agent.services().await.unwrap();
        let info = infos.into_iter().find(|info| info.name == name).unwrap();
        if is_so(&info) {
            return info;
        }
        assert!(begin.elapsed() < HANG, "still {info:?} after {HANG:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
