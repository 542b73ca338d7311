//! The end of an execution's journal while it runs: records on their way to the store.
//!
//! ```text
//!   push ──▶ unsent ──▶ one sender, a moment later ──▶ Journal
//!              │ flush: now, and waited for             ▲
//!              ├────────────────────────────────────────┤
//!              └ rest: with what ends or parks it ──────┘
//! ```
//!
//! What a guest was told is durable soon, and a guest waits for the store once per effect that others see. The moment is
//! for what follows at once: the answer of a request then goes with the next request, and the response with the end.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, task::JoinSet};

use crate::{
    callers::Callers,
    journal::{Append, Claim, Journal, Refused},
    record::{FRAME_BYTES_MAX, Record, frames},
};

/// Frames of one append, in bytes.
const APPEND_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// How long records wait for others.
const MOMENT: Duration = Duration::from_millis(2);

/// The end of a journal.
#[derive(Debug)]
pub(crate) struct Tail<J> {
    way: Way<J>,
    unsent: Arc<Mutex<Unsent>>,
    /// At most one sender. Dropped, and so ended, with this.
    sender: JoinSet<Result<(), Refused>>,
    /// Tells the sender, as long as it waits, that it is not needed.
    recall: Option<oneshot::Sender<()>>,
}

/// How appends come into the store.
#[derive(Debug)]
struct Way<J> {
    journal: Arc<J>,
    claim: Arc<Claim>,
    callers: Callers,
}

impl<J> Clone for Way<J> {
    fn clone(&self) -> Self {
        Self {
            journal: Arc::clone(&self.journal),
            claim: Arc::clone(&self.claim),
            callers: self.callers.clone(),
        }
    }
}

impl<J: Journal> Way<J> {
    async fn send(&self, (append, response): (Append, Option<String>)) -> Result<(), Refused> {
        self.journal.append(&self.claim, append).await?;
        self.sent(response);
        Ok(())
    }

    /// Tells callers of a response that is durable.
    fn sent(&self, response: Option<String>) {
        if let Some(text) = response {
            self.callers.respond(self.claim.id, text);
        }
    }
}

/// What the store does not have.
#[derive(Debug, Default)]
struct Unsent {
    append: Append,
    /// The text of the response, if it is among it.
    response: Option<String>,
    /// Whether somebody will send it.
    is_awaited: bool,
}

impl Unsent {
    /// Takes as many frames as one append may have, if there are any. Numbers of messages and the response go with the last
    /// of the frames that were there, so that no message is gone before its record is complete.
    fn take(&mut self) -> Option<(Append, Option<String>)> {
        let Append { first, frames, .. } = &mut self.append;
        if frames.is_empty() {
            return None;
        }
        let mut bytes = 0;
        let fit = frames.iter().take_while(|frame| {
            bytes += frame.len();
            bytes <= APPEND_BYTES_MAX
        });
        let count = fit.count().max(1);
        let rest = frames.split_off(count);
        let next = *first + count as u64;
        let mut taken = Append {
            first: std::mem::replace(first, next),
            frames: std::mem::replace(frames, rest),
            consumed: Vec::new(),
            response: None,
        };
        let mut response = None;
        if self.append.frames.is_empty() {
            taken.consumed = std::mem::take(&mut self.append.consumed);
            taken.response = self.append.response.take();
            response = self.response.take();
        }
        Some((taken, response))
    }
}

impl<J: Journal> Tail<J> {
    /// The end of a journal that has so many frames.
    pub(crate) fn new(
        journal: Arc<J>,
        claim: Arc<Claim>,
        callers: Callers,
        had_frames: u64,
    ) -> Self {
        let unsent = Unsent {
            append: Append {
                first: had_frames,
                ..Append::default()
            },
            ..Unsent::default()
        };
        Self {
            way: Way {
                journal,
                claim,
                callers,
            },
            unsent: Arc::new(Mutex::new(unsent)),
            sender: JoinSet::new(),
            recall: None,
        }
    }

    /// Adds records, the last of which is the response, if there is one, and says how many bytes they are. Nobody sends them
    /// yet.
    pub(crate) fn push(&self, records: &[Record], response: Option<String>) -> u64 {
        let mut bytes = 0;
        let mut unsent = lock(&self.unsent);
        let append = &mut unsent.append;
        for (place, record) in (1..).zip(records) {
            if response.is_some() && place == records.len() {
                append.response = Some(append.first + append.frames.len() as u64);
            }
            if let Record::Answered { message, .. } = record {
                append.consumed.extend(message);
            }
            let frames = frames(record);
            bytes += frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
            append.frames.extend(frames);
        }
        if response.is_some() {
            unsent.response = response;
        }
        bytes
    }

    /// Has what there is sent, in a moment. Does not wait.
    pub(crate) fn kick(&mut self) -> Result<(), Refused> {
        while let Some(sent) = self.sender.try_join_next() {
            sent.unwrap_or_else(|error| Err(broken(&error)))?;
        }
        {
            let mut unsent = lock(&self.unsent);
            if unsent.is_awaited || unsent.append.frames.is_empty() {
                return Ok(());
            }
            unsent.is_awaited = true;
        }
        let (recall, recalled) = oneshot::channel();
        self.recall = Some(recall);
        let (way, unsent) = (self.way.clone(), Arc::clone(&self.unsent));
        self.sender.spawn(async move {
            if tokio::time::timeout(MOMENT, recalled).await.is_ok() {
                return Ok(());
            }
            loop {
                let taken = {
                    let mut unsent = lock(&unsent);
                    let taken = unsent.take();
                    unsent.is_awaited = taken.is_some();
                    taken
                };
                match taken {
                    Some(taken) => way.send(taken).await?,
                    None => return Ok(()),
                }
            }
        });
        Ok(())
    }

    /// Waits until all that was pushed is durable.
    pub(crate) async fn flush(&mut self) -> Result<(), Refused> {
        self.settle().await?;
        loop {
            let taken = lock(&self.unsent).take();
            match taken {
                Some(taken) => self.way.send(taken).await?,
                None => return Ok(()),
            }
        }
    }

    /// Waits for what is under way, and gives what is left, which fits into one append, and what to do when the store has it.
    pub(crate) async fn rest(mut self) -> Result<(Append, impl FnOnce()), Refused> {
        self.settle().await?;
        loop {
            let (taken, is_last) = {
                let mut unsent = lock(&self.unsent);
                let first = unsent.append.first;
                let none = Append {
                    first,
                    ..Append::default()
                };
                let taken = unsent.take().unwrap_or((none, None));
                (taken, unsent.append.frames.is_empty())
            };
            if is_last {
                let (append, response) = taken;
                let way = self.way;
                return Ok((append, move || way.sent(response)));
            }
            self.way.send(taken).await?;
        }
    }

    /// Recalls the sender, or waits for what it has begun to send.
    async fn settle(&mut self) -> Result<(), Refused> {
        if let Some(recall) = self.recall.take() {
            // It may have begun.
            let _ = recall.send(());
        }
        while let Some(sent) = self.sender.join_next().await {
            sent.unwrap_or_else(|error| Err(broken(&error)))?;
        }
        lock(&self.unsent).is_awaited = false;
        Ok(())
    }
}

fn lock(unsent: &Mutex<Unsent>) -> MutexGuard<'_, Unsent> {
    unsent.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken(error: &tokio::task::JoinError) -> Refused {
    Refused::Broken {
        why: error.to_string(),
    }
}
