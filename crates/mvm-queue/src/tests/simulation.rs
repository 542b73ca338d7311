//! A cluster in one thread: nodes with workers, a log that is applied in order, a leader that changes, answers that get
//! lost, workers that die or sleep over their lease, and wall clocks that jump by an hour. One seed, one run.

mod clients;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use rand_pcg::{
    Pcg64Mcg,
    rand_core::{Rng, SeedableRng},
};

use super::{Bug, invariants::Invariants};
use crate::{
    backoff::Backoff,
    command::{Change, Command, Report},
    cron::Missed,
    effect::Effect,
    id::{FencingToken, JobId, RequestId, UnixMillis},
    job::{Concurrency, DependencyFailure, FLOW_KIND, JobSpec},
    keeper::{Keeper, KeeperConfig, Retention},
    query::{Answer, Query},
    queue::{Outcome, Queue},
    refusal::Refusal,
};

const NODES: usize = 3;
const SLOTS: usize = 2;
const JOBS: usize = 10;
const STEP_MS: u64 = 500;
const TROUBLE_STEPS: u64 = 120;
/// Long enough for every pause, timeout, lease and repeated attempt, and for a clock that is an hour behind.
const HEALED_STEPS: u64 = 600;
const HOUR_MS: i64 = 3_600_000;
const LEASE: Duration = Duration::from_secs(6);
/// 2026-11-24 00:00 UTC.
const WALL: i64 = 1_795_478_400_000;

struct Running {
    job: JobId,
    token: FencingToken,
    started: bool,
    ends_at: u64,
    stop: bool,
    /// Of a workflow: how many frames its journal has, as far as its worker knows.
    frames: Option<u64>,
    pause: bool,
}

struct Node {
    keeper: Keeper,
    wall_off: i64,
    up_at: u64,
    running: Vec<Running>,
    /// A claim whose answer did not come; it is repeated under its request id.
    claim: Option<Command>,
}

struct World {
    random: Pcg64Mcg,
    queue: Queue,
    invariants: Invariants,
    nodes: Vec<Node>,
    leader: Option<usize>,
    elected_at: u64,
    now: u64,
    /// Proposals which the log takes later, if a leader is gone or not.
    delayed: Vec<(u64, Command)>,
    waiting_submits: Vec<Command>,
    acknowledged: BTreeMap<RequestId, JobId>,
    requests: u64,
    trouble: bool,
    /// Whether each applied command is looked at.
    watched: bool,
}

fn keeper_config(node: usize, lease: Duration) -> KeeperConfig {
    KeeperConfig {
        node: node as u64,
        lease,
        timeout_grace: Duration::from_secs(2),
        cancel_grace: Duration::from_secs(3),
        repeat: Duration::from_secs(2),
        retention: Some(Retention {
            keep: 1_000,
            age: None,
            every: Duration::from_secs(30),
        }),
    }
}

impl World {
    fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut queue = Queue::new();
        queue.bug = bug;
        Self {
            random: Pcg64Mcg::seed_from_u64(seed),
            queue,
            invariants: Invariants::default(),
            nodes: (0..NODES)
                .map(|node| Node {
                    keeper: Keeper::new(keeper_config(node, LEASE)),
                    wall_off: 0,
                    up_at: 0,
                    running: Vec::new(),
                    claim: None,
                })
                .collect(),
            leader: None,
            elected_at: 1_000,
            now: 0,
            delayed: Vec::new(),
            waiting_submits: Vec::new(),
            acknowledged: BTreeMap::new(),
            requests: 0,
            trouble: true,
            watched: true,
        }
    }

    fn one_in(&mut self, times: u32) -> bool {
        self.random.next_u32().is_multiple_of(times)
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.random.next_u32() % bound
    }

    fn trouble(&mut self, one_in: u32) -> bool {
        self.trouble && self.one_in(one_in)
    }

    fn is_up(&self, node: usize) -> bool {
        self.nodes[node].up_at <= self.now
    }

    fn clock(&self) -> Duration {
        Duration::from_millis(self.now)
    }

    fn wall(&self, node: usize) -> UnixMillis {
        UnixMillis(WALL + self.now.cast_signed() + self.nodes[node].wall_off)
    }

    fn command(&mut self, node: usize, change: Change) -> Command {
        self.requests += 1;
        Command {
            request: RequestId(format!("r{}", self.requests)),
            at: self.wall(node),
            change,
        }
    }

    /// The log takes a command.
    fn commit(&mut self, command: &Command) -> Result<Outcome, String> {
        match self.watched {
            true => self.invariants.apply(&mut self.queue, command),
            false => Ok(self.queue.apply(command)),
        }
    }

    /// A node proposes to the leader. No outcome means that it does not know.
    fn propose(&mut self, command: &Command) -> Result<Option<Outcome>, String> {
        let Some(leader) = self.leader else {
            return Ok(None);
        };
        if self.trouble(20) {
            // Lost on the way there, or taken by the log much later.
            if self.one_in(2) {
                let at = self.now + u64::from(self.random.next_u32() % 20_000);
                self.delayed.push((at, command.clone()));
                self.nodes[leader].keeper.doubt();
            }
            return Ok(None);
        }
        let outcome = self.commit(command)?;
        let now = self.clock();
        if self.trouble(25) {
            // The leader does not know either.
            self.nodes[leader].keeper.doubt();
            return Ok(None);
        }
        self.nodes[leader].keeper.applied(command, &outcome, now);
        if self.trouble(20) {
            return Ok(None);
        }
        Ok(Some(outcome))
    }

    fn frames(&self, job: &JobId) -> Option<u64> {
        match self.queue.answer(&Query::Execution { job: job.clone() }) {
            Answer::Execution { execution } => execution.map(|execution| execution.frames),
            other => panic!("{other:?}"),
        }
    }

    fn facts(&self) -> Vec<crate::query::KeeperFact> {
        match self.queue.answer(&Query::Keeper) {
            Answer::Keeper { facts } => facts,
            other => panic!("{other:?}"),
        }
    }

    fn step(&mut self) -> Result<(), String> {
        self.now += STEP_MS;
        self.misfortune();
        self.late_arrivals()?;
        self.lead()?;
        for node in 0..NODES {
            if self.is_up(node) {
                self.work(node)?;
            }
        }
        self.clients()
    }

    fn misfortune(&mut self) {
        if self.trouble(25)
            && let Some(leader) = self.leader.take()
        {
            self.nodes[leader].keeper.deposed();
            self.elected_at = self.now + 1_000;
            if self.one_in(2) {
                self.crash(leader);
            }
        }
        if self.trouble(30) {
            let node = self.below(NODES as u32) as usize;
            self.crash(node);
        }
        if self.trouble(30) {
            // Sleeps beyond its lease and goes on as if nothing had happened.
            let node = self.below(NODES as u32) as usize;
            if self.leader != Some(node) {
                self.nodes[node].up_at = self.now + 9_000;
            }
        }
        if self.trouble(20) {
            let node = self.below(NODES as u32) as usize;
            self.nodes[node].wall_off = [-HOUR_MS, 0, HOUR_MS][self.below(3) as usize];
        }
    }

    fn crash(&mut self, node: usize) {
        let down = 2_000 + u64::from(self.below(20_000));
        self.nodes[node].running.clear();
        self.nodes[node].claim = None;
        self.nodes[node].up_at = self.now + down;
        if self.leader == Some(node) {
            self.leader = None;
            self.nodes[node].keeper.deposed();
            self.elected_at = self.now + 1_000;
        }
    }

    fn late_arrivals(&mut self) -> Result<(), String> {
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.delayed)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.delayed = later;
        let due: Vec<(u64, Command)> = due;
        for (_, command) in due {
            // Nobody hears of it, nor does whoever leads by now.
            let _ = self.commit(&command)?;
        }
        Ok(())
    }

    fn lead(&mut self) -> Result<(), String> {
        let now = self.clock();
        if self.leader.is_none() && self.now >= self.elected_at {
            let first = self.below(NODES as u32) as usize;
            let candidate = (0..NODES)
                .map(|turn| (first + turn) % NODES)
                .find(|node| self.is_up(*node));
            if let Some(node) = candidate {
                let facts = self.facts();
                self.nodes[node].keeper.elected(&facts, now);
                self.leader = Some(node);
            }
        }
        let Some(leader) = self.leader else {
            return Ok(());
        };
        if self.nodes[leader].keeper.wants_sync(now) {
            let facts = self.facts();
            self.nodes[leader].keeper.sync(&facts, now);
        }
        let wall = self.wall(leader);
        let asleep = self.nodes[leader].keeper.wake(now, wall);
        let mut made = self.requests;
        let changes = self.nodes[leader].keeper.poll(now, wall, &mut |_| {
            made += 1;
            JobId(format!("s{made}"))
        });
        self.requests = made;
        if !changes.is_empty() && asleep != Some(Duration::ZERO) {
            return Err(format!(
                "the keeper would have slept {asleep:?} over {changes:?}"
            ));
        }
        for change in changes {
            let command = self.command(leader, change);
            self.propose(&command)?;
        }
        Ok(())
    }

    fn work(&mut self, node: usize) -> Result<(), String> {
        let mut running = std::mem::take(&mut self.nodes[node].running);
        let mut kept = Vec::new();
        for mut task in running.drain(..) {
            if self.attend(node, &mut task)? {
                kept.push(task);
            }
        }
        self.nodes[node].running = kept;
        self.claim(node)
    }

    /// One look of a worker at its job; says whether it goes on with it.
    fn attend(&mut self, node: usize, task: &mut Running) -> Result<bool, String> {
        let (job, token) = (task.job.clone(), task.token);
        if !task.started {
            let command = self.command(node, Change::Start { job, token });
            return Ok(match self.propose(&command)? {
                Some(Ok(_) | Err(Refusal::IllegalTransition { .. })) => {
                    task.started = true;
                    true
                }
                Some(Err(_)) => false,
                None => true,
            });
        }
        if let Some(first) = task.frames
            && !task.stop
        {
            if task.pause || (self.now >= task.ends_at && self.one_in(3)) {
                let park = Change::Park {
                    job,
                    token,
                    until_ms: Some(UnixMillis(WALL + self.now.cast_signed() + 3_000)),
                    seen: self.one_in(2).then_some(0),
                    reason: None,
                };
                let command = self.command(node, park);
                return Ok(self.propose(&command)?.is_none());
            }
            if self.one_in(3) && !self.append(node, task, first)? {
                return Ok(false);
            }
        }
        if self.now >= task.ends_at || task.stop {
            let report = match self.below(8) {
                _ if task.stop => Report::Cancelled,
                0 | 1 => Report::Failed {
                    error: "no".into(),
                    permanent: self.one_in(4),
                },
                2 => Report::TimedOut,
                3 => Report::Lost,
                _ => Report::Succeeded {
                    result: serde_json::Value::Null,
                },
            };
            let command = self.command(node, Change::Finish { job, token, report });
            // Without an answer it tries again, and may then be told that the job has ended.
            return Ok(self.propose(&command)?.is_none());
        }
        if (self.now / STEP_MS).is_multiple_of(3) {
            let command = self.command(node, Change::Renew { job, token });
            match self.propose(&command)? {
                Some(Ok(Effect::Renewed { cancel, pause, .. })) => {
                    task.stop = cancel;
                    task.pause = pause;
                }
                Some(_) => return Ok(false),
                None => {}
            }
        }
        Ok(true)
    }

    /// Adds the token to a journal; says whether the worker goes on.
    fn append(&mut self, node: usize, task: &mut Running, first: u64) -> Result<bool, String> {
        let append = Change::Append {
            job: task.job.clone(),
            token: task.token,
            first,
            frames: vec![task.token.0.to_be_bytes().to_vec()],
            consumed: vec![],
            response: None,
        };
        let command = self.command(node, append);
        match self.propose(&command)? {
            // A gap: there is one whose answer did not come.
            Some(Ok(Effect::Appended { next }) | Err(Refusal::JournalGap { next })) => {
                task.frames = Some(next);
            }
            Some(_) => return Ok(false),
            None => {}
        }
        Ok(true)
    }

    fn claim(&mut self, node: usize) -> Result<(), String> {
        let free = SLOTS - self.nodes[node].running.len().min(SLOTS);
        let command = match self.nodes[node].claim.take() {
            Some(command) => command,
            None if free == 0 => return Ok(()),
            None => {
                let all = ["a", "b"].map(str::to_owned).into();
                self.command(
                    node,
                    Change::Claim {
                        node: node as u64,
                        worker: format!("n{node}"),
                        slots: u32::try_from(free).unwrap(),
                        // In trouble some workers offer less.
                        labels: if node == 0 && self.trouble {
                            ["a".to_owned()].into()
                        } else {
                            all
                        },
                        kinds: [].into(),
                    },
                )
            }
        };
        match self.propose(&command)? {
            Some(Ok(Effect::Claimed { claims })) => {
                for claim in claims {
                    let takes = u64::from(self.below(8_000));
                    let frames = self.frames(&claim.job);
                    self.nodes[node].running.push(Running {
                        job: claim.job,
                        token: claim.token,
                        started: false,
                        ends_at: self.now + takes,
                        stop: false,
                        frames,
                        pause: false,
                    });
                }
            }
            Some(other) => return Err(format!("a claim was answered {other:?}")),
            None => self.nodes[node].claim = Some(command),
        }
        Ok(())
    }

    fn clients(&mut self) -> Result<(), String> {
        if self.trouble
            && self.acknowledged.len() + self.waiting_submits.len() < JOBS
            && self.one_in(3)
        {
            let change = self.submission();
            let node = self.below(NODES as u32) as usize;
            let command = self.command(node, change);
            if self.one_in(3) {
                // The same key at another node at once: another request, another id.
                let mut twin = command.clone();
                twin.request.0.push_str("-twin");
                if let Change::Submit { job, spec, .. } = &mut twin.change {
                    job.0.push_str("-twin");
                    if spec.idempotency_key.is_some() {
                        self.waiting_submits.push(twin);
                    }
                }
            }
            self.waiting_submits.push(command);
        }
        if self.trouble(20)
            && let Some(job) = self.some_job()
        {
            let change = match self.below(4) {
                0 => Change::Cancel { job, reason: None },
                1 => Change::Retry {
                    job,
                    keep_frames: None,
                },
                2 => Change::Pause { job, reason: None },
                _ => Change::Resume { job },
            };
            let command = self.command(0, change);
            self.propose(&command)?;
        }
        if !self.trouble {
            let jobs = self.queue.jobs.values().map(|entry| &entry.job);
            let paused = jobs.filter(|job| job.paused.is_some());
            for job in paused.map(|job| job.id.clone()).collect::<Vec<_>>() {
                let command = self.command(0, Change::Resume { job });
                self.propose(&command)?;
            }
        }
        for command in std::mem::take(&mut self.waiting_submits) {
            match self.propose(&command)? {
                Some(Ok(Effect::Submitted { job, .. })) => {
                    self.acknowledged.insert(command.request, job);
                }
                Some(other) => return Err(format!("a submission was answered {other:?}")),
                None => self.waiting_submits.push(command),
            }
        }
        Ok(())
    }

    fn some_job(&mut self) -> Option<JobId> {
        let place = self.below(64) as usize;
        let count = self.acknowledged.len();
        self.acknowledged
            .values()
            .nth(place % count.max(1))
            .cloned()
    }

    fn submission(&mut self) -> Change {
        let bits = self.random.next_u32();
        let kind = if bits >> 19 & 1 == 1 { FLOW_KIND } else { "k" };
        let mut spec = JobSpec::new(kind, serde_json::json!(self.requests));
        if bits & 1 == 1 {
            spec.labels
                .insert(["a", "b"][(bits >> 1 & 1) as usize].to_owned());
        }
        spec.priority = (bits >> 2 & 3).cast_signed();
        spec.attempts_max = 1 + (bits >> 4 & 3);
        spec.losses_max = 2 + (bits >> 6 & 3);
        spec.backoff = Backoff {
            base_ms: 500,
            max_ms: 4_000,
        };
        spec.timeout_ms = (bits >> 8 & 1 == 1).then_some(5_000);
        if bits >> 9 & 3 == 0 {
            spec.concurrency = Some(Concurrency {
                key: "deploy".into(),
                limit: 1,
            });
        }
        if bits >> 11 & 3 == 0
            && let Some(job) = self.some_job()
        {
            spec.dependencies = vec![job];
            if bits >> 13 & 1 == 1 {
                spec.on_dependency_failure = DependencyFailure::Run;
            }
        }
        if bits >> 14 & 3 == 0 {
            spec.run_after_ms = Some(UnixMillis(WALL + self.now.cast_signed() + 5_000));
        }
        if bits >> 16 & 1 == 1 {
            spec.idempotency_key = Some(format!("key{}", self.requests));
        }
        Change::Submit {
            job: JobId(format!("j{}", self.requests)),
            submitted_on: u64::from(bits >> 17 & 3) % NODES as u64,
            spec: Box::new(spec),
            tick: None,
        }
    }

    fn run(&mut self) -> Result<(), String> {
        let mut job = JobSpec::new("cron", serde_json::Value::Null);
        job.losses_max = 100;
        let schedule = self.command(
            0,
            Change::SetSchedule {
                name: "every 20 s".into(),
                cron: "*/20 * * * * *".into(),
                missed: Missed::Once,
                spec: Box::new(job),
                next_ms: UnixMillis(WALL + 20_000),
            },
        );
        self.commit(&schedule)?
            .map_err(|refusal| refusal.to_string())?;
        for _ in 0..TROUBLE_STEPS {
            self.step()?;
        }
        self.trouble = false;
        for node in &mut self.nodes {
            node.wall_off = 0;
        }
        let remove = self.command(
            0,
            Change::RemoveSchedule {
                name: "every 20 s".into(),
            },
        );
        self.commit(&remove)?
            .map_err(|refusal| refusal.to_string())?;
        for _ in 0..HEALED_STEPS {
            if self.settled() {
                break;
            }
            self.step()?;
        }
        self.verdict()
    }

    fn settled(&self) -> bool {
        self.waiting_submits.is_empty()
            && self.delayed.is_empty()
            && self
                .queue
                .jobs
                .values()
                .all(|entry| entry.job.state.is_finished())
    }

    fn verdict(&self) -> Result<(), String> {
        for (request, job) in &self.acknowledged {
            if self.queue.job(job).is_none() {
                return Err(format!("{job}, acknowledged to {request:?}, is gone"));
            }
        }
        for entry in self.queue.jobs.values() {
            let frames = &entry.workflow.frames;
            if !frames.is_sorted() {
                return Err(format!(
                    "the journal of {} went back: {frames:?}",
                    entry.job.id
                ));
            }
        }
        let mut stuck: HashMap<String, usize> = HashMap::new();
        for entry in self
            .queue
            .jobs
            .values()
            .filter(|entry| !entry.job.state.is_finished())
        {
            *stuck
                .entry(format!("{} {:?}", entry.job.state, entry.job.waits_for))
                .or_default() += 1;
        }
        if stuck.is_empty() && self.waiting_submits.is_empty() {
            Ok(())
        } else {
            Err(format!(
                "after {} s something is stuck: {stuck:?}",
                self.now / 1000
            ))
        }
    }
}

pub(super) fn run(seed: u64, bug: Option<Bug>) -> Result<(), String> {
    World::new(seed, bug).run()
}

#[test]
fn nothing_is_lost_doubled_or_stuck() {
    let threads = 2;
    let found: Vec<String> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..threads)
            .map(|part| {
                scope.spawn(move || {
                    (0..4_000_u64)
                        .filter(|seed| seed % threads == part)
                        .filter_map(|seed| Some(format!("seed {seed}: {}", run(seed, None).err()?)))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        runs.into_iter()
            .flat_map(|run| run.join().unwrap())
            .collect()
    });
    assert!(
        found.is_empty(),
        "{} runs: {:#?}",
        found.len(),
        &found[..found.len().min(5)]
    );
}

#[track_caller]
fn check(bug: Bug, expected: &str) {
    let found = (0..500).find_map(|seed| run(seed, Some(bug)).err());
    let found = found.unwrap_or_else(|| panic!("{bug:?} went unnoticed"));
    assert!(
        found.contains(expected),
        "{bug:?} was noticed otherwise: {found}"
    );
}

#[test]
fn each_planted_bug_is_found() {
    check(Bug::RepeatsTokens, "did not grow");
    check(Bug::GrantsTwice, "two leases");
    check(Bug::IgnoresTokens, "stale token");
    check(Bug::AppendsStale, "stale token");
    check(Bug::IgnoresKeys, "of key");
    check(Bug::IgnoresDependencies, "which it waits for");
    check(Bug::LosesLostJobs, "stuck");
    check(Bug::ForgetsRequests, "");
}
