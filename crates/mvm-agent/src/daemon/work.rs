//! What a stream can be: the seam between the conversation, which knows frames and credit, and the things
//! that use them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::event::PollFd;
use rustix::io::Errno;
use rustix::process::Pid;

use super::outbox::Outbox;
use super::services::{Place, Services};
use crate::protocol::{
    self, Cause, DATA_BYTES_MAX, ExitStatus, FRAME_COST, Failure, GRANT_AT, Lane, Reply, StreamId,
    ToHost, WINDOW, WindowSize,
};

/// Something a stream does. Dropping it undoes what is unfinished: kills the command, hangs up the terminal,
/// removes the half-written file.
pub(super) trait Work {
    /// What it counts as when the host wants to part.
    fn kind(&self) -> Kind;

    /// Adds the descriptors that, once ready, let [`Work::advance`] get on. `may_send` says whether it may
    /// produce data now.
    fn interests<'a>(&'a self, may_send: bool, interests: &mut Vec<PollFd<'a>>);

    /// When [`Work::advance`] is due even if no descriptor is ready. `may_send` as for [`Work::interests`].
    fn deadline(&self, _may_send: bool) -> Option<Instant> {
        None
    }

    /// How far it was sent the output of a service.
    fn followed(&self) -> Option<Place> {
        None
    }

    /// Takes what the host sent on the stream. [`Work::advance`] is called soon after.
    fn input(&mut self, input: Input);

    /// Takes note of children that ended. [`Work::advance`] is called soon after.
    fn reaped(&mut self, _ended: &[(Pid, ExitStatus)]) {}

    /// Does what can be done without waiting.
    fn advance(
        &mut self,
        now: Instant,
        services: &Services,
        outlet: &mut Outlet<'_>,
    ) -> Result<Progress, Failure>;
}

/// What sort of thing a stream does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Command,
    Terminal,
    Transfer,
    PortWait,
    Connection,
    /// The only one that may be open when the host parts.
    Follow,
}

/// What the host sent on a stream.
#[derive(Debug)]
pub(super) enum Input {
    Data(Vec<u8>),
    End,
    Signal(i32),
    Resize(WindowSize),
    Kill,
}

/// How far a work got.
#[derive(Debug)]
pub(super) enum Progress {
    Going,
    Done(Reply),
}

/// The credit of one stream, both ways.
#[derive(Debug)]
pub(super) struct Credit {
    send_window: u32,
    receive_window: u32,
    ungranted: u32,
}

impl Credit {
    pub(super) fn new() -> Self {
        Self {
            send_window: WINDOW,
            receive_window: WINDOW,
            ungranted: 0,
        }
    }

    /// Takes a data frame of the host out of its window; `None` if it was not allowed to send it.
    pub(super) fn charge(&mut self, payload_bytes: usize) -> Option<()> {
        if payload_bytes == 0 || payload_bytes > DATA_BYTES_MAX {
            return None;
        }
        self.receive_window = self
            .receive_window
            .checked_sub(protocol::cost(payload_bytes))?;
        Some(())
    }

    /// Takes a grant of the host; `None` if it granted more than was sent.
    pub(super) fn granted(&mut self, amount: u32) -> Option<()> {
        self.send_window = self
            .send_window
            .checked_add(amount)
            .filter(|window| *window <= WINDOW)?;
        Some(())
    }

    /// How many bytes of data may be sent now in one frame.
    pub(super) fn room(&self, outbox: &Outbox) -> usize {
        if outbox.is_full() {
            return 0;
        }
        (self.send_window.saturating_sub(FRAME_COST) as usize).min(DATA_BYTES_MAX)
    }
}

/// Where a work's words go.
pub(super) struct Outlet<'a> {
    pub(super) stream: StreamId,
    pub(super) credit: &'a mut Credit,
    pub(super) outbox: &'a mut Outbox,
}

impl Outlet<'_> {
    /// How many bytes [`Outlet::data`] takes now.
    pub(super) fn room(&self) -> usize {
        self.credit.room(self.outbox)
    }

    pub(super) fn send(&mut self, message: &ToHost) {
        self.outbox.frame(self.stream, message, &[]);
    }

    /// Sends at least one and at most [`Outlet::room`] bytes.
    pub(super) fn data(&mut self, lane: Lane, bytes: &[u8]) {
        assert!(
            !bytes.is_empty() && bytes.len() <= self.room(),
            "data is sent within its window"
        );
        self.credit.send_window -= protocol::cost(bytes.len());
        self.outbox.frame(self.stream, &ToHost::Data(lane), bytes);
    }

    /// Gives back the credit of a data frame of the host that is dealt with.
    pub(super) fn consumed(&mut self, payload_bytes: usize) {
        self.credit.ungranted += protocol::cost(payload_bytes);
        if self.credit.ungranted >= GRANT_AT {
            let grant = std::mem::take(&mut self.credit.ungranted);
            self.credit.receive_window += grant;
            self.send(&ToHost::Grant(grant));
        }
    }
}

/// Bytes from the host that wait for a pipe or a socket to take them; bounded by the stream's window.
#[derive(Debug, Default)]
pub(super) struct InputQueue {
    chunks: VecDeque<Vec<u8>>,
    /// How much of the first chunk was written.
    written: usize,
    ended: bool,
}

impl InputQueue {
    pub(super) fn push(&mut self, chunk: Vec<u8>) {
        self.chunks.push_back(chunk);
    }

    /// The host will send no more.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Whether everything the host had to send was written.
    pub(super) fn is_finished(&self) -> bool {
        self.ended && self.chunks.is_empty()
    }

    /// Writes what `sink` takes now.
    pub(super) fn write_to(
        &mut self,
        sink: impl AsFd,
        outlet: &mut Outlet<'_>,
    ) -> Result<(), Errno> {
        while let Some(chunk) = self.chunks.front() {
            match rustix::io::write(&sink, &chunk[self.written..]) {
                Ok(count) => self.written += count,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            }
            if self.written == chunk.len() {
                outlet.consumed(chunk.len());
                self.chunks.pop_front();
                self.written = 0;
            }
        }
        Ok(())
    }

    /// Throws away what nobody will take, giving its credit back so that the host is not kept waiting.
    pub(super) fn discard(&mut self, outlet: &mut Outlet<'_>) {
        for chunk in self.chunks.drain(..) {
            outlet.consumed(chunk.len());
        }
        self.written = 0;
    }
}

/// A failure of `operation`, an infinitive, from what the system said.
pub(super) fn failure(operation: impl Into<String>, error: &io::Error) -> Failure {
    let cause = error
        .raw_os_error()
        .map_or_else(|| Cause::Other(error.to_string()), Cause::Os);
    Failure {
        operation: operation.into(),
        cause,
    }
}

/// A failure of `operation`, an infinitive, in words.
pub(super) fn refusal(operation: impl Into<String>, reason: impl Into<String>) -> Failure {
    Failure {
        operation: operation.into(),
        cause: Cause::Other(reason.into()),
    }
}
