//! The leader's bookkeeping: which leases, pauses, times and ticks it counts, and what it proposes when one is over.
//!
//! It proposes and decides nothing: every proposal carries what it was based on, and the store refuses it if things have
//! changed. So a leader that was replaced, or that missed an outcome, does no harm.
//!
//! ```text
//!   election ── facts of the store ──▶ elected ┐
//!   every outcome this leader applied ▶ applied ├─▶ Keeper ──▶ poll: what to propose now
//!   an outcome that is unknown ───────▶ doubt   │          ──▶ wake: when to poll again
//!   facts again, when it asks ────────▶ sync    ┘
//! ```
//!
//! What a leader that was replaced had under way may be applied without a word to the new one. So it asks for facts once
//! per lease, though it has no doubts.
//!
//! `now` is the leader's monotonic clock and counts leases, timeouts and pauses. `wall` is its wall clock and is
//! compared with run-after times and cron ticks, and with nothing else.

mod schedules;

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use self::schedules::Schedules;
use crate::{
    command::{Change, Command, Expiry},
    effect::Effect,
    id::{FencingToken, JobId, UnixMillis},
    job::{JobSpec, JobState, WaitsFor},
    limits::STEPS_MAX,
    query::KeeperFact,
    queue::Outcome,
    refusal::Refusal,
};

/// The wall clock may be set at any moment, so what waits for it is looked at this often.
const WALL_CHECK: Duration = Duration::from_secs(1);

/// How long chunks of a module are kept that nobody deploys.
const UPLOAD_AGE: Duration = Duration::from_secs(24 * 3_600);

/// How the leader keeps time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeeperConfig {
    /// The node, for jobs of schedules.
    pub node: u64,
    /// How long a lease lasts without renewal. Longer than an election, or a paused leader ends what is alive.
    pub lease: Duration,
    /// How long beyond its timeout an attempt may go on: ending it in time is its worker's duty.
    pub timeout_grace: Duration,
    /// How long a worker may take to stop when told.
    pub cancel_grace: Duration,
    /// After how long a proposal without an outcome is made again.
    pub repeat: Duration,
    /// Which finished jobs go.
    pub retention: Option<Retention>,
}

/// Which finished jobs go, and how often that is looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Retention {
    /// Those beyond so many.
    pub keep: u64,
    /// Those that ended longer ago than this, by the wall clock.
    pub age: Option<Duration>,
    /// How often.
    pub every: Duration,
}

/// The leader's bookkeeping.
#[derive(Debug)]
pub struct Keeper {
    config: KeeperConfig,
    leading: bool,
    in_doubt: bool,
    /// When to look for what this keeper was not told.
    look_at: Duration,
    watches: HashMap<JobId, Watch>,
    /// The watches by the time at which they are over.
    order: BTreeSet<(Duration, JobId)>,
    run_after: Option<UnixMillis>,
    settling: bool,
    schedules: Schedules,
    due_at: Duration,
    settle_at: Duration,
    prune_at: Duration,
}

/// What is counted for one job.
#[derive(Clone, Debug)]
enum Watch {
    Lease {
        token: FencingToken,
        renewals: u64,
        timeout_ms: Option<u64>,
        lease_at: Duration,
        timeout_at: Option<Duration>,
        cancel_at: Option<Duration>,
    },
    Rest {
        token: FencingToken,
        at: Duration,
    },
}

impl Watch {
    fn over_at(&self) -> Duration {
        match self {
            Self::Lease {
                lease_at,
                timeout_at,
                cancel_at,
                ..
            } => [*timeout_at, *cancel_at]
                .into_iter()
                .flatten()
                .fold(*lease_at, Duration::min),
            Self::Rest { at, .. } => *at,
        }
    }

    const fn token(&self) -> FencingToken {
        match self {
            Self::Lease { token, .. } | Self::Rest { token, .. } => *token,
        }
    }
}

impl Keeper {
    /// A keeper of a node that does not lead.
    pub fn new(config: KeeperConfig) -> Self {
        Self {
            config,
            leading: false,
            in_doubt: false,
            look_at: Duration::ZERO,
            watches: HashMap::new(),
            order: BTreeSet::new(),
            run_after: None,
            settling: false,
            schedules: Schedules::default(),
            due_at: Duration::ZERO,
            settle_at: Duration::ZERO,
            prune_at: Duration::ZERO,
        }
    }

    /// The node leads now: all leases and pauses that the store knows start anew.
    pub fn elected(&mut self, facts: &[KeeperFact], now: Duration) {
        *self = Self::new(self.config);
        self.leading = true;
        self.prune_at = now
            + self
                .config
                .retention
                .map_or(Duration::ZERO, |how| how.every);
        self.sync(facts, now);
    }

    /// The node leads no more: there is nothing to propose.
    pub fn deposed(&mut self) {
        *self = Self::new(self.config);
    }

    /// An outcome is unknown: the store may have changed in a way that this keeper has not heard of.
    pub const fn doubt(&mut self) {
        self.in_doubt = true;
    }

    /// Whether something is in doubt, so that facts must be read after everything that is under way.
    pub const fn doubts(&self) -> bool {
        self.leading && self.in_doubt
    }

    /// Whether facts should be read again, for [`Keeper::sync`].
    pub fn wants_sync(&self, now: Duration) -> bool {
        self.leading && (self.in_doubt || self.look_at <= now)
    }

    /// Takes over facts that were read after everything that [`Keeper::applied`] was told so far. What is known goes on,
    /// what is new starts now.
    pub fn sync(&mut self, facts: &[KeeperFact], now: Duration) {
        let mut before = std::mem::take(&mut self.watches);
        self.order.clear();
        self.in_doubt = false;
        self.look_at = now + self.config.lease;
        self.run_after = None;
        self.settling = false;
        let mut schedules = Vec::new();
        for fact in facts {
            match fact {
                KeeperFact::Lease { job, token, .. } | KeeperFact::Backoff { job, token, .. } => {
                    let known = before.remove(job).filter(|watch| watch.token() == *token);
                    let watch = self.watch_of(fact, known, now);
                    self.watch(job.clone(), watch);
                }
                KeeperFact::RunAfter { next_ms } => self.run_after = *next_ms,
                KeeperFact::Settling { more } => self.settling = *more,
                KeeperFact::Schedule { schedule } => schedules.push((**schedule).clone()),
            }
        }
        self.schedules.replace(schedules);
    }

    fn watch_of(&self, fact: &KeeperFact, known: Option<Watch>, now: Duration) -> Option<Watch> {
        match fact {
            KeeperFact::Lease {
                token,
                renewals,
                started,
                timeout_ms,
                cancel,
                ..
            } => {
                let (known_renewals, lease_at, timeout_at, cancel_at) = match known {
                    Some(Watch::Lease {
                        renewals,
                        lease_at,
                        timeout_at,
                        cancel_at,
                        ..
                    }) => (Some(renewals), lease_at, timeout_at, cancel_at),
                    Some(Watch::Rest { .. }) | None => (None, now, None, None),
                };
                let same = known_renewals == Some(*renewals);
                Some(Watch::Lease {
                    token: *token,
                    renewals: *renewals,
                    timeout_ms: *timeout_ms,
                    lease_at: if same {
                        lease_at
                    } else {
                        now + self.config.lease
                    },
                    timeout_at: timeout_at
                        .or_else(|| started.then(|| self.timeout_at(*timeout_ms, now)).flatten()),
                    cancel_at: cancel_at.or_else(|| cancel.then(|| now + self.config.cancel_grace)),
                })
            }
            KeeperFact::Backoff {
                job,
                token,
                failures,
                backoff,
            } => Some(match known {
                Some(rest @ Watch::Rest { .. }) => rest,
                Some(Watch::Lease { .. }) | None => Watch::Rest {
                    token: *token,
                    at: now + backoff.pause(job, *token, *failures),
                },
            }),
            KeeperFact::RunAfter { .. }
            | KeeperFact::Settling { .. }
            | KeeperFact::Schedule { .. } => None,
        }
    }

    fn timeout_at(&self, timeout_ms: Option<u64>, now: Duration) -> Option<Duration> {
        timeout_ms.map(|millis| now + Duration::from_millis(millis) + self.config.timeout_grace)
    }

    /// Sets or removes what is counted for a job.
    fn watch(&mut self, job: JobId, watch: Option<Watch>) {
        if let Some(before) = self.watches.remove(&job) {
            self.order.remove(&(before.over_at(), job.clone()));
        }
        if let Some(watch) = watch {
            self.order.insert((watch.over_at(), job.clone()));
            self.watches.insert(job, watch);
        }
    }

    /// Changes what is counted for a lease, if it is the one of that token.
    fn adjust(&mut self, job: &JobId, of: Option<FencingToken>, change: impl FnOnce(&mut Watch)) {
        let Some(watch) = self.watches.get(job) else {
            return;
        };
        if of.is_some_and(|token| token != watch.token()) {
            return;
        }
        let mut watch = watch.clone();
        change(&mut watch);
        self.watch(job.clone(), Some(watch));
    }

    /// Ends the watch of an attempt, and takes another in its place.
    fn end(&mut self, job: &JobId, token: FencingToken, next: Option<Watch>) {
        let later = |watch: &Watch| watch.token() > token;
        if !self.watches.get(job).is_some_and(later) {
            self.watch(job.clone(), next);
        }
    }

    /// Counts a time that a job waits for.
    fn wait_until(&mut self, time: Option<UnixMillis>) {
        self.run_after = match (self.run_after, time) {
            (Some(known), Some(new)) => Some(known.min(new)),
            (known, new) => known.or(new),
        };
    }

    /// Hears what became of a command that this node applied as the leader, whoever asked for it.
    pub fn applied(&mut self, command: &Command, outcome: &Outcome, now: Duration) {
        if !self.leading {
            return;
        }
        for (command, outcome) in command.outcomes(outcome) {
            match outcome {
                Ok(effect) => self.took_effect(&command.change, effect, now),
                Err(refusal) => self.refused(&command.change, refusal),
            }
        }
    }

    fn took_effect(&mut self, change: &Change, effect: &Effect, now: Duration) {
        match (change, effect) {
            (Change::Submit { spec, tick, .. }, Effect::Submitted { waits_for, .. }) => {
                if *waits_for == Some(WaitsFor::RunAfter) {
                    self.wait_until(spec.run_after_ms);
                }
                if let Some(tick) = tick {
                    self.schedules.moved(tick);
                }
            }
            (Change::SkipTick { tick }, Effect::TickSkipped) => self.schedules.moved(tick),
            (Change::Claim { .. }, Effect::Claimed { claims }) => {
                for claim in claims {
                    let watch = Watch::Lease {
                        token: claim.token,
                        renewals: 0,
                        timeout_ms: claim.spec.timeout_ms,
                        lease_at: now + self.config.lease,
                        timeout_at: None,
                        cancel_at: None,
                    };
                    let known = self.watches.get(&claim.job).map(Watch::token);
                    if known.is_none_or(|known| known < claim.token) {
                        self.watch(claim.job.clone(), Some(watch));
                    }
                }
            }
            (Change::Start { job, token }, Effect::Started) => {
                let (config, at) = (self.config, now);
                self.adjust(job, Some(*token), |watch| {
                    if let Watch::Lease {
                        timeout_ms: Some(millis),
                        timeout_at,
                        ..
                    } = watch
                    {
                        *timeout_at =
                            Some(at + Duration::from_millis(*millis) + config.timeout_grace);
                    }
                });
            }
            (
                Change::Renew { job, token },
                Effect::Renewed {
                    renewals, cancel, ..
                },
            ) => {
                let config = self.config;
                self.adjust(job, Some(*token), |watch| {
                    if let Watch::Lease {
                        renewals: known,
                        lease_at,
                        cancel_at,
                        ..
                    } = watch
                    {
                        *lease_at = now + config.lease;
                        *known = (*known).max(*renewals);
                        if *cancel {
                            cancel_at.get_or_insert(now + config.cancel_grace);
                        }
                    }
                });
            }
            (
                Change::Finish { job, token, .. } | Change::Expire { job, token, .. },
                Effect::Ended {
                    pause_ms,
                    dependents,
                    ..
                },
            ) => {
                let rest = pause_ms.map(|millis| Watch::Rest {
                    token: *token,
                    at: now + Duration::from_millis(millis),
                });
                self.end(job, *token, rest);
                self.settling |= dependents;
            }
            (Change::Cancel { job, .. }, Effect::Cancelled { state, dependents }) => {
                let config = self.config;
                if *state == JobState::Cancelled {
                    self.watch(job.clone(), None);
                } else {
                    self.adjust(job, None, |watch| {
                        if let Watch::Lease { cancel_at, .. } = watch {
                            cancel_at.get_or_insert(now + config.cancel_grace);
                        }
                    });
                }
                self.settling |= dependents;
            }
            (Change::Ready { job, token }, Effect::Ready) => self.end(job, *token, None),
            (
                Change::Park {
                    job,
                    token,
                    until_ms,
                    ..
                },
                Effect::Parked {
                    waits_for,
                    dependents,
                    ..
                },
            ) => {
                self.end(job, *token, None);
                if matches!(waits_for, Some(WaitsFor::RunAfter | WaitsFor::Message)) {
                    self.wait_until(*until_ms);
                }
                self.settling |= dependents;
            }
            (Change::Pause { job, .. }, Effect::Paused { state }) => {
                let rests = matches!(self.watches.get(job), Some(Watch::Rest { .. }));
                if *state == JobState::Pending && rests {
                    self.watch(job.clone(), None);
                }
            }
            (Change::Resume { .. }, Effect::Resumed { next_ms, .. }) => self.wait_until(*next_ms),
            (Change::Due { .. }, Effect::Due { next_ms, .. }) => {
                self.run_after = *next_ms;
                self.due_at = now;
            }
            (Change::Settle { .. }, Effect::Settled { more, next_ms, .. }) => {
                self.settling = *more;
                self.run_after = *next_ms;
                self.settle_at = now;
            }
            (Change::Prune { steps, .. }, Effect::Pruned { count }) if count >= steps => {
                self.prune_at = now;
            }
            (
                Change::SetSchedule {
                    name,
                    cron,
                    missed,
                    spec,
                    next_ms,
                },
                Effect::ScheduleSet { revision },
            ) => self.schedules.set(crate::query::StoredSchedule {
                name: name.clone(),
                revision: *revision,
                cron: cron.clone(),
                missed: *missed,
                spec: (**spec).clone(),
                next_ms: *next_ms,
            }),
            (Change::RemoveSchedule { name }, Effect::ScheduleRemoved) => {
                self.schedules.remove(name);
            }
            // Retried jobs wait for workers; logs and the rest change nothing that is counted.
            _ => {}
        }
    }

    /// A refusal of the leader's own proposal tells that it has missed something.
    fn refused(&mut self, change: &Change, refusal: &Refusal) {
        match change {
            Change::Expire { job, token, .. } | Change::Ready { job, token } => {
                if *refusal != Refusal::RenewedSince {
                    self.end(job, *token, None);
                }
                self.in_doubt = true;
            }
            Change::Submit { tick: Some(_), .. } | Change::SkipTick { .. } => self.in_doubt = true,
            _ => {}
        }
    }

    /// What to propose now. What got no outcome is proposed again after [`KeeperConfig::repeat`]; each under a new request id.
    pub fn poll(
        &mut self,
        now: Duration,
        wall: UnixMillis,
        new_id: &mut dyn FnMut(&JobSpec) -> JobId,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        if !self.leading {
            return changes;
        }
        let again = now + self.config.repeat;
        while let Some((at, job)) = self.order.first().cloned() {
            if at > now {
                break;
            }
            let Some(watch) = self.watches.get(&job) else {
                self.order.remove(&(at, job));
                continue;
            };
            let mut watch = watch.clone();
            changes.push(proposal(&mut watch, &job, now, again));
            self.watch(job, Some(watch));
        }
        if self.run_after.is_some_and(|time| time <= wall) && self.due_at <= now {
            self.due_at = again;
            changes.push(Change::Due {
                now_ms: wall,
                steps: STEPS_MAX,
            });
        }
        if self.settling && self.settle_at <= now {
            self.settle_at = again;
            changes.push(Change::Settle { steps: STEPS_MAX });
        }
        if let Some(retention) = self.config.retention
            && self.prune_at <= now
        {
            self.prune_at = now + retention.every;
            let ago = |age: Duration| {
                let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
                UnixMillis(wall.0.saturating_sub(age))
            };
            changes.push(Change::Prune {
                keep: retention.keep,
                before_ms: retention.age.map(ago),
                chunks_before_ms: Some(ago(UPLOAD_AGE)),
                steps: STEPS_MAX,
            });
        }
        self.schedules
            .fire(self.config.node, now, again, wall, new_id, &mut changes);
        changes
    }

    /// How long there is nothing to propose, unless something is applied before; nothing if only that can bring work.
    pub fn wake(&self, now: Duration, wall: UnixMillis) -> Option<Duration> {
        if !self.leading {
            return None;
        }
        let until = |at: Duration| at.saturating_sub(now);
        let of_wall = |time: UnixMillis, not_before: Duration| {
            let millis = u64::try_from(time.0.saturating_sub(wall.0)).unwrap_or(0);
            Duration::from_millis(millis)
                .min(WALL_CHECK)
                .max(until(not_before))
        };
        let first = self.order.first().map(|(at, _)| until(*at));
        let due = self.run_after.map(|time| of_wall(time, self.due_at));
        let settle = self.settling.then(|| until(self.settle_at));
        let prune = self.config.retention.map(|_| until(self.prune_at));
        let tick = self
            .schedules
            .next()
            .map(|(time, not_before)| of_wall(time, not_before));
        [first, due, settle, prune, tick]
            .into_iter()
            .flatten()
            .min()
    }
}

/// What to propose about a watch that is over; it is over again at `again`.
fn proposal(watch: &mut Watch, job: &JobId, now: Duration, again: Duration) -> Change {
    match watch {
        Watch::Lease {
            token,
            renewals,
            lease_at,
            timeout_at,
            cancel_at,
            ..
        } => {
            let over = |at: &Option<Duration>| at.is_some_and(|at| at <= now);
            let cause = if *lease_at <= now {
                *lease_at = again;
                Expiry::Lease {
                    renewals: *renewals,
                }
            } else if over(cancel_at) {
                *cancel_at = Some(again);
                Expiry::Cancel
            } else {
                *timeout_at = Some(again);
                Expiry::Timeout
            };
            Change::Expire {
                job: job.clone(),
                token: *token,
                cause,
            }
        }
        Watch::Rest { token, at } => {
            *at = again;
            Change::Ready {
                job: job.clone(),
                token: *token,
            }
        }
    }
}
