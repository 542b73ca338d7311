//! The end of an execution's journal while it runs: records on their way to the store.
//!
//! ```text
//!   push ──▶ unsent ──▶ one append under way ──▶ Journal
//!                 flush: until neither is left
//! ```
//!
//! Records are sent as soon as nothing is under way, and waited for only by [`Tail::flush`]. So what a guest was told is
//! durable soon, and a guest waits for the store once per effect that others see.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::{
    journal::{Append, Claim, Journal, Refused},
    record::{FRAME_BYTES_MAX, Record, frames},
};

/// Frames of one append, in bytes.
const APPEND_BYTES_MAX: usize = FRAME_BYTES_MAX;

/// The end of a journal.
#[derive(Debug)]
pub(crate) struct Tail<J> {
    journal: Arc<J>,
    claim: Arc<Claim>,
    unsent: Append,
    /// At most one. Dropped, and so ended, with this.
    under_way: JoinSet<Result<(), Refused>>,
}

impl<J: Journal> Tail<J> {
    /// The end of a journal that has so many frames.
    pub(crate) fn new(journal: Arc<J>, claim: Arc<Claim>, frames: u64) -> Self {
        Self {
            journal,
            claim,
            unsent: Append {
                first: frames,
                ..Append::default()
            },
            under_way: JoinSet::new(),
        }
    }

    /// Adds records, the last of which is the response if `responds`.
    pub(crate) fn push(&mut self, records: Vec<Record>, responds: bool) {
        let last = records.len();
        for (place, record) in (1..).zip(records) {
            let next = self.unsent.first + self.unsent.frames.len() as u64;
            if responds && place == last {
                self.unsent.response = Some(next);
            }
            if let Record::Answered {
                message: Some(number),
                ..
            } = &record
            {
                self.unsent.consumed.push(*number);
            }
            self.unsent.frames.extend(frames(&record));
        }
    }

    /// Sends what there is, unless something is under way. Does not wait.
    pub(crate) fn kick(&mut self) -> Result<(), Refused> {
        while let Some(sent) = self.under_way.try_join_next() {
            sent.unwrap_or_else(|error| Err(broken(&error)))?;
        }
        if self.under_way.is_empty()
            && let Some(append) = self.take()
        {
            let (journal, claim) = (Arc::clone(&self.journal), Arc::clone(&self.claim));
            self.under_way
                .spawn(async move { journal.append(&claim, append).await });
        }
        Ok(())
    }

    /// Waits until all that was pushed is durable.
    pub(crate) async fn flush(&mut self) -> Result<(), Refused> {
        self.settle().await?;
        while let Some(append) = self.take() {
            self.journal.append(&self.claim, append).await?;
        }
        Ok(())
    }

    /// Waits for what is under way, and gives what is left, which fits into one append.
    pub(crate) async fn rest(&mut self) -> Result<Append, Refused> {
        self.settle().await?;
        loop {
            let append = self.take().unwrap_or_else(|| Append {
                first: self.unsent.first,
                ..Append::default()
            });
            if self.unsent.frames.is_empty() {
                return Ok(append);
            }
            self.journal.append(&self.claim, append).await?;
        }
    }

    async fn settle(&mut self) -> Result<(), Refused> {
        while let Some(sent) = self.under_way.join_next().await {
            sent.unwrap_or_else(|error| Err(broken(&error)))?;
        }
        Ok(())
    }

    /// Takes as many frames as one append may have. Numbers of messages and of the response go with the last of the frames
    /// that were there, so that no message is gone before its record is complete.
    fn take(&mut self) -> Option<Append> {
        if self.unsent.frames.is_empty() {
            return None;
        }
        let mut bytes = 0;
        let fit = self.unsent.frames.iter().take_while(|frame| {
            bytes += frame.len();
            bytes <= APPEND_BYTES_MAX
        });
        let count = fit.count().max(1);
        let rest = self.unsent.frames.split_off(count);
        let next = self.unsent.first + count as u64;
        let frames = std::mem::replace(&mut self.unsent.frames, rest);
        let mut append = Append {
            first: self.unsent.first,
            frames,
            consumed: Vec::new(),
            response: None,
        };
        self.unsent.first = next;
        if self.unsent.frames.is_empty() {
            append.consumed = std::mem::take(&mut self.unsent.consumed);
            append.response = self.unsent.response.take();
        }
        Some(append)
    }
}

fn broken(error: &tokio::task::JoinError) -> Refused {
    Refused::Broken {
        why: error.to_string(),
    }
}
