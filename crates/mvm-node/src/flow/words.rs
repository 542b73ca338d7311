//! From the words of the queue to those of the engine.

use mvm_flow::{
    id::{Epoch, ExecutionId, ModuleHash, UnixMillis},
    journal::{Module, Refused, Shown, State},
};
use mvm_queue::{Execution, Job, JobState, Refusal, WaitsFor};

use super::payload::Payload;

/// Where an execution stands whose job stands so.
pub(super) const fn state(job: &Job) -> State {
    match job.state {
        JobState::Pending => match job.waits_for {
            Some(WaitsFor::RunAfter | WaitsFor::Message) => State::Waiting,
            Some(WaitsFor::Paused) => State::Paused,
            Some(
                WaitsFor::Dependencies
                | WaitsFor::Backoff
                | WaitsFor::Concurrency
                | WaitsFor::Worker,
            )
            | None => State::Ready,
        },
        JobState::Claimed | JobState::InProgress => State::Running,
        JobState::Completed => State::Completed,
        JobState::Failed | JobState::Dead => State::Failed,
        JobState::Cancelled => State::Cancelled,
    }
}

/// An execution, as clients see it; nothing, if the job is none.
pub(super) fn shown(job: &Job, execution: Option<&Execution>) -> Option<Shown> {
    let payload = Payload::of(&job.spec).ok()?;
    Some(Shown {
        id: job.id.0.parse().ok()?,
        input: payload.input(),
        module: payload.module,
        version: payload.version.unwrap_or_default(),
        hash: payload.hash.unwrap_or(ModuleHash(String::new())),
        workflow: payload.workflow,
        parent: payload.parent,
        state: state(job),
        reason: job.error.clone(),
        until: job.wakes_at_ms().map(millis),
        epoch: Epoch(u64::try_from(job.token.0).unwrap_or(0)),
        frames: execution.map_or(0, |execution| execution.frames),
        journal_bytes: execution.map_or(0, |execution| execution.bytes),
        response: execution.and_then(|execution| execution.response),
        messages: execution.map_or(0, |execution| execution.messages),
        created_at: millis(job.created_at_ms),
        updated_at: millis(job.updated_at_ms),
        finished_at: job.finished_at_ms.map(millis),
    })
}

pub(super) fn module(module: mvm_queue::Module) -> Module {
    Module {
        name: module.name,
        version: module.version,
        hash: ModuleHash(module.hash),
        bytes: module.bytes,
        deployed_at: millis(module.deployed_at_ms),
    }
}

pub(super) const fn millis(time: mvm_queue::UnixMillis) -> UnixMillis {
    UnixMillis(time.0)
}

/// What a refusal means to whoever asked something about an execution.
pub(super) fn refused(id: ExecutionId, refusal: Refusal) -> Refused {
    let ended = |state| Refused::Finished {
        id,
        state: match state {
            JobState::Completed => State::Completed,
            JobState::Cancelled => State::Cancelled,
            _ => State::Failed,
        },
    };
    match refusal {
        Refusal::UnknownJob { .. } | Refusal::NotAWorkflow { .. } => Refused::UnknownExecution(id),
        Refusal::TokenStale { .. } | Refusal::LeaseEnded { .. } | Refusal::JournalGap { .. } => {
            Refused::Lost { id }
        }
        Refusal::JournalFull => Refused::JournalFull {
            id,
            found: mvm_queue::JOURNAL_BYTES_MAX,
        },
        Refusal::Finished { state } => ended(state),
        Refusal::IllegalTransition { from, .. } | Refusal::CannotPause { state: from }
            if from.is_finished() =>
        {
            ended(from)
        }
        Refusal::InboxFull => Refused::InboxFull { id },
        Refusal::NotPaused => Refused::NotPaused { id },
        other => Refused::Invalid {
            why: other.to_string(),
        },
    }
}
