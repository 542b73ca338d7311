//! Claims, leases, and the end of attempts: what workers ask for, and what the leader does when it hears nothing.

use std::collections::BTreeSet;

use super::{Outcome, Queue};
use crate::{
    bytes::Hex,
    command::{Expiry, Report, Stream},
    effect::{Claim, Effect},
    id::{FencingToken, JobId, UnixMillis},
    job::{Attempt, AttemptOutcome, Job, JobState, WaitsFor},
    limits::LOG_BYTES_MAX,
    query::LogChunk,
    refusal::Refusal,
    transition::{Standing, ending},
};

impl Queue {
    pub(super) fn claim(
        &mut self,
        node: u64,
        worker: &str,
        slots: u32,
        labels: &BTreeSet<String>,
        kinds: &BTreeSet<String>,
        at: UnixMillis,
    ) -> Effect {
        let mut claims = Vec::new();
        for _ in 0..slots {
            let Some(seq) = self.first_for(node, labels, kinds) else {
                break;
            };
            let grows = i64::from(!self.repeats_tokens());
            let entry = self.at(seq);
            let job = &mut entry.job;
            job.token.0 += grows;
            job.renewals = 0;
            job.claimed_by = Some(worker.to_owned());
            job.claimed_on = Some(node);
            let token = job.token;
            claims.push(Claim {
                job: job.id.clone(),
                token,
                submitted_on: job.submitted_on,
                spec: job.spec.clone(),
            });
            entry.attempts.insert(
                token,
                Attempt {
                    token,
                    worker: worker.to_owned(),
                    node,
                    claimed_at_ms: at,
                    started_at_ms: None,
                    ended_at_ms: None,
                    outcome: None,
                    error: None,
                    log_next: 0,
                    log_bytes: 0,
                    log_dropped_bytes: 0,
                },
            );
            self.set(seq, JobState::Claimed, None, at);
        }
        Effect::Claimed { claims }
    }

    /// The highest priority first, then those that this node took, then the oldest.
    fn first_for(
        &self,
        node: u64,
        labels: &BTreeSet<String>,
        kinds: &BTreeSet<String>,
    ) -> Option<i64> {
        let fits = |job: &Job| is_ready_for(job, labels, kinds);
        let grants_twice = self.grants_twice();
        self.jobs
            .iter()
            .map(|(seq, entry)| (seq, &entry.job))
            .filter(|(_, job)| fits(job) || (grants_twice && job.state == JobState::InProgress))
            .min_by_key(|(seq, job)| {
                (
                    -i64::from(job.spec.priority),
                    job.submitted_on != node,
                    **seq,
                )
            })
            .map(|(seq, _)| *seq)
    }

    /// Looks up a job whose lease the token proves.
    pub(super) fn held(&mut self, id: &JobId, token: FencingToken) -> Result<i64, Refusal> {
        let trusting = self.ignores_tokens();
        let seq = self.seq(id)?;
        let job = &self.at(seq).job;
        if job.token != token && !trusting {
            return Err(Refusal::TokenStale { given: token });
        }
        if !job.state.is_held() {
            return Err(Refusal::LeaseEnded { state: job.state });
        }
        Ok(seq)
    }

    pub(super) fn attempt(&mut self, seq: i64) -> Option<&mut Attempt> {
        let entry = self.at(seq);
        entry.attempts.get_mut(&entry.job.token)
    }

    pub(super) fn start(&mut self, id: &JobId, token: FencingToken, at: UnixMillis) -> Outcome {
        let seq = self.held(id, token)?;
        let from = self.at(seq).job.state;
        if from != JobState::Claimed {
            return Err(Refusal::IllegalTransition {
                from,
                to: JobState::InProgress,
            });
        }
        if let Some(attempt) = self.attempt(seq) {
            attempt.started_at_ms = Some(at);
        }
        self.set(seq, JobState::InProgress, None, at);
        Ok(Effect::Started)
    }

    pub(super) fn renew(&mut self, id: &JobId, token: FencingToken) -> Outcome {
        let seq = self.held(id, token)?;
        let job = &mut self.at(seq).job;
        job.renewals += 1;
        Ok(Effect::Renewed {
            renewals: job.renewals,
            cancel: job.cancel_requested,
            pause: job.paused.is_some(),
        })
    }

    pub(super) fn log(
        &mut self,
        id: &JobId,
        token: FencingToken,
        number: u32,
        stream: Stream,
        bytes: &[u8],
        at: UnixMillis,
    ) -> Outcome {
        let seq = self.held(id, token)?;
        let entry = self.at(seq);
        let token = entry.job.token;
        let Some(attempt) = entry.attempts.get_mut(&token) else {
            return Err(Refusal::TokenStale { given: token });
        };
        if number > attempt.log_next {
            return Err(Refusal::LogGap {
                expected: attempt.log_next,
            });
        }
        if number == attempt.log_next {
            let room = LOG_BYTES_MAX.saturating_sub(attempt.log_bytes);
            let kept = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            attempt.log_next += 1;
            attempt.log_bytes += kept as u64;
            attempt.log_dropped_bytes += (bytes.len() - kept) as u64;
            if kept > 0 {
                entry.logs.entry(token).or_default().push(LogChunk {
                    number,
                    stream,
                    at_ms: at,
                    hex: Hex::of(&bytes[..kept]),
                });
            }
        }
        Ok(Effect::Logged {
            next: attempt.log_next,
            dropped_bytes: attempt.log_dropped_bytes,
        })
    }

    pub(super) fn finish(
        &mut self,
        id: &JobId,
        token: FencingToken,
        report: &Report,
        at: UnixMillis,
    ) -> Outcome {
        let seq = self.held(id, token)?;
        let needs_start = matches!(report, Report::Succeeded { .. } | Report::TimedOut);
        let from = self.at(seq).job.state;
        if needs_start && from == JobState::Claimed {
            return Err(Refusal::IllegalTransition {
                from,
                to: match report {
                    Report::TimedOut => JobState::Failed,
                    _ => JobState::Completed,
                },
            });
        }
        self.at(seq).job.result = report.result().cloned();
        let error = report.error().map(str::to_owned);
        Ok(self.end(seq, report.outcome(), report.permanent(), error, at))
    }

    pub(super) fn expire(
        &mut self,
        id: &JobId,
        token: FencingToken,
        cause: Expiry,
        at: UnixMillis,
    ) -> Outcome {
        let seq = self.held(id, token)?;
        let job = &self.at(seq).job;
        let state = job.state;
        match cause {
            Expiry::Lease { renewals } if renewals != job.renewals => {
                return Err(Refusal::RenewedSince);
            }
            Expiry::Timeout if state != JobState::InProgress || job.spec.timeout_ms.is_none() => {
                return Err(Refusal::NotDue { state });
            }
            Expiry::Cancel if !job.cancel_requested => return Err(Refusal::NotDue { state }),
            Expiry::Lease { .. } | Expiry::Timeout | Expiry::Cancel => {}
        }
        let error = Some(cause.error().to_owned());
        Ok(self.end(seq, cause.outcome(), false, error, at))
    }

    fn end(
        &mut self,
        seq: i64,
        outcome: AttemptOutcome,
        permanent: bool,
        error: Option<String>,
        at: UnixMillis,
    ) -> Effect {
        if let Some(attempt) = self.attempt(seq) {
            attempt.ended_at_ms = Some(at);
            attempt.outcome = Some(outcome);
            attempt.error.clone_from(&error);
        }
        let loses = self.loses_lost_jobs();
        let job = &mut self.at(seq).job;
        let standing = Standing {
            failures: job.failures,
            losses: job.losses,
            cancel_requested: job.cancel_requested,
            paused: job.paused.is_some(),
        };
        let mut after = ending(&job.spec, standing, outcome, permanent);
        if loses && outcome == AttemptOutcome::Lost && after.waits_for == Some(job.spec.eligible())
        {
            after.waits_for = Some(WaitsFor::Message);
        }
        job.failures = after.failures;
        job.losses = after.losses;
        // A reason to cancel tells more than what the worker says.
        let reason = job
            .error
            .take()
            .filter(|_| standing.cancel_requested && after.state == JobState::Cancelled);
        job.error = reason.or(error);
        self.set(seq, after.state, after.waits_for, at);
        let job = &self.at(seq).job;
        let pause = || job.spec.backoff.pause(&job.id, job.token, job.failures);
        let rests = outcome != AttemptOutcome::Lost && job.waits_for == Some(WaitsFor::Backoff);
        let (state, waits_for) = (job.state, job.waits_for);
        let pause_ms = rests.then(|| u64::try_from(pause().as_millis()).unwrap_or(u64::MAX));
        Effect::Ended {
            state,
            waits_for,
            pause_ms,
            dependents: self.settling.contains(&seq),
        }
    }

    #[cfg(not(test))]
    const fn bugs(&self) -> [bool; 4] {
        [false; 4]
    }
    #[cfg(test)]
    fn bugs(&self) -> [bool; 4] {
        use crate::tests::Bug::{GrantsTwice, IgnoresTokens, LosesLostJobs, RepeatsTokens};
        [RepeatsTokens, GrantsTwice, IgnoresTokens, LosesLostJobs].map(|bug| self.bug == Some(bug))
    }
    fn repeats_tokens(&self) -> bool {
        self.bugs()[0]
    }
    fn grants_twice(&self) -> bool {
        self.bugs()[1]
    }
    fn ignores_tokens(&self) -> bool {
        self.bugs()[2]
    }
    fn loses_lost_jobs(&self) -> bool {
        self.bugs()[3]
    }
}

/// Whether a worker with these labels and kinds may take the job now.
pub(crate) fn is_ready_for(job: &Job, labels: &BTreeSet<String>, kinds: &BTreeSet<String>) -> bool {
    job.waits_for == Some(WaitsFor::Worker)
        && (kinds.is_empty() || kinds.contains(&job.spec.kind))
        && job.spec.labels.is_subset(labels)
}
