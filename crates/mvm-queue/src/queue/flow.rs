//! Workflows: their journals and inboxes, the waits between attempts, and the modules that they run.
//!
//! An execution of a workflow is a job of the kind [`FLOW_KIND`]. Who may write its journal is who holds the job, so what
//! fences a lease fences the journal. What the frames of a journal mean is for the engine, and so is which messages
//! it has received: it tells by number.

use std::{collections::BTreeMap, num::NonZeroU64};

use serde_json::Value;

use super::{Outcome, Queue};
use crate::{
    effect::Effect,
    id::{FencingToken, JobId, UnixMillis},
    job::{AttemptOutcome, FLOW_KIND, JobState, WaitsFor},
    limits::{
        INBOX_BYTES_MAX, INBOX_MESSAGES_MAX, JOURNAL_BYTES_MAX, JOURNAL_FRAMES_MAX, MODULES_MAX,
        PRUNE_CHUNKS,
    },
    query::{Message, Module},
    refusal::Refusal,
};

/// The journal and the inbox of an execution; both stay empty in jobs of other kinds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Workflow {
    pub(crate) frames: Vec<Vec<u8>>,
    /// The frame at which the response begins.
    pub(crate) response: Option<u64>,
    /// By number.
    pub(crate) messages: BTreeMap<u64, Message>,
    /// The largest number that was given, also to messages that have been received.
    last_message: u64,
}

impl Workflow {
    pub(crate) fn bytes(&self) -> u64 {
        self.frames.iter().map(|frame| frame.len() as u64).sum()
    }

    fn message_bytes(&self) -> u64 {
        let data = self.messages.values().map(|message| &message.data);
        data.map(length).sum()
    }

    fn has_beyond(&self, seen: u64) -> bool {
        self.messages.keys().any(|number| *number > seen)
    }

    pub(super) fn cut(&mut self, keep: NonZeroU64) {
        let keep = keep.get();
        self.frames
            .truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        self.response = self.response.filter(|response| *response < keep);
    }
}

fn length(data: &Value) -> u64 {
    data.to_string().len() as u64
}

/// The chunks of modules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uploads {
    /// By the hash of the module and the number of the chunk.
    pub(crate) chunks: BTreeMap<(String, u32), Vec<u8>>,
    /// When the latest chunk came of a hash that no module has.
    strays: BTreeMap<String, UnixMillis>,
}

impl Uploads {
    fn of<'a>(&'a self, hash: &str) -> impl Iterator<Item = (u32, &'a Vec<u8>)> {
        self.chunks
            .range((hash.to_owned(), 0)..=(hash.to_owned(), u32::MAX))
            .map(|((_, number), bytes)| (*number, bytes))
    }

    /// Removes some of the chunks of the oldest upload of which nothing became.
    pub(super) fn remove_stray(&mut self, before: Option<UnixMillis>) -> bool {
        let oldest = self.strays.iter().map(|(hash, at)| (*at, hash)).min();
        let Some((at, hash)) = oldest.map(|(at, hash)| (at, hash.clone())) else {
            return false;
        };
        if before.is_none_or(|before| at >= before) {
            return false;
        }
        let numbers: Vec<u32> = self.of(&hash).map(|(number, _)| number).collect();
        for number in numbers.iter().take(PRUNE_CHUNKS) {
            self.chunks.remove(&(hash.clone(), *number));
        }
        if numbers.len() <= PRUNE_CHUNKS {
            self.strays.remove(&hash);
        }
        true
    }
}

impl Queue {
    pub(super) fn append(
        &mut self,
        id: &JobId,
        token: FencingToken,
        first: u64,
        frames: &[Vec<u8>],
        consumed: &[u64],
        response: Option<u64>,
    ) -> Outcome {
        let seq = match self.held(id, token) {
            Err(Refusal::TokenStale { .. }) if self.appends_stale() => self.seq(id)?,
            held => held?,
        };
        let workflow = self.workflow(seq)?;
        let next = workflow.frames.len() as u64;
        if first != next {
            return Err(Refusal::JournalGap { next });
        }
        let added: u64 = frames.iter().map(|frame| frame.len() as u64).sum();
        let next = next + frames.len() as u64;
        if workflow.bytes() + added > JOURNAL_BYTES_MAX || next > JOURNAL_FRAMES_MAX {
            return Err(Refusal::JournalFull);
        }
        workflow.frames.extend_from_slice(frames);
        workflow.response = workflow.response.or(response);
        workflow
            .messages
            .retain(|number, _| !consumed.contains(number));
        Ok(Effect::Appended { next })
    }

    /// What a job has as a workflow, if it is one.
    fn workflow(&mut self, seq: i64) -> Result<&mut Workflow, Refusal> {
        let entry = self.at(seq);
        if entry.job.spec.kind == FLOW_KIND {
            Ok(&mut entry.workflow)
        } else {
            Err(Refusal::NotAWorkflow {
                job: entry.job.id.clone(),
            })
        }
    }

    pub(super) fn send(&mut self, id: &JobId, kind: &str, data: &Value, at: UnixMillis) -> Outcome {
        let seq = self.seq(id)?;
        let state = self.at(seq).job.state;
        let workflow = self.workflow(seq)?;
        if state.is_finished() {
            return Err(Refusal::Finished { state });
        }
        if workflow.messages.len() as u64 >= INBOX_MESSAGES_MAX
            || workflow.message_bytes() + length(data) > INBOX_BYTES_MAX
        {
            return Err(Refusal::InboxFull);
        }
        workflow.last_message += 1;
        let number = workflow.last_message;
        let message = Message {
            number,
            kind: kind.to_owned(),
            data: data.clone(),
            sent_at_ms: at,
        };
        workflow.messages.insert(number, message);
        let job = &self.at(seq).job;
        if job.waits_for == Some(WaitsFor::Message) {
            let waits_for = job.spec.eligible();
            self.set(seq, JobState::Pending, Some(waits_for), at);
        }
        Ok(Effect::Sent {
            number,
            waits_for: self.at(seq).job.waits_for,
        })
    }

    pub(super) fn park(
        &mut self,
        id: &JobId,
        token: FencingToken,
        until: Option<UnixMillis>,
        seen: Option<u64>,
        reason: Option<&str>,
        at: UnixMillis,
    ) -> Outcome {
        let seq = self.held(id, token)?;
        let workflow = self.workflow(seq)?;
        let awaits = seen.is_some_and(|seen| !workflow.has_beyond(seen));
        let entry = self.at(seq);
        let job = &mut entry.job;
        job.run_after_ms = until;
        if job.cancel_requested {
            if let Some(attempt) = self.attempt(seq) {
                attempt.ended_at_ms = Some(at);
                attempt.outcome = Some(AttemptOutcome::Cancelled);
            }
            self.set(seq, JobState::Cancelled, None, at);
        } else {
            job.error = reason.map(str::to_owned);
            let waits_for = match (&job.paused, seen) {
                (Some(_), _) => WaitsFor::Paused,
                (None, Some(_)) if awaits => WaitsFor::Message,
                (None, None) if until.is_some() => WaitsFor::RunAfter,
                (None, _) => job.spec.eligible(),
            };
            // One that sleeps ten thousand times is not ten thousand attempts.
            entry.attempts.remove(&token);
            entry.logs.remove(&token);
            self.set(seq, JobState::Pending, Some(waits_for), at);
        }
        let job = &self.at(seq).job;
        Ok(Effect::Parked {
            state: job.state,
            waits_for: job.waits_for,
            dependents: self.settling.contains(&seq),
        })
    }

    pub(super) fn pause(&mut self, id: &JobId, reason: Option<&str>, at: UnixMillis) -> Outcome {
        let seq = self.seq(id)?;
        let job = &mut self.at(seq).job;
        let state = job.state;
        if state.is_finished() || (state.is_held() && job.spec.kind != FLOW_KIND) {
            return Err(Refusal::CannotPause { state });
        }
        job.paused = Some(reason.unwrap_or_default().to_owned());
        let waits_for = (state == JobState::Pending).then_some(WaitsFor::Paused);
        self.set(seq, state, waits_for, at);
        Ok(Effect::Paused { state })
    }

    /// A job that was claimed before is eligible at once: what its worker waited for may have come meanwhile, so it is
    /// to look, and to park again.
    pub(super) fn resume(&mut self, id: &JobId, at: UnixMillis) -> Outcome {
        let seq = self.seq(id)?;
        let job = &mut self.at(seq).job;
        if job.paused.take().is_none() {
            return Err(Refusal::NotPaused);
        }
        let state = job.state;
        let waits_for = match job {
            _ if state != JobState::Pending => None,
            job if job.dependencies_open > 0 => Some(WaitsFor::Dependencies),
            job if job.token == FencingToken(0) => Some(job.spec.after_dependencies()),
            job => Some(job.spec.eligible()),
        };
        self.set(seq, state, waits_for, at);
        Ok(Effect::Resumed {
            waits_for: self.at(seq).job.waits_for,
            next_ms: self.next_run_after().map(|(time, _)| time),
        })
    }

    pub(super) fn put_chunk(
        &mut self,
        hash: &str,
        number: u32,
        bytes: &[u8],
        at: UnixMillis,
    ) -> Effect {
        if self.modules.values().all(|module| module.hash != hash) {
            self.uploads.strays.insert(hash.to_owned(), at);
            self.uploads
                .chunks
                .insert((hash.to_owned(), number), bytes.to_vec());
        }
        Effect::ChunkPut
    }

    pub(super) fn deploy(&mut self, module: Module) -> Outcome {
        let same = |known: &&Module| known.name == module.name && known.version == module.version;
        if let Some(known) = self.modules.values().find(same) {
            return if known.hash == module.hash {
                Ok(Effect::Deployed { existing: true })
            } else {
                Err(Refusal::VersionTaken {
                    name: module.name,
                    version: module.version,
                })
            };
        }
        if self.modules.len() >= MODULES_MAX {
            return Err(Refusal::TooManyModules);
        }
        let (mut chunks, mut bytes) = (0, 0);
        let stored = self.uploads.of(&module.hash);
        for (_, chunk) in stored.filter(|(number, _)| *number < module.chunks) {
            chunks += 1;
            bytes += chunk.len() as u64;
        }
        if (chunks, bytes) != (module.chunks, module.bytes) {
            return Err(Refusal::ModuleIncomplete { chunks, bytes });
        }
        self.uploads.strays.remove(&module.hash);
        let place = self.modules.len();
        self.modules.insert((module.name.clone(), place), module);
        Ok(Effect::Deployed { existing: false })
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    const fn appends_stale(&self) -> bool {
        false
    }
    #[cfg(test)]
    fn appends_stale(&self) -> bool {
        self.bug == Some(crate::tests::Bug::AppendsStale)
    }
}
