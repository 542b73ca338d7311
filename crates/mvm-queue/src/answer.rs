//! Reading the pure core: what [`crate::sql`] reads from a database.

use crate::{
    bytes::Hex,
    id::{FencingToken, JobId},
    job::{FLOW_KIND, Job, JobState, WaitsFor},
    query::{
        Answer, Cursor, Execution, FRAMES_BYTES_MAX, FRAMES_PAGE_MAX, Filter, Frame, KeeperFact,
        Module, Order, PAGE_MAX, PAGE_SCAN_MAX, Query,
    },
    queue::{Queue, Workflow, is_ready_for},
};

impl Queue {
    /// Answers a query.
    pub fn answer(&self, query: &Query) -> Answer {
        match query {
            Query::Job { job } => Answer::Job {
                job: self.job(job).cloned().map(Box::new),
            },
            Query::List {
                after,
                limit,
                order,
                filter,
            } => self.page(*after, *limit, *order, filter),
            Query::Stats => Answer::Stats {
                counts: JobState::ALL.map(|state| (state, self.count(state))).into(),
            },
            Query::Ready { labels, kinds } => {
                let jobs = self.jobs.values().map(|entry| &entry.job);
                Answer::Ready {
                    count: jobs.filter(|job| is_ready_for(job, labels, kinds)).count() as u64,
                }
            }
            Query::Attempts { job } => Answer::Attempts {
                attempts: self
                    .entry(job)
                    .map_or_else(Vec::new, |entry| entry.attempts.values().cloned().collect()),
            },
            Query::Log {
                job,
                token,
                from,
                limit,
            } => self.chunks(job, *token, *from, *limit),
            Query::Schedules => Answer::Schedules {
                schedules: self.schedules.values().cloned().collect(),
            },
            Query::Keeper => Answer::Keeper {
                facts: self.keeper_facts(),
            },
            Query::Execution { job } => Answer::Execution {
                execution: self.workflow_of(job).map(|(job, workflow)| Execution {
                    frames: workflow.frames.len() as u64,
                    bytes: workflow.bytes(),
                    response: workflow.response,
                    messages: workflow.messages.len() as u64,
                    paused: job.paused.is_some(),
                }),
            },
            Query::Frames {
                job,
                from,
                bytes_max,
            } => self.frames(job, *from, (*bytes_max).min(FRAMES_BYTES_MAX)),
            Query::Inbox { job, beyond, limit } => {
                let inbox = self.workflow_of(job).map(|(_, of)| of.messages.values());
                let messages = inbox.into_iter().flatten();
                Answer::Inbox {
                    messages: messages
                        .filter(|message| message.number > *beyond)
                        .take(*limit as usize)
                        .cloned()
                        .collect(),
                }
            }
            Query::Modules => Answer::Modules {
                modules: self.modules.values().cloned().collect(),
            },
            Query::Module { name, version } => {
                let same = |module: &&Module| module.name == *name && module.version == *version;
                Answer::Module {
                    module: self.modules.values().find(same).cloned(),
                }
            }
            Query::Chunk { hash, number } => {
                let chunk = self.uploads.chunks.get(&(hash.clone(), *number));
                Answer::Chunk {
                    chunk: chunk.map(|bytes| Hex::of(bytes)),
                }
            }
        }
    }

    /// A job.
    pub fn job(&self, id: &JobId) -> Option<&Job> {
        self.entry(id).map(|entry| &entry.job)
    }

    fn workflow_of(&self, id: &JobId) -> Option<(&Job, &Workflow)> {
        let entry = self.entry(id)?;
        (entry.job.spec.kind == FLOW_KIND).then_some((&entry.job, &entry.workflow))
    }

    fn frames(&self, job: &JobId, from: u64, bytes_max: u64) -> Answer {
        let journal = self.workflow_of(job).map(|(_, workflow)| &workflow.frames);
        let mut total = 0;
        let frames = (0_u64..).zip(journal.into_iter().flatten());
        Answer::Frames {
            frames: frames
                .skip_while(|(number, _)| *number < from)
                .take(FRAMES_PAGE_MAX as usize)
                .take_while(|(number, frame)| {
                    total += frame.len() as u64;
                    total <= bytes_max || *number == from
                })
                .map(|(number, frame)| Frame {
                    number,
                    hex: Hex::of(frame),
                })
                .collect(),
        }
    }

    fn count(&self, state: JobState) -> u64 {
        let jobs = self.jobs.values();
        jobs.filter(|entry| entry.job.state == state).count() as u64
    }

    fn page(&self, after: Option<Cursor>, limit: u32, order: Order, filter: &Filter) -> Answer {
        let behind = |seq: i64| match (after, order) {
            (None, _) => true,
            (Some(after), Order::OldestFirst) => seq > after.0,
            (Some(after), Order::NewestFirst) => seq < after.0,
        };
        let of_state = |job: &Job| filter.state.is_none_or(|state| job.state == state);
        let mut scanned: Vec<(i64, &Job)> = self
            .jobs
            .iter()
            .map(|(seq, entry)| (*seq, &entry.job))
            .filter(|(seq, job)| behind(*seq) && of_state(job))
            .collect();
        if order == Order::NewestFirst {
            scanned.reverse();
        }
        let whole = scanned.len() <= PAGE_SCAN_MAX as usize;
        scanned.truncate(PAGE_SCAN_MAX as usize);
        let end = scanned.last().map(|(seq, _)| Cursor(*seq));
        scanned.retain(|(_, job)| filter.fits(job));
        let limit = limit.min(PAGE_MAX) as usize;
        let next = if scanned.len() > limit {
            scanned.truncate(limit);
            scanned.last().map(|(seq, _)| Cursor(*seq))
        } else {
            end.filter(|_| !whole)
        };
        Answer::Jobs {
            jobs: scanned.into_iter().map(|(_, job)| job.clone()).collect(),
            next,
        }
    }

    fn chunks(&self, job: &JobId, token: FencingToken, from: u32, limit: u32) -> Answer {
        let log = self.entry(job).and_then(|entry| entry.logs.get(&token));
        let chunks = log.into_iter().flatten();
        Answer::Log {
            chunks: chunks
                .filter(|chunk| chunk.number >= from)
                .take(limit as usize)
                .cloned()
                .collect(),
        }
    }

    fn keeper_facts(&self) -> Vec<KeeperFact> {
        let jobs = self.jobs.values().map(|entry| &entry.job);
        let of_job = |job: &Job| {
            if job.state.is_held() {
                Some(KeeperFact::Lease {
                    job: job.id.clone(),
                    token: job.token,
                    renewals: job.renewals,
                    started: job.state == JobState::InProgress,
                    timeout_ms: job.spec.timeout_ms,
                    cancel: job.cancel_requested,
                })
            } else if job.waits_for == Some(WaitsFor::Backoff) {
                Some(KeeperFact::Backoff {
                    job: job.id.clone(),
                    token: job.token,
                    failures: job.failures,
                    backoff: job.spec.backoff,
                })
            } else {
                None
            }
        };
        let schedules = self.schedules.values().cloned();
        jobs.filter_map(of_job)
            .chain(schedules.map(|schedule| KeeperFact::Schedule {
                schedule: Box::new(schedule),
            }))
            .chain([
                KeeperFact::RunAfter {
                    next_ms: self.next_run_after().map(|(time, _)| time),
                },
                KeeperFact::Settling {
                    more: !self.settling.is_empty(),
                },
            ])
            .collect()
    }
}
