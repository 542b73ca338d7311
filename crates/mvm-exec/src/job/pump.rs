//! The task behind a job: reads its pipes, relays orders, hears its supervisor, awaits the supervisor's end.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::marked;
use super::queue::Queue;
use crate::capture::Stream;
use crate::wire::{self, HELLO, Order, Report};
use crate::{Directory, Outcome, Spec};

/// How long the pipes are read after the supervisor's end. Everybody who could write is dead by then, unless
/// a descriptor was handed to somebody outside the job.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// What a supervisor gets beyond the times it was told, to kill and to clean up, before it is taken for stuck.
const SUPERVISOR_SLACK: Duration = Duration::from_secs(30);
/// How much is read at once: a pipe's whole content.
const READ_BYTES: usize = 64 << 10;

/// How long the supervisor may take for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    run: Option<Duration>,
    end: Duration,
    private: bool,
}

impl Patience {
    pub(super) fn of(spec: &Spec) -> Self {
        let end = spec.kill_grace.saturating_add(spec.linger);
        let end = end.saturating_add(SUPERVISOR_SLACK);
        Self {
            run: spec.time_limit.map(|limit| limit.saturating_add(end)),
            end,
            private: matches!(spec.directory, Directory::Private { .. }),
        }
    }
}

pub(super) struct Pump {
    queue: Arc<Queue>,
    control: Option<UnixStream>,
    received: Vec<u8>,
    outputs: [Option<Receiver>; 2],
    child: Child,
    patience: Patience,
    /// What the job's processes can be found by if the supervisor cannot kill them.
    mark: String,
    /// When the supervisor is taken for stuck and killed.
    stuck_at: Option<Instant>,
    greeted: bool,
    directory: Option<PathBuf>,
    outcome: Option<Outcome>,
    /// What went wrong between us and the supervisor, if it was not merely its end.
    fault: Option<String>,
}

/// What woke the task.
enum Woken {
    Order(Option<Order>),
    Control(io::Result<usize>),
    Output(Stream, io::Result<usize>),
    Exited(io::Result<std::process::ExitStatus>),
    Stuck,
}

impl Pump {
    pub(super) fn new(
        queue: Arc<Queue>,
        control: UnixStream,
        outputs: [Receiver; 2],
        child: Child,
        patience: Patience,
        mark: String,
    ) -> Self {
        Self {
            queue,
            control: Some(control),
            received: Vec::new(),
            outputs: outputs.map(Some),
            child,
            patience,
            mark,
            stuck_at: after(patience.run),
            greeted: false,
            directory: None,
            outcome: None,
            fault: None,
        }
    }

    /// Runs until the supervisor has ended and its pipes are read.
    pub(super) async fn run(mut self, start: Vec<u8>, mut inbox: mpsc::UnboundedReceiver<Order>) {
        // The supervisor reads all of it before it says anything but hello, or ends, which is an error here.
        if let Some(control) = &mut self.control
            && let Err(error) = control.write_all(&start).await
        {
            self.fault = Some(format!("it did not take the job: {error}"));
        }
        let ended = self.until_exit(&mut inbox).await;
        if self.outcome.is_none() {
            self.hear_last().await;
        }
        if self.outcome.is_none() {
            // Before the pipes are read to their end: whoever survived may hold them.
            let mark = std::mem::take(&mut self.mark);
            let _ = tokio::task::spawn_blocking(move || marked::kill(&mark)).await;
        }
        // What the job wrote last is still in the pipes.
        self.drain().await;
        let outcome = match self.outcome.take() {
            Some(outcome) => outcome,
            None => self.lost(&ended),
        };
        self.queue.end(outcome);
    }

    async fn until_exit(&mut self, inbox: &mut mpsc::UnboundedReceiver<Order>) -> String {
        let mut buffers = Buffers::new();
        let mut watched = Some(inbox);
        loop {
            match self.woken(&mut buffers, watched.as_deref_mut(), true).await {
                Woken::Order(Some(order)) => self.relay(&order).await,
                Woken::Order(None) => {
                    watched = None;
                    self.abandon();
                }
                Woken::Control(read) => self.hear(&buffers.control, read),
                Woken::Output(stream, read) => self.take_output(stream, &buffers, read),
                Woken::Exited(Ok(status)) => return status.to_string(),
                Woken::Exited(Err(error)) => return error.to_string(),
                Woken::Stuck => {
                    self.stuck_at = None;
                    self.fault = Some("it did not end in time and was killed".to_owned());
                    let _ = self.child.start_kill();
                }
            }
        }
    }

    /// Hears what the supervisor said before it ended, which is there already.
    async fn hear_last(&mut self) {
        let mut buffer = vec![0; 4096];
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        while self.control.is_some() && self.outcome.is_none() {
            let read = tokio::time::timeout_at(deadline, read(&mut self.control, &mut buffer));
            match read.await {
                Ok(read) => self.hear(&buffer, read),
                Err(_) => return,
            }
        }
    }

    async fn drain(&mut self) {
        let mut buffers = Buffers::new();
        self.stuck_at = after(Some(DRAIN_TIMEOUT));
        while self.control.is_some() || self.outputs.iter().any(Option::is_some) {
            match self.woken(&mut buffers, None, false).await {
                Woken::Control(read) => self.hear(&buffers.control, read),
                Woken::Output(stream, read) => self.take_output(stream, &buffers, read),
                Woken::Stuck => return,
                Woken::Order(_) | Woken::Exited(_) => {}
            }
        }
    }

    /// Waits for one thing to happen; every branch is cancel safe.
    async fn woken(
        &mut self,
        buffers: &mut Buffers,
        inbox: Option<&mut mpsc::UnboundedReceiver<Order>>,
        running: bool,
    ) -> Woken {
        let [stdout, stderr] = &mut self.outputs;
        tokio::select! {
            order = receive(inbox) => Woken::Order(order),
            status = self.child.wait(), if running => Woken::Exited(status),
            () = sleep_until(self.stuck_at.unwrap_or_else(Instant::now)), if self.stuck_at.is_some() => Woken::Stuck,
            read = read(&mut self.control, &mut buffers.control) => Woken::Control(read),
            read = read(stdout, &mut buffers.stdout) => Woken::Output(Stream::Stdout, read),
            read = read(stderr, &mut buffers.stderr) => Woken::Output(Stream::Stderr, read),
        }
    }

    async fn relay(&mut self, order: &Order) {
        self.expect_end();
        if let Some(control) = &mut self.control {
            // A supervisor that does not listen is about to end, or is stuck; both are seen elsewhere.
            let _ = control.write_all(&order.to_frame()).await;
        }
    }

    /// Nobody wants the job any more: the closed socket kills it.
    fn abandon(&mut self) {
        self.control = None;
        self.expect_end();
    }

    fn expect_end(&mut self) {
        let end = after(Some(self.patience.end));
        self.stuck_at = self.stuck_at.into_iter().chain(end).min();
    }

    fn hear(&mut self, buffer: &[u8], read: io::Result<usize>) {
        match read {
            Ok(count) if count > 0 => self.received.extend(&buffer[..count]),
            _ => self.control = None,
        }
        loop {
            let report = match wire::take_frame(&mut self.received) {
                Ok(None) => return,
                Ok(Some((tag, body))) => Report::parse(tag, &body),
                Err(error) => Err(error),
            };
            match report {
                Ok(report) => self.obey(report),
                Err(error) => {
                    self.fault = Some(format!("it sent {error}"));
                    return self.abandon();
                }
            }
        }
    }

    fn obey(&mut self, report: Report) {
        match report {
            Report::Hello(word) => self.greeted |= word == HELLO,
            Report::Started(directory) if self.directory.is_none() => {
                self.directory = Some(directory.clone());
                self.queue.started(directory);
            }
            // The first end counts.
            Report::Ended(outcome) if self.outcome.is_none() => self.outcome = Some(outcome),
            Report::Started(_) | Report::Ended(_) | Report::Probed(_) => {}
        }
    }

    fn take_output(&mut self, stream: Stream, buffers: &Buffers, read: io::Result<usize>) {
        let (slot, buffer) = match stream {
            Stream::Stdout => (0, &buffers.stdout),
            Stream::Stderr => (1, &buffers.stderr),
        };
        match read {
            Ok(count) if count > 0 => self.queue.output(stream, &buffer[..count]),
            _ => self.outputs[slot] = None,
        }
    }

    /// The supervisor ended without a word of the job's end.
    fn lost(&self, ended: &str) -> Outcome {
        if self.patience.private
            && let Some(directory) = &self.directory
        {
            crate::supervisor::remove_private(directory);
        }
        let hint = if self.greeted {
            ""
        } else {
            "; it never said hello: does its `main` call `mvm_exec::supervise_if_asked` first?"
        };
        let fault = self.fault.as_deref();
        let fault = fault.map(|fault| format!("; {fault}")).unwrap_or_default();
        let reason =
            format!("the supervisor ended ({ended}) without saying how the job did{fault}{hint}");
        tracing::warn!(reason, "a job's supervisor failed");
        Outcome::Lost { reason }
    }
}

struct Buffers {
    control: Vec<u8>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Buffers {
    fn new() -> Self {
        Self {
            control: vec![0; 4096],
            stdout: vec![0; READ_BYTES],
            stderr: vec![0; READ_BYTES],
        }
    }
}

fn after(duration: Option<Duration>) -> Option<Instant> {
    duration.and_then(|duration| Instant::now().checked_add(duration))
}

/// Reads from what is open; waits for ever on what is not.
async fn read<R: AsyncReadExt + Unpin>(
    source: &mut Option<R>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    match source {
        Some(source) => source.read(buffer).await,
        None => std::future::pending().await,
    }
}

async fn receive(inbox: Option<&mut mpsc::UnboundedReceiver<Order>>) -> Option<Order> {
    match inbox {
        Some(inbox) => inbox.recv().await,
        None => std::future::pending().await,
    }
}
