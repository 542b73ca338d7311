//! A store in the memory of one process.
//!
//! It needs no consensus, so it is quick; it runs the same core as the replicated one, so tests of
//! the HTTP layer and of the queue mean something. Faults can be planted in it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Deadline, MemberStatus, Status, Store};
use crate::{
    command::{
        Answer, Barrier, Change, Command, Cursor, Effect, Proposal, Query, Reading, Unavailable,
    },
    job::{Job, JobState, Refusal},
};

/// A store for tests.
#[derive(Debug, Default)]
pub struct MemoryStore {
    contents: Mutex<Contents>,
}

#[derive(Debug, Default)]
struct Contents {
    jobs: Vec<Job>,
    requests: HashMap<String, (String, Proposal)>,
    applied: u64,
    outage: Option<Outage>,
}

/// What a [`MemoryStore`] is to suffer from.
#[derive(Clone, Debug)]
pub enum Outage {
    /// Nothing can be handed to the log.
    Unavailable(Unavailable),
    /// Commands are applied, and their answers get lost.
    AnswersLost,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Plants a fault, or takes it away.
    pub fn set_outage(&self, outage: Option<Outage>) {
        self.lock().outage = outage;
    }

    /// Applies a command as every replica would.
    pub fn apply(&self, command: &Command) -> Proposal {
        self.lock().apply(command)
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unavailable(&self) -> Option<Unavailable> {
        match &self.lock().outage {
            Some(Outage::Unavailable(cause)) => Some(cause.clone()),
            Some(Outage::AnswersLost) | None => None,
        }
    }
}

impl Contents {
    fn apply(&mut self, command: &Command) -> Proposal {
        self.applied += 1;
        let digest = command.change.digest();
        if let Some((known, answer)) = self.requests.get(&command.request.0) {
            return if *known == digest {
                answer.clone()
            } else {
                Proposal::Rejected {
                    refusal: Refusal::KeyReused,
                }
            };
        }
        let answer = match self.change(command) {
            Ok(effect) => Proposal::Committed { effect },
            Err(refusal) => Proposal::Rejected { refusal },
        };
        self.requests
            .insert(command.request.0.clone(), (digest, answer.clone()));
        answer
    }

    fn change(&mut self, command: &Command) -> Result<Effect, Refusal> {
        let now = command.at;
        match &command.change {
            Change::Submit {
                job,
                kind,
                payload,
                submitted_on,
            } => {
                let job = Job {
                    id: job.clone(),
                    kind: kind.clone(),
                    payload: payload.clone(),
                    state: JobState::Pending,
                    created_at_ms: now,
                    updated_at_ms: now,
                    submitted_on: *submitted_on,
                    claimed_by: None,
                    attempts: 0,
                };
                self.jobs.push(job.clone());
                Ok(Effect::Submitted { job })
            }
            Change::Claim { worker, kinds } => {
                let fits = |job: &&mut Job| {
                    job.state == JobState::Pending
                        && (kinds.is_empty() || kinds.contains(&job.kind))
                };
                let claim = self.jobs.iter_mut().find(fits).and_then(|job| {
                    let token = job.claim(worker, now)?;
                    Some((job.clone(), token))
                });
                Ok(Effect::Claimed { claim })
            }
            Change::Move {
                job: id,
                target,
                token,
            } => {
                let job = self.jobs.iter_mut().find(|job| job.id == *id);
                let job = job.ok_or_else(|| Refusal::UnknownJob { job: id.clone() })?;
                job.move_to(*target, *token, now)?;
                Ok(Effect::Moved { job: job.clone() })
            }
        }
    }

    fn answer(&self, query: &Query) -> Answer {
        match query {
            Query::Job { job } => Answer::Job {
                job: self.jobs.iter().find(|known| known.id == *job).cloned(),
            },
            Query::List {
                after,
                limit,
                state,
            } => self.page(*after, *limit, *state),
            Query::Latest { limit } => Answer::Jobs {
                jobs: self
                    .jobs
                    .iter()
                    .rev()
                    .take(*limit as usize)
                    .cloned()
                    .collect(),
                next: None,
            },
            Query::Stats => Answer::Stats {
                counts: JobState::ALL
                    .map(|state| {
                        (
                            state,
                            self.jobs.iter().filter(|job| job.state == state).count() as u64,
                        )
                    })
                    .into(),
            },
        }
    }

    fn page(&self, after: Option<Cursor>, limit: u32, state: Option<JobState>) -> Answer {
        let after = after.map_or(0, |cursor| cursor.0);
        let mut rest = (1_i64..)
            .zip(&self.jobs)
            .filter(|(place, job)| *place > after && state.is_none_or(|state| job.state == state));
        let page: Vec<(i64, &Job)> = rest.by_ref().take(limit as usize).collect();
        let next = page
            .last()
            .map(|(place, _)| Cursor(*place))
            .filter(|_| rest.next().is_some());
        Answer::Jobs {
            jobs: page.into_iter().map(|(_, job)| job.clone()).collect(),
            next,
        }
    }
}

impl Store for MemoryStore {
    async fn propose(&self, command: Command, _deadline: Deadline) -> Proposal {
        let outage = self.lock().outage.clone();
        match outage {
            Some(Outage::Unavailable(cause)) => Proposal::Unavailable { cause },
            Some(Outage::AnswersLost) => {
                self.apply(&command);
                Proposal::Unknown
            }
            None => self.apply(&command),
        }
    }

    async fn read(&self, barrier: Barrier, query: Query, _deadline: Deadline) -> Reading {
        match (barrier, self.unavailable()) {
            (Barrier::Linearizable, Some(cause)) => Reading::Unavailable { cause },
            (Barrier::Linearizable | Barrier::Local, _) => {
                let contents = self.lock();
                Reading::Done {
                    answer: contents.answer(&query),
                    log_index: contents.applied,
                }
            }
        }
    }

    async fn status(&self) -> Status {
        let unavailable = self.unavailable();
        let applied = self.lock().applied;
        Status {
            node: 1,
            members: vec![MemberStatus {
                id: 1,
                http: "127.0.0.1:3020".into(),
                raft: "127.0.0.1:9000".into(),
                store: "127.0.0.1:9001".into(),
                voter: true,
            }],
            leader: unavailable.is_none().then_some(1),
            term: 1,
            last_log_index: applied,
            applied_index: applied,
            unavailable,
        }
    }

    async fn propose_forwarded(&self, command: Command, deadline: Deadline) -> Proposal {
        self.propose(command, deadline).await
    }

    async fn read_forwarded(&self, query: Query, deadline: Deadline) -> Reading {
        self.read(Barrier::Linearizable, query, deadline).await
    }

    async fn lead(&self) -> Result<(), Unavailable> {
        self.unavailable().map_or(Ok(()), Err)
    }
}
