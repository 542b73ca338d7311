//! The state a channel's task and its streams share: what is queued for the guest, what came from it, and
//! the credit of both directions.
//!
//! Everything here is synchronous and under one lock; waiting is done with wakers. One stream is read from
//! one place and written from one place at a time, so that one waker each is enough.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

use super::Agent;
use super::error::{AgentError, ChannelEnd};
use crate::protocol::{
    self, DATA_BYTES_MAX, ExitStatus, FRAME_COST, GRANT_AT, Lane, Reply, Request, StreamId,
    ToGuest, ToHost, WINDOW,
};

/// How many messages other than data a guest may send on one stream: every kind that may come, once.
const CONTROLS_MAX: u8 = 6;

/// What a channel's task and its streams share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    queued: Notify,
    finished: Notify,
}

/// A message on its way to the guest.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) stream: StreamId,
    pub(super) message: ToGuest,
    pub(super) payload: Vec<u8>,
}

/// A message that came from the guest and waits to be taken.
#[derive(Debug)]
pub(super) enum Inbound {
    Started,
    Following(u64),
    Data(Lane, Vec<u8>),
    End,
    Exited(ExitStatus),
    Done(Reply),
}

#[derive(Debug, Default)]
struct State {
    queue: Vec<Queued>,
    streams: HashMap<StreamId, Slot>,
    opened: u32,
    /// Somebody asked to end the conversation.
    parting: bool,
    end: Option<ChannelEnd>,
}

#[derive(Debug)]
struct Slot {
    inbox: VecDeque<Result<Inbound, AgentError>>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// What we may still send.
    send_window: u32,
    /// What the guest may still send.
    receive_window: u32,
    /// What was consumed since the last grant.
    ungranted: u32,
    controls: u8,
    input_closed: bool,
    /// The guest said its last word.
    over: bool,
}

impl Slot {
    fn new() -> Self {
        Self {
            inbox: VecDeque::new(),
            reader: None,
            writer: None,
            send_window: WINDOW,
            receive_window: WINDOW,
            ungranted: 0,
            controls: 0,
            input_closed: false,
            over: false,
        }
    }

    fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    fn receive(&mut self, message: ToHost, payload: Vec<u8>) -> Result<(), &'static str> {
        if self.over {
            return Err("a message after the last one of its stream");
        }
        let inbound = match message {
            ToHost::Data(lane) => {
                self.charge(payload.len())?;
                Ok(Inbound::Data(lane, payload))
            }
            ToHost::Grant(amount) => return self.granted(amount),
            ToHost::InputClosed => {
                self.input_closed = true;
                self.wake_writer();
                return Ok(());
            }
            ToHost::Started => Ok(Inbound::Started),
            ToHost::Following { offset } => Ok(Inbound::Following(offset)),
            ToHost::End => Ok(Inbound::End),
            ToHost::Exited(ExitStatus::TimedOut) => {
                return Err("an exit status only the host can give");
            }
            ToHost::Exited(status) => Ok(Inbound::Exited(status)),
            ToHost::Done(reply) => {
                self.finish();
                Ok(Inbound::Done(reply))
            }
            ToHost::Failed(failure) => {
                self.finish();
                Err(AgentError::Guest {
                    operation: failure.operation,
                    cause: failure.cause,
                })
            }
        };
        if !matches!(inbound, Ok(Inbound::Data(..))) {
            self.controls += 1;
            if self.controls > CONTROLS_MAX {
                return Err("more messages on one stream than there are kinds");
            }
        }
        self.inbox.push_back(inbound);
        self.wake_reader();
        Ok(())
    }

    fn finish(&mut self) {
        self.over = true;
        self.wake_writer();
    }

    /// Takes a data frame out of the guest's window.
    fn charge(&mut self, payload_bytes: usize) -> Result<(), &'static str> {
        if payload_bytes == 0 || payload_bytes > DATA_BYTES_MAX {
            return Err("a data frame of a size that is not allowed");
        }
        let left = self
            .receive_window
            .checked_sub(protocol::cost(payload_bytes));
        self.receive_window = left.ok_or("more data than was granted")?;
        Ok(())
    }

    fn granted(&mut self, amount: u32) -> Result<(), &'static str> {
        let window = self
            .send_window
            .checked_add(amount)
            .filter(|window| *window <= WINDOW);
        self.send_window = window.ok_or("a grant for more than was sent")?;
        self.wake_writer();
        Ok(())
    }

    /// Accounts for a consumed data frame; returns what is to be granted now.
    fn consumed(&mut self, payload_bytes: usize) -> Option<u32> {
        self.ungranted += protocol::cost(payload_bytes);
        if self.over || self.ungranted < GRANT_AT {
            return None;
        }
        let grant = std::mem::take(&mut self.ungranted);
        self.receive_window += grant;
        Some(grant)
    }
}

impl State {
    fn push(&mut self, stream: StreamId, message: ToGuest, payload: Vec<u8>) {
        self.queue.push(Queued {
            stream,
            message,
            payload,
        });
    }

    fn closed(&self) -> AgentError {
        AgentError::Closed(self.end.clone().unwrap_or(ChannelEnd::Dropped))
    }
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            queued: Notify::new(),
            finished: Notify::new(),
        }
    }

    /// Asks the task to write what is queued and end.
    pub(super) fn finish(&self) {
        self.finished.notify_one();
    }

    /// Waits for [`Shared::finish`].
    pub(super) async fn finished(&self) {
        self.finished.notified().await;
    }

    /// Waits until something may be queued.
    pub(super) async fn queued(&self) {
        self.queued.notified().await;
    }

    pub(super) fn take_queued(&self) -> Vec<Queued> {
        std::mem::take(&mut self.lock().queue)
    }

    /// Whether the guest owes somebody an answer.
    pub(super) fn awaits_something(&self) -> bool {
        self.lock().streams.values().any(|slot| !slot.over)
    }

    /// Ends the channel; the first reason counts.
    pub(super) fn end(&self, end: ChannelEnd) {
        let mut state = self.lock();
        state.end.get_or_insert(end);
        state.queue.clear();
        for slot in state.streams.values_mut() {
            slot.wake_reader();
            slot.wake_writer();
        }
    }

    /// Takes a message from the guest; an error says that it was the last one, because it broke a rule or
    /// because the guest agreed to part.
    pub(super) fn receive(
        &self,
        stream: StreamId,
        message: ToHost,
        payload: Vec<u8>,
    ) -> Result<(), ChannelEnd> {
        let mut state = self.lock();
        let opened = state.opened;
        if matches!(message, ToHost::Done(Reply::Parted)) && state.parting {
            // Whoever asked hears of it from the end of the channel, that is, once the task let go of it.
            return Err(ChannelEnd::Parted);
        }
        match state.streams.get_mut(&stream) {
            Some(slot) => slot
                .receive(message, payload)
                .map_err(ChannelEnd::Violation),
            // Its reader was dropped while this was on its way.
            None if stream.0 <= opened => Ok(()),
            None => Err(ChannelEnd::Violation("a message on a stream nobody opened")),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request under way. Dropping it tells the guest to give up on it.
#[derive(Debug)]
pub(super) struct Stream {
    sender: Sender,
}

/// The writing side of a [`Stream`]; does nothing any more once the stream was dropped.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    id: StreamId,
    agent: Agent,
}

/// Why data could not be sent.
#[derive(Debug)]
pub(super) enum SendError {
    /// The guest takes no more, or the stream is over.
    Refused,
    /// The channel ended.
    Closed(AgentError),
}

impl Stream {
    pub(super) fn open(agent: &Agent, request: Request) -> Result<Self, AgentError> {
        let parting = request == Request::Part;
        let message = ToGuest::Open(request);
        protocol::check_size(&message)?;
        let shared = &agent.core.shared;
        let mut state = shared.lock();
        if state.end.is_some() {
            return Err(state.closed());
        }
        let Some(opened) = state.opened.checked_add(1) else {
            return Err(AgentError::Closed(ChannelEnd::Violation(
                "all stream ids were used",
            )));
        };
        state.opened = opened;
        state.parting |= parting;
        let id = StreamId(opened);
        state.streams.insert(id, Slot::new());
        state.push(id, message, Vec::new());
        drop(state);
        shared.queued.notify_one();
        Ok(Self {
            sender: Sender {
                id,
                agent: agent.clone(),
            },
        })
    }

    pub(super) fn sender(&self) -> &Sender {
        &self.sender
    }

    /// Takes the next message. After [`Inbound::Done`] or an error there is nothing more to take.
    pub(super) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Inbound, AgentError>> {
        let Sender { id, agent } = &self.sender;
        let shared = &agent.core.shared;
        let mut state = shared.lock();
        let closed = state.end.is_some().then(|| state.closed());
        let Some(slot) = state.streams.get_mut(id) else {
            return Poll::Ready(Err(state.closed()));
        };
        let Some(inbound) = slot.inbox.pop_front() else {
            if let Some(closed) = closed {
                return Poll::Ready(Err(closed));
            }
            slot.reader = Some(context.waker().clone());
            return Poll::Pending;
        };
        if let Ok(Inbound::Data(_, payload)) = &inbound
            && let Some(grant) = slot.consumed(payload.len())
        {
            state.push(*id, ToGuest::Grant(grant), Vec::new());
            shared.queued.notify_one();
        }
        Poll::Ready(inbound)
    }

    /// [`Stream::poll_next`] as a future; nothing is lost when it is dropped.
    pub(super) async fn next(&mut self) -> Result<Inbound, AgentError> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Waits for the reply to a request that has no data.
    pub(super) async fn reply(&mut self) -> Result<Reply, AgentError> {
        loop {
            match self.next().await? {
                Inbound::Done(reply) => return Ok(reply),
                Inbound::Started
                | Inbound::Following(_)
                | Inbound::Data(..)
                | Inbound::End
                | Inbound::Exited(_) => {}
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let Sender { id, agent } = &self.sender;
        let shared = &agent.core.shared;
        let mut state = shared.lock();
        if state.streams.remove(id).is_some_and(|slot| !slot.over) && state.end.is_none() {
            state.push(*id, ToGuest::Close, Vec::new());
            shared.queued.notify_one();
        }
    }
}

impl Sender {
    /// Queues a message other than data.
    pub(super) fn send(&self, message: ToGuest) -> Result<(), SendError> {
        let shared = &self.agent.core.shared;
        let mut state = shared.lock();
        if state.end.is_some() {
            return Err(SendError::Closed(state.closed()));
        }
        if state.streams.get(&self.id).is_none_or(|slot| slot.over) {
            return Err(SendError::Refused);
        }
        state.push(self.id, message, Vec::new());
        shared.queued.notify_one();
        Ok(())
    }

    /// Queues as much of `bytes` as the guest's window allows, at least one byte; waits for the window.
    pub(super) fn poll_send(
        &self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, SendError>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let shared = &self.agent.core.shared;
        let mut state = shared.lock();
        if state.end.is_some() {
            return Poll::Ready(Err(SendError::Closed(state.closed())));
        }
        let Some(slot) = state
            .streams
            .get_mut(&self.id)
            .filter(|slot| !slot.over && !slot.input_closed)
        else {
            return Poll::Ready(Err(SendError::Refused));
        };
        let room = slot.send_window.saturating_sub(FRAME_COST) as usize;
        if room == 0 {
            slot.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = bytes.len().min(room).min(DATA_BYTES_MAX);
        slot.send_window -= protocol::cost(count);
        state.push(self.id, ToGuest::Data, bytes[..count].to_vec());
        shared.queued.notify_one();
        Poll::Ready(Ok(count))
    }

    /// Queues all of `bytes`, as the guest takes them.
    pub(super) async fn send_all(&self, mut bytes: &[u8]) -> Result<(), SendError> {
        while !bytes.is_empty() {
            let count = poll_fn(|context| self.poll_send(context, bytes)).await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Cause, Failure};

    fn data(bytes: usize) -> (ToHost, Vec<u8>) {
        (ToHost::Data(Lane::Main), vec![1; bytes])
    }

    /// Feeds messages to one open stream and expects the last one to break a rule.
    #[track_caller]
    fn check_violation(messages: Vec<(ToHost, Vec<u8>)>, rule: &str) {
        let mut slot = Slot::new();
        let last = messages.len() - 1;
        for (index, (message, payload)) in messages.into_iter().enumerate() {
            match slot.receive(message, payload) {
                Ok(()) => assert!(index < last, "the last message was accepted"),
                Err(broken) => {
                    assert_eq!(index, last, "{broken}");
                    assert!(broken.contains(rule), "{broken}");
                }
            }
        }
    }

    #[test]
    fn a_guest_that_breaks_the_rules_is_cut_off() {
        let failure = Failure {
            operation: "do".to_owned(),
            cause: Cause::Os(2),
        };
        check_violation(vec![data(0)], "size");
        check_violation(vec![data(DATA_BYTES_MAX + 1)], "size");
        check_violation(vec![(ToHost::Grant(1), vec![])], "grant");
        check_violation(
            vec![(ToHost::Exited(ExitStatus::TimedOut), vec![])],
            "exit status",
        );
        check_violation(
            vec![(ToHost::Failed(failure), vec![]), data(1)],
            "after the last",
        );
        check_violation(
            (0..=CONTROLS_MAX)
                .map(|_| (ToHost::Started, vec![]))
                .collect(),
            "kinds",
        );
        let frames = WINDOW / protocol::cost(DATA_BYTES_MAX);
        check_violation(
            (0..=frames).map(|_| data(DATA_BYTES_MAX)).collect(),
            "granted",
        );
        // The window bounds the number of tiny frames too.
        let frames = WINDOW / protocol::cost(1);
        check_violation((0..=frames).map(|_| data(1)).collect(), "granted");
    }

    #[test]
    fn messages_on_streams_nobody_opened_are_refused_and_late_ones_ignored() {
        let shared = Shared::new();
        assert!(
            shared
                .receive(StreamId(1), ToHost::Started, vec![])
                .is_err()
        );
        shared.lock().opened = 1;
        assert!(shared.receive(StreamId(1), ToHost::Started, vec![]).is_ok());
    }
}
