//! Commands out of a few numbers: over few names, so that they meet often, and mostly about what is there.

use crate::{
    backoff::Backoff,
    command::{Change, Command, Expiry, Report, Stream, Tick},
    cron::Missed,
    id::{FencingToken, JobId, RequestId, UnixMillis},
    job::{Concurrency, DependencyFailure, JobSpec},
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
        match what % 32 {
            0..=7 => self.submit(draw, queue),
            8..=12 => Change::Claim {
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
            21 => Change::Cancel { job: self.job(a) },
            22 => Change::Retry { job: self.job(a) },
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
                steps: u32::from(d % 3) + 1,
            },
            _ => self.schedule(draw, queue),
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
            format!("k{}", a % 2),
            serde_json::json!({ "text": "\u{1F600}'\"", "number": b % 2 }),
        );
        spec.labels = labels(a >> 1);
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
        let latest = queue.job(&job).map_or(0, |job| job.token.0);
        let off = [0, 0, 0, 0, 0, 0, -1, 1][usize::from(token / 8 % 8)];
        (job, FencingToken(latest + off))
    }
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
