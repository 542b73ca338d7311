//! Commands out of a few numbers: over few names, so that they meet often, and mostly about what is there.

use std::num::NonZeroU64;

use crate::{
    backoff::Backoff,
    command::{Change, Command, Expiry, Report, Stream, Tick},
    cron::Missed,
    id::{FencingToken, JobId, RequestId, UnixMillis},
    job::{Concurrency, DependencyFailure, FLOW_KIND, Job, JobSpec, JobState},
    queue::Queue,
};

/// Numbers for one command; zeros make the simplest one.
pub(super) type Draw = [u16; 8];

/// Makes commands, given what has happened.
#[derive(Default)]
pub(super) struct Drawer {
    jobs: Vec<JobId>,
    made: Vec<Command>,
}

impl Drawer {
    pub(super) fn command(&mut self, draw: Draw, queue: &Queue) -> Command {
        let repeat = draw[7] % 8;
        if repeat == 7
            && let Some(command) = pick(&self.made, draw[6])
        {
            return command.clone();
        }
        let number = self.made.len();
        let request = match draw[7] % 64 {
            // A used id for another request.
            62 => number / 2,
            _ => number,
        };
        let command = Command {
            request: RequestId(format!("r{request}")),
            at: UnixMillis(1_000 + i64::from(draw[6] % 50)),
            change: self.change(draw, queue),
        };
        self.made.push(command.clone());
        command
    }

    fn change(&mut self, draw: Draw, queue: &Queue) -> Change {
        let [what, a, b, c, d, e, ..] = draw;
        match what % 54 {
            0..=7 => self.submit(draw, queue),
            8..=12 | 46 => Change::Claim {
                node: u64::from(a % 3),
                worker: format!("w{}", a % 3),
                slots: u32::from(b % 3) + 1,
                labels: labels(c | 4),
                kinds: if d % 3 == 0 {
                    [format!("k{}", d % 2)].into()
                } else {
                    [].into()
                },
            },
            13 | 14 => {
                let (job, token) = self.held(a, b, queue);
                Change::Start { job, token }
            }
            15 => {
                let (job, token) = self.held(a, b, queue);
                Change::Renew { job, token }
            }
            16 => {
                let (job, token) = self.held(a, b, queue);
                let big = if c % 16 == 15 { 400_000 } else { 1 };
                Change::Log {
                    job,
                    token,
                    number: u32::from(d % 4),
                    stream: [Stream::Stdout, Stream::Stderr][usize::from(e % 2)],
                    bytes: vec![b'x'; big * usize::from(e % 3)],
                }
            }
            17..=20 => {
                let (job, token) = self.held(a, b, queue);
                let report = match c % 6 {
                    0 | 1 => Report::Succeeded {
                        result: serde_json::json!({ "code": d, "text": "\u{1F600}'\"\u{0}" }),
                    },
                    2 => Report::Failed {
                        error: "it's \"bad\"".into(),
                        permanent: d % 4 == 0,
                    },
                    3 => Report::TimedOut,
                    4 => Report::Lost,
                    _ => Report::Cancelled,
                };
                Change::Finish { job, token, report }
            }
            21 => Change::Cancel {
                job: self.job(a),
                reason: (b % 2 == 1).then(|| "not \"needed\"".into()),
            },
            22 => Change::Retry {
                job: self.job_of(a, queue, |job| {
                    matches!(job.state, JobState::Failed | JobState::Dead)
                }),
                keep_frames: NonZeroU64::new(u64::from(b % 3)),
            },
            23 | 24 => {
                let (job, token) = self.held(a, b, queue);
                let renewals = queue.job(&job).map_or(0, |job| job.renewals);
                let cause = match c % 4 {
                    0 => Expiry::Timeout,
                    1 => Expiry::Cancel,
                    _ => Expiry::Lease {
                        renewals: renewals + u64::from(d % 4 == 3),
                    },
                };
                Change::Expire { job, token, cause }
            }
            25 | 26 => {
                let (job, token) = self.held(a, b, queue);
                Change::Ready { job, token }
            }
            27 => Change::Due {
                now_ms: UnixMillis(i64::from(a % 40)),
                steps: u32::from(b % 3) + 1,
            },
            28 | 29 => Change::Settle {
                steps: u32::from(a % 4) + 1,
            },
            30 => Change::Prune {
                keep: u64::from(a % 6),
                before_ms: (b % 2 == 1).then(|| UnixMillis(1_000 + i64::from(c % 50))),
                chunks_before_ms: (e % 2 == 1).then(|| UnixMillis(1_000 + i64::from(c % 50))),
                steps: u32::from(d % 3) + 1,
            },
            31 | 52 | 53 => self.schedule(draw, queue),
            32..=35 | 47 => self.append(draw, queue),
            36 | 37 => Change::Send {
                job: self.job_of(a, queue, |job| job.spec.kind == FLOW_KIND),
                kind: format!("t{}", b % 2),
                data: serde_json::json!({ "text": "\u{1F600}'\"\u{0}", "number": c }),
            },
            38..=40 => {
                let (job, token) = self.held_flow(a, b, queue);
                Change::Park {
                    job,
                    token,
                    until_ms: (c % 2 == 1).then(|| UnixMillis(i64::from(d % 40))),
                    seen: (e % 3 > 0).then(|| u64::from(e % 4)),
                    reason: (e % 2 > 0).then(|| "lacks".to_owned()),
                }
            }
            41 | 42 => Change::PutChunk {
                hash: format!("h{}", a % 3),
                number: u32::from(b % 3),
                bytes: vec![b'a' + u8::from(d % 2 == 0); usize::from(c % 3)],
            },
            43 => deploy(draw, queue),
            44 => Change::Pause {
                job: self.job_of(a, queue, |job| {
                    job.dependencies_open > 0 || job.spec.kind == FLOW_KIND
                }),
                reason: (b % 2 == 1).then(|| "for \"now\"".into()),
            },
            48 => Change::All {
                changes: vec![
                    self.submit(draw, queue),
                    Change::Claim {
                        node: u64::from(a % 3),
                        worker: format!("w{}", a % 3),
                        slots: 1,
                        labels: labels(c | 4),
                        kinds: [].into(),
                    },
                ],
            },
            49 => {
                let (job, token) = self.held_flow(a, b, queue);
                Change::All {
                    changes: vec![Change::Start { job, token }, self.append(draw, queue)],
                }
            }
            50 | 51 => {
                let append = self.append(draw, queue);
                let Change::Append { job, token, .. } = append.clone() else {
                    return append;
                };
                let (start, end) = (
                    Change::Start {
                        job: job.clone(),
                        token,
                    },
                    match what % 2 {
                        0 => Change::Finish {
                            job,
                            token,
                            report: Report::Succeeded {
                                result: serde_json::json!(d),
                            },
                        },
                        _ => Change::Park {
                            job,
                            token,
                            until_ms: None,
                            seen: (e % 3 > 0).then(|| u64::from(e % 4)),
                            reason: None,
                        },
                    },
                );
                // The parts of a part are parts.
                let rest = Change::All {
                    changes: vec![append, end],
                };
                let begins = c % 3 == 0;
                Change::All {
                    changes: begins.then_some(start).into_iter().chain([rest]).collect(),
                }
            }
            _ => Change::Resume {
                job: self.job_of(a, queue, |job| job.paused.is_some()),
            },
        }
    }

    fn append(&self, draw: Draw, queue: &Queue) -> Change {
        let [_, a, b, c, d, e, ..] = draw;
        let (job, token) = self.held_flow(a, b, queue);
        let next = queue
            .entry(&job)
            .map_or(0, |entry| entry.workflow.frames.len() as u64);
        let off = i64::from(c % 8 == 7) - i64::from(c % 8 == 6);
        // Some leave more than one step of a prune removes.
        let count = if c % 16 == 5 { 50 } else { d % 5 };
        Change::Append {
            job,
            token,
            first: next.saturating_add_signed(off),
            frames: (0..count)
                .map(|frame| vec![b'f'; usize::from(e.wrapping_add(frame) % 4)])
                .collect(),
            consumed: (0..d % 4).map(|number| u64::from(number + e % 3)).collect(),
            response: (e % 5 == 4).then_some(next),
        }
    }

    fn submit(&mut self, draw: Draw, queue: &Queue) -> Change {
        let [_, a, b, c, d, e, ..] = draw;
        let known = self.job(d);
        // An id is taken by a job that there is; nobody makes the id of a removed one again.
        let job = if e % 16 == 15 && queue.job(&known).is_some() {
            known
        } else {
            JobId(format!("j{}", self.jobs.len()))
        };
        let mut spec = JobSpec::new(
            ["k0", "k1", FLOW_KIND, FLOW_KIND][usize::from(a % 4)],
            serde_json::json!({ "text": "\u{1F600}'\"", "number": b % 2 }),
        );
        spec.labels = labels(a >> 2);
        spec.priority = i32::from(b % 3) - 1;
        spec.attempts_max = u32::from(b % 4 / 2) + 1;
        spec.losses_max = u32::from(b % 6 / 2) + 1;
        spec.backoff = Backoff {
            base_ms: u64::from(d),
            max_ms: 9_000,
        };
        spec.timeout_ms = (c % 2 == 1).then_some(50);
        spec.run_after_ms = (c % 5 == 4).then(|| UnixMillis(i64::from(d % 40)));
        if c % 3 == 2 {
            spec.concurrency = Some(Concurrency {
                key: format!("c{}", d % 2),
                limit: u32::from(e % 3) + 1,
            });
        }
        if d % 3 == 2 {
            let last = u16::try_from(self.jobs.len()).unwrap_or(u16::MAX);
            let mut on = vec![self.job(last.wrapping_sub(1 + e % 3))];
            if e % 2 == 1 && self.job(e) != on[0] {
                on.push(self.job(e));
            }
            spec.dependencies = on;
            if e % 5 > 2 {
                spec.on_dependency_failure = DependencyFailure::Run;
            }
        }
        if e % 4 == 3 {
            spec.idempotency_key = Some(format!("i{}", d % 4));
        }
        self.jobs.push(job.clone());
        Change::Submit {
            job,
            submitted_on: u64::from(c % 3),
            spec: Box::new(spec),
            tick: None,
        }
    }

    fn schedule(&mut self, draw: Draw, queue: &Queue) -> Change {
        let [_, a, b, c, d, ..] = draw;
        let name = format!("s{}", b % 2);
        let known = queue.schedules.get(&name);
        let tick = Tick {
            schedule: name.clone(),
            revision: known.map_or(1, |known| known.revision) + i64::from(c % 8 == 7),
            tick_ms: UnixMillis(known.map_or(0, |known| known.next_ms.0) + i64::from(d % 8 == 7)),
            next_ms: UnixMillis(i64::from(d) + 10),
        };
        match a % 6 {
            0 | 1 => Change::SetSchedule {
                name,
                cron: "* * * * *".into(),
                missed: [Missed::Once, Missed::All, Missed::Skip][usize::from(c % 3)],
                spec: Box::new(JobSpec::new("k0", serde_json::json!([c]))),
                next_ms: UnixMillis(i64::from(d)),
            },
            2 | 3 => {
                let mut submit = self.submit(draw, queue);
                if let Change::Submit { tick: of, .. } = &mut submit {
                    *of = Some(tick);
                }
                submit
            }
            4 => Change::SkipTick { tick },
            _ => Change::RemoveSchedule { name },
        }
    }

    /// A job that there is, mostly; later ones more often.
    fn job(&self, place: u16) -> JobId {
        if place % 29 == 28 {
            return JobId("nobody".into());
        }
        let recent = self.jobs.len().saturating_sub(8);
        let jobs = if place.is_multiple_of(4) {
            &self.jobs[..]
        } else {
            &self.jobs[recent..]
        };
        pick(jobs, place / 4)
            .cloned()
            .unwrap_or_else(|| JobId("nobody".into()))
    }

    /// Mostly a job that fits.
    fn job_of(&self, place: u16, queue: &Queue, fits: impl Fn(&Job) -> bool) -> JobId {
        let jobs = queue.jobs.values().map(|entry| &entry.job);
        let fitting: Vec<&JobId> = jobs.filter(|job| fits(job)).map(|job| &job.id).collect();
        match pick(&fitting, place / 8) {
            Some(job) if !place.is_multiple_of(8) => (*job).clone(),
            _ => self.job(place),
        }
    }

    /// The same of a workflow that a worker holds, mostly.
    fn held_flow(&self, place: u16, token: u16, queue: &Queue) -> (JobId, FencingToken) {
        let fits = |job: &Job| job.spec.kind == FLOW_KIND && job.state.is_held();
        let job = self.job_of(place, queue, fits);
        let token = with_token(&job, token, queue);
        (job, token)
    }

    /// A job, and mostly the token of its latest claim.
    fn held(&self, place: u16, token: u16, queue: &Queue) -> (JobId, FencingToken) {
        let held: Vec<&JobId> = queue
            .jobs
            .values()
            .filter(|entry| entry.job.state.is_held())
            .map(|entry| &entry.job.id)
            .collect();
        let job = match pick(&held, place) {
            Some(job) if token % 8 != 7 => (*job).clone(),
            _ => self.job(place),
        };
        let token = with_token(&job, token, queue);
        (job, token)
    }
}

/// Mostly what is stored.
fn deploy(draw: Draw, queue: &Queue) -> Change {
    let [_, a, b, c, d, e, ..] = draw;
    let hash = format!("h{}", c % 3);
    let chunks = u32::from(d % 3) + 1;
    let of_module = queue
        .uploads
        .chunks
        .range((hash.clone(), 0)..(hash.clone(), chunks));
    let bytes: usize = of_module.map(|(_, bytes)| bytes.len()).sum();
    Change::Deploy {
        name: format!("m{}", a % 2),
        version: format!("{}", b % 2),
        hash,
        bytes: bytes as u64 + u64::from(e % 8 == 7),
        chunks,
    }
}

fn with_token(job: &JobId, token: u16, queue: &Queue) -> FencingToken {
    let latest = queue.job(job).map_or(0, |job| job.token.0);
    let off = [0, 0, 0, 0, 0, 0, -1, 1][usize::from(token / 8 % 8)];
    FencingToken(latest + off)
}

fn labels(bits: u16) -> std::collections::BTreeSet<String> {
    let all = ["arm", "gpu"];
    let chosen = all
        .iter()
        .enumerate()
        .filter(|(bit, _)| bits >> bit & 1 == 1);
    chosen.map(|(_, label)| (*label).to_owned()).collect()
}

fn pick<T>(from: &[T], place: u16) -> Option<&T> {
    if from.is_empty() {
        return None;
    }
    from.get(usize::from(place) % from.len())
}
