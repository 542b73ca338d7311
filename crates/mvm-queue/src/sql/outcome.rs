//! What became of requests: from the rows of `requests` back to effects and refusals.

use std::collections::HashMap;

use serde::Deserialize;

use super::{Corrupt, Statement, Value};
use crate::{
    backoff::Backoff,
    command::{Change, Command, Report},
    effect::{Claim, Effect},
    id::{FencingToken, JobId, UnixMillis},
    job::{JobState, WaitsFor},
    queue::Outcome,
    refusal::Refusal,
};

/// What is read of a row of `requests`: one text, named `row`.
macro_rules! row {
    () => {
        "json_object('request', requests.id, 'digest', digest, 'verdict', verdict, 'job', job, \
            'before', before, 'state', state, 'waits_for', waits_for, 'number', number, 'flag', flag, 'detail', detail, \
            'claims', (SELECT json_group_array(json_object('job', jobs.id, 'token', json_extract(claim.value, '$[1]'), \
                    'submitted_on', jobs.submitted_on, 'spec', json(jobs.spec))) \
                FROM json_each(requests.claims) AS claim \
                CROSS JOIN jobs ON jobs.seq = json_extract(claim.value, '$[0]')))"
    };
}

/// What has the statement of a command give its outcome.
const RETURNING: &str = concat!(
    " RETURNING (SELECT ",
    row!(),
    " FROM requests WHERE id = ?1) AS row"
);

/// The statement that applies a command alone, and gives its row as [`outcomes`] does; no row, if the command is refused or
/// was applied before. Nothing, for commands that consist of several, or that are applied in steps: SQLite looks up what it
/// returns once.
pub fn returning(command: &Command) -> Option<Statement> {
    if matches!(command.change, Change::All { .. }) {
        return None;
    }
    let Statement { sql, parameters } = super::statements(std::slice::from_ref(command)).pop()?;
    let is_one_step = sql.contains(" VALUES (");
    is_one_step.then(|| Statement::new(sql.into_owned() + RETURNING, parameters))
}

/// The statement that reads what became of commands on this replica. Each row is one text, named `row`.
pub fn outcomes(commands: &[Command]) -> Statement {
    let ids: Vec<_> = commands
        .iter()
        .flat_map(Command::parts)
        .map(|part| part.request.0.clone())
        .collect();
    Statement::new(
        concat!(
            "SELECT ",
            row!(),
            " AS row FROM json_each(?1) AS asked CROSS JOIN requests ON requests.id = asked.value"
        ),
        vec![Value::from(serde_json::json!(ids).to_string())],
    )
}

/// A row of [`outcomes`].
#[derive(Debug, Deserialize)]
struct Row {
    request: String,
    digest: String,
    verdict: String,
    job: Option<JobId>,
    before: Option<JobState>,
    state: Option<JobState>,
    waits_for: Option<WaitsFor>,
    number: Option<i64>,
    flag: Option<i64>,
    detail: Option<String>,
    #[serde(default)]
    claims: Vec<Claim>,
}

/// Reads the rows of [`outcomes`]: for each command what became of it, or nothing if this replica has not applied it.
pub fn interpret(
    commands: &[Command],
    rows: impl IntoIterator<Item = String>,
) -> Result<Vec<Option<Outcome>>, Corrupt> {
    let mut found = HashMap::new();
    for text in rows {
        let row: Row = serde_json::from_str(&text).map_err(|error| Corrupt::row(&error, &text))?;
        found.insert(row.request.clone(), row);
    }
    commands
        .iter()
        .map(|command| outcome(command, &found))
        .collect()
}

fn outcome(command: &Command, found: &HashMap<String, Row>) -> Result<Option<Outcome>, Corrupt> {
    let of = |part: &Command| {
        let row = found.get(&part.request.0);
        row.map(|row| row.outcome(part)).transpose()
    };
    if !matches!(command.change, Change::All { .. }) {
        return of(command);
    }
    let mut outcomes = Vec::new();
    for part in command.parts() {
        let Some(outcome) = of(&part)? else {
            return Ok(None);
        };
        let refused = outcome.is_err();
        outcomes.push(outcome);
        if refused {
            break;
        }
    }
    Ok(Some(Ok(Effect::All { outcomes })))
}

#[derive(Deserialize)]
struct Rest {
    token: FencingToken,
    backoff: Backoff,
}

impl Row {
    fn outcome(&self, command: &Command) -> Result<Outcome, Corrupt> {
        let change = &command.change;
        if self.digest != change.digest() {
            return Ok(Err(Refusal::KeyReused));
        }
        let undefined = || Corrupt::Verdict {
            request: self.request.clone(),
            verdict: self.verdict.clone(),
        };
        if let Some(effect) = self.effect(change)? {
            return Ok(Ok(effect));
        }
        self.refusal(change).map(Err).ok_or_else(undefined)
    }

    /// The effect, if the verdict is one that `change` can have.
    fn effect(&self, change: &Change) -> Result<Option<Effect>, Corrupt> {
        let number = self.number.unwrap_or(0);
        let count = u32::try_from(number).unwrap_or(0);
        let flag = self.flag.unwrap_or(0);
        let effect = match (change, &*self.verdict) {
            (Change::Submit { .. }, "submitted" | "existing") => {
                let (Some(job), Some(state)) = (&self.job, self.state) else {
                    return Ok(None);
                };
                Effect::Submitted {
                    job: job.clone(),
                    existing: self.verdict == "existing",
                    state,
                    waits_for: self.waits_for,
                }
            }
            (Change::Claim { .. }, "claimed") => Effect::Claimed {
                claims: self.claims.clone(),
            },
            (Change::Start { .. }, "started") => Effect::Started,
            (Change::Renew { .. }, "renewed") => Effect::Renewed {
                renewals: number.cast_unsigned(),
                cancel: flag & 1 != 0,
                pause: flag & 2 != 0,
            },
            (Change::Log { .. }, "logged" | "log_repeated") => Effect::Logged {
                next: count,
                dropped_bytes: flag.cast_unsigned(),
            },
            (Change::Finish { job, .. } | Change::Expire { job, .. }, "ended") => {
                let Some(state) = self.state else {
                    return Ok(None);
                };
                Effect::Ended {
                    state,
                    waits_for: self.waits_for,
                    pause_ms: self.pause_ms(job, count)?,
                    dependents: flag != 0,
                }
            }
            (Change::Cancel { .. }, "cancelled") => {
                let Some(state) = self.state else {
                    return Ok(None);
                };
                Effect::Cancelled {
                    state,
                    dependents: flag != 0,
                }
            }
            (Change::Retry { .. }, "retried") => Effect::Retried,
            (Change::Ready { .. }, "ready") => Effect::Ready,
            (Change::Due { .. }, "due") => Effect::Due {
                count,
                next_ms: self.flag.map(UnixMillis),
            },
            (Change::Settle { .. }, "settled") => Effect::Settled {
                count,
                more: flag != 0,
                next_ms: self
                    .detail
                    .as_deref()
                    .and_then(|millis| millis.parse().ok())
                    .map(UnixMillis),
            },
            (Change::SetSchedule { .. }, "schedule_set") => {
                Effect::ScheduleSet { revision: number }
            }
            (Change::SkipTick { .. }, "tick_skipped") => Effect::TickSkipped,
            (Change::RemoveSchedule { .. }, "schedule_removed") => Effect::ScheduleRemoved,
            (Change::Prune { .. }, "pruned") => Effect::Pruned { count },
            (Change::Pause { .. }, "paused") => {
                let Some(state) = self.before else {
                    return Ok(None);
                };
                Effect::Paused { state }
            }
            (Change::Resume { .. }, "resumed") => Effect::Resumed {
                waits_for: self.waits_for,
                next_ms: self.flag.map(UnixMillis),
            },
            (Change::Append { .. }, "appended") => Effect::Appended {
                next: number.cast_unsigned(),
            },
            (Change::Send { .. }, "sent") => Effect::Sent {
                number: number.cast_unsigned(),
                waits_for: self.waits_for,
            },
            (Change::Park { .. }, "parked") => {
                let Some(state) = self.state else {
                    return Ok(None);
                };
                Effect::Parked {
                    state,
                    waits_for: self.waits_for,
                    dependents: flag != 0,
                }
            }
            (Change::PutChunk { .. }, "chunk_put") => Effect::ChunkPut,
            (Change::Deploy { .. }, "deployed" | "deployed_before") => Effect::Deployed {
                existing: self.verdict == "deployed_before",
            },
            _ => return Ok(None),
        };
        Ok(Some(effect))
    }

    fn pause_ms(&self, job: &JobId, failures: u32) -> Result<Option<u64>, Corrupt> {
        if self.waits_for != Some(WaitsFor::Backoff) {
            return Ok(None);
        }
        let text = self.detail.as_deref().unwrap_or_default();
        let rest: Rest = serde_json::from_str(text).map_err(|error| Corrupt::row(&error, text))?;
        let pause = rest.backoff.pause(job, rest.token, failures);
        Ok(Some(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)))
    }

    fn refusal(&self, change: &Change) -> Option<Refusal> {
        let job = || job_of(change).cloned();
        let from = self.before;
        Some(match &*self.verdict {
            "unknown_job" => Refusal::UnknownJob { job: job()? },
            "token_stale" => Refusal::TokenStale {
                given: token_of(change)?,
            },
            "lease_ended" => Refusal::LeaseEnded { state: from? },
            "illegal_transition" => Refusal::IllegalTransition {
                from: from?,
                to: target_of(change)?,
            },
            "key_reused" => Refusal::KeyReused,
            "id_taken" => Refusal::IdTaken { job: job()? },
            "unknown_dependency" => Refusal::UnknownDependency {
                job: JobId(self.detail.clone()?),
            },
            "too_many_label_sets" => Refusal::TooManyLabelSets,
            "log_gap" => Refusal::LogGap {
                expected: u32::try_from(self.number?).ok()?,
            },
            "renewed_since" => Refusal::RenewedSince,
            "not_due" => Refusal::NotDue { state: from? },
            "tick_taken" => Refusal::TickTaken {
                schedule: schedule_of(change)?,
            },
            "unknown_schedule" => Refusal::UnknownSchedule {
                schedule: schedule_of(change)?,
            },
            "too_many_schedules" => Refusal::TooManySchedules,
            "not_a_workflow" => Refusal::NotAWorkflow { job: job()? },
            "journal_gap" => Refusal::JournalGap {
                next: self.number?.cast_unsigned(),
            },
            "journal_full" => Refusal::JournalFull,
            "finished" => Refusal::Finished { state: from? },
            "inbox_full" => Refusal::InboxFull,
            "cannot_pause" => Refusal::CannotPause { state: from? },
            "not_paused" => Refusal::NotPaused,
            "version_taken" => {
                let Change::Deploy { name, version, .. } = change else {
                    return None;
                };
                Refusal::VersionTaken {
                    name: name.clone(),
                    version: version.clone(),
                }
            }
            "module_incomplete" => Refusal::ModuleIncomplete {
                chunks: u32::try_from(self.number?).ok()?,
                bytes: self.flag?.cast_unsigned(),
            },
            "too_many_modules" => Refusal::TooManyModules,
            _ => return None,
        })
    }
}

fn job_of(change: &Change) -> Option<&JobId> {
    match change {
        Change::Submit { job, .. }
        | Change::Start { job, .. }
        | Change::Renew { job, .. }
        | Change::Log { job, .. }
        | Change::Finish { job, .. }
        | Change::Cancel { job, .. }
        | Change::Retry { job, .. }
        | Change::Pause { job, .. }
        | Change::Resume { job }
        | Change::Append { job, .. }
        | Change::Send { job, .. }
        | Change::Park { job, .. }
        | Change::Expire { job, .. }
        | Change::Ready { job, .. } => Some(job),
        Change::Claim { .. }
        | Change::Due { .. }
        | Change::Settle { .. }
        | Change::SetSchedule { .. }
        | Change::SkipTick { .. }
        | Change::RemoveSchedule { .. }
        | Change::Prune { .. }
        | Change::All { .. }
        | Change::PutChunk { .. }
        | Change::Deploy { .. } => None,
    }
}

fn token_of(change: &Change) -> Option<FencingToken> {
    match change {
        Change::Start { token, .. }
        | Change::Renew { token, .. }
        | Change::Log { token, .. }
        | Change::Finish { token, .. }
        | Change::Expire { token, .. }
        | Change::Append { token, .. }
        | Change::Park { token, .. }
        | Change::Ready { token, .. } => Some(*token),
        Change::Submit { .. }
        | Change::Claim { .. }
        | Change::Cancel { .. }
        | Change::Retry { .. }
        | Change::Due { .. }
        | Change::Settle { .. }
        | Change::SetSchedule { .. }
        | Change::SkipTick { .. }
        | Change::RemoveSchedule { .. }
        | Change::Prune { .. }
        | Change::Pause { .. }
        | Change::Resume { .. }
        | Change::Send { .. }
        | Change::All { .. }
        | Change::PutChunk { .. }
        | Change::Deploy { .. } => None,
    }
}

/// Where a job would have gone by a change that can be an illegal transition.
fn target_of(change: &Change) -> Option<JobState> {
    match change {
        Change::Start { .. } => Some(JobState::InProgress),
        Change::Finish {
            report: Report::TimedOut,
            ..
        } => Some(JobState::Failed),
        Change::Finish { .. } => Some(JobState::Completed),
        Change::Cancel { .. } => Some(JobState::Cancelled),
        Change::Retry { .. } => Some(JobState::Pending),
        _ => None,
    }
}

fn schedule_of(change: &Change) -> Option<String> {
    match change {
        Change::Submit {
            tick: Some(tick), ..
        }
        | Change::SkipTick { tick } => Some(tick.schedule.clone()),
        Change::SetSchedule { name, .. } | Change::RemoveSchedule { name } => Some(name.clone()),
        _ => None,
    }
}
