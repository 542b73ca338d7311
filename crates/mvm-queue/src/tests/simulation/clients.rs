//! The cluster in one thread under the workload and the checker that processes on loopback and virtual machines have too
//! (`mvm-check`). Here clients see nothing but answers; what happened inside is not looked at.

mod planted;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mvm_check::{
    Action, Ask, At, AttemptSeen, Ended, Ends, Fault, FinalState, JobSeen, Next, NodeId,
    OperationId, Phase, Plan, Process, Recorder, Rules, Token, Told, Violation, judge,
};

use super::{Bug, HEALED_STEPS, LEASE, NODES, STEP_MS, TROUBLE_STEPS, World, keeper_config};
use crate::{
    command::{Change, Command, Report},
    effect::Effect,
    id::{FencingToken, JobId, RequestId},
    job::{Job, JobSpec, JobState},
    keeper::Keeper,
    query::{Answer, Filter, Order, PAGE_MAX, Query},
    queue::Outcome,
};

/// A lie told to clients, to show that the checker notices.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lie {
    /// A submission is acknowledged and dropped.
    AcknowledgesAndDrops,
    /// What is answered 503 is applied all the same.
    AppliesWhatItRefuses,
    /// A node that is cut off acknowledges, and the log has it later.
    AcknowledgesAlone,
    /// A node knows nothing of the keys of others.
    ForgetsKeys,
    /// A list lacks what was submitted last.
    ReadsStale,
    /// One node's list lacks a job in the end.
    ForgetsAJob,
    /// All lists have a job that nobody submitted.
    InventsAJob,
    /// A refused completion is told as accepted.
    AcceptsCompletions,
    /// The leader ends leases too soon.
    EndsLeasesEarly,
    /// A node answers 500.
    Fails,
}

/// A question on its way.
struct Flight {
    process: usize,
    operation: OperationId,
    ask: Ask,
    applied_at: u64,
    answered_at: u64,
    told: Option<Told>,
}

struct Cluster {
    world: World,
    plan: Plan,
    processes: Vec<Process>,
    recorder: Recorder,
    flights: Vec<Flight>,
    /// The node that is cut off, and until when.
    cut: Option<(usize, u64)>,
    lie: Option<Lie>,
    done: BTreeSet<usize>,
    /// Tells the moments within a step apart.
    moment: u64,
}

impl Cluster {
    fn new(seed: u64, bug: Option<Bug>, lie: Option<Lie>) -> Cluster {
        let plan = Plan {
            seed,
            nodes: NODES as u64,
            submitters: 3,
            jobs_each: 4,
            until_calm: false,
            shared_jobs: 4,
            workers: 4,
            pace: Duration::from_millis(2_500),
            lease: LEASE,
            misbehave: true,
            reads_one_in: 4,
        };
        let mut world = World::new(seed, bug);
        world.watched = false;
        if lie == Some(Lie::EndsLeasesEarly) {
            for (number, node) in world.nodes.iter_mut().enumerate() {
                node.keeper = Keeper::new(keeper_config(number, LEASE / 3));
            }
        }
        Cluster {
            processes: plan.processes(),
            recorder: Recorder::new(seed),
            world,
            plan,
            flights: Vec::new(),
            cut: None,
            lie,
            done: BTreeSet::new(),
            moment: 0,
        }
    }

    /// A moment of its own within the step.
    fn now(&mut self) -> At {
        self.moment += 1;
        At(self.world.now * 1_000 + self.moment)
    }

    fn fault(&mut self, fault: Fault) {
        let now = self.now();
        self.recorder.fault(|| now, fault);
    }

    fn run(mut self) -> Result<Vec<Violation>, String> {
        for _ in 0..TROUBLE_STEPS {
            self.step()?;
        }
        self.world.trouble = false;
        for node in &mut self.world.nodes {
            node.wall_off = 0;
        }
        for _ in 0..HEALED_STEPS {
            if self.settled() {
                break;
            }
            self.step()?;
        }
        self.finals();
        let rules = Rules {
            lease: Some(LEASE),
            ends: Ends::Completed,
        };
        Ok(judge(&self.recorder.history(), rules))
    }

    fn settled(&self) -> bool {
        let mut jobs = self.world.queue.jobs.values();
        self.done.len() == self.plan.submitters as usize
            && self.flights.is_empty()
            && self.world.delayed.is_empty()
            && jobs.all(|entry| entry.job.state.is_finished())
    }

    fn step(&mut self) -> Result<(), String> {
        self.world.now += STEP_MS;
        self.moment = 0;
        self.world.misfortune();
        self.cut_or_heal();
        self.world.late_arrivals()?;
        self.world.lead()?;
        self.fly()?;
        let phase = match self.world.trouble {
            true => Phase::Trouble,
            false => Phase::Calm,
        };
        for process in 0..self.processes.len() {
            if self.flights.iter().all(|flight| flight.process != process) {
                self.ask(process, phase);
            }
        }
        Ok(())
    }

    /// Cuts a node off from the others for a while; it does not lead, nor is it elected.
    fn cut_or_heal(&mut self) {
        match self.cut {
            None if self.world.trouble(25) => {
                let node = self.world.below(NODES as u32) as usize;
                let until = self.world.now + 4_000 + u64::from(self.world.below(8_000));
                self.world.crash(node);
                self.world.nodes[node].up_at = until;
                self.cut = Some((node, until));
                let node = NodeId(node as u64 + 1);
                self.fault(Fault::CutOff { node });
            }
            Some((node, until)) if until <= self.world.now => {
                let node = NodeId(node as u64 + 1);
                self.fault(Fault::Healing { node });
                self.cut = None;
            }
            // Another misfortune may have it back too soon.
            Some((node, until)) => {
                let up_at = &mut self.world.nodes[node].up_at;
                *up_at = until.max(*up_at);
            }
            None => {}
        }
    }

    fn ask(&mut self, process: usize, phase: Phase) {
        let now = self.now();
        let ask = match self.processes[process].next(now, phase) {
            Next::Ask(ask) => ask,
            Next::Wait(_) => return,
            Next::Done => {
                self.done.insert(process);
                return;
            }
        };
        let name = self.processes[process].name();
        let operation = self.recorder.invoke(|| now, name, &ask);
        let applied_at = self.world.now + u64::from(self.world.below(1_000));
        self.flights.push(Flight {
            process,
            operation,
            ask,
            applied_at,
            answered_at: applied_at + u64::from(self.world.below(1_000)),
            told: None,
        });
    }

    /// Lets questions arrive and answers come back.
    fn fly(&mut self) -> Result<(), String> {
        for mut flight in std::mem::take(&mut self.flights) {
            if flight.told.is_none() && flight.applied_at <= self.world.now {
                flight.told = Some(self.answer(&flight.ask)?);
            }
            match flight.told {
                Some(told) if flight.answered_at <= self.world.now => {
                    let now = self.now();
                    self.processes[flight.process].told(now, &told);
                    self.recorder.told(|| now, flight.operation, told);
                }
                told => self.flights.push(Flight { told, ..flight }),
            }
        }
        Ok(())
    }

    fn lies(&mut self, lie: Lie) -> bool {
        self.lie == Some(lie) && self.world.one_in(4)
    }

    /// What a node answers.
    fn answer(&mut self, ask: &Ask) -> Result<Told, String> {
        let node = (ask.node.0 - 1) as usize;
        let is_cut = self.cut.is_some_and(|(cut, _)| cut == node);
        if self.lies(Lie::Fails) {
            let detail = "500".to_owned();
            return Ok(Told::Broken { detail });
        }
        if is_cut && self.lies(Lie::AcknowledgesAlone) && ask.action.is_write() {
            return self.apply(ask, node);
        }
        let refused = is_cut || (self.world.is_up(node) && self.world.leader.is_none());
        if refused {
            if ask.action.is_write() && self.lies(Lie::AppliesWhatItRefuses) {
                self.apply(ask, node)?;
            }
            let detail = "no quorum".to_owned();
            return Ok(Told::Refused { detail });
        }
        if !self.world.is_up(node) {
            let detail = "nobody answers".to_owned();
            return Ok(Told::Unknown { detail });
        }
        match &ask.action {
            Action::List { .. } => {
                let mut jobs = self.jobs();
                if self.lies(Lie::ReadsStale) {
                    jobs.pop();
                }
                Ok(Told::Listed { jobs })
            }
            Action::Attempts { job } => Ok(Told::Tried {
                attempts: self.attempts(&JobId(job.0.clone())),
            }),
            Action::Submit { .. } if self.lies(Lie::AcknowledgesAndDrops) => Ok(Told::Submitted {
                job: mvm_check::JobId("dropped".to_owned()),
            }),
            _ => {
                let command = self.command(ask, node);
                let outcome = self.world.propose(&command)?;
                Ok(self.told(ask, outcome))
            }
        }
    }

    /// Applies what a lying node should have left to the leader.
    fn apply(&mut self, ask: &Ask, node: usize) -> Result<Told, String> {
        let command = self.command(ask, node);
        let outcome = self.world.commit(&command)?;
        Ok(self.told(ask, Some(outcome)))
    }

    fn command(&mut self, ask: &Ask, node: usize) -> Command {
        let token = |token: &Token| FencingToken(token.0);
        let id = |job: &mvm_check::JobId| JobId(job.0.clone());
        let change = match &ask.action {
            Action::Submit { key, spec } => {
                let mut spec: JobSpec = serde_json::from_value(spec.clone()).unwrap();
                spec.idempotency_key = Some(key.clone());
                self.world.requests += 1;
                Change::Submit {
                    job: JobId(format!("j{}", self.world.requests)),
                    submitted_on: node as u64,
                    spec: Box::new(spec),
                    tick: None,
                }
            }
            Action::Claim {
                worker,
                slots,
                kinds,
            } => Change::Claim {
                node: node as u64,
                worker: worker.clone(),
                slots: *slots,
                labels: BTreeSet::new(),
                kinds: kinds.iter().cloned().collect(),
            },
            Action::Start { job, token: of } => Change::Start {
                job: id(job),
                token: token(of),
            },
            Action::Renew { job, token: of } => Change::Renew {
                job: id(job),
                token: token(of),
            },
            Action::Finish {
                job,
                token: of,
                ended,
            } => Change::Finish {
                job: id(job),
                token: token(of),
                report: match ended {
                    Ended::Succeeded => Report::Succeeded {
                        result: serde_json::Value::Null,
                    },
                    Ended::Failed => Report::Failed {
                        error: "as planned".to_owned(),
                        permanent: false,
                    },
                    Ended::Lost => Report::Lost,
                },
            },
            Action::Cancel { job } => Change::Cancel {
                job: id(job),
                reason: None,
            },
            Action::List { .. } | Action::Attempts { .. } => unreachable!("reads are no commands"),
        };
        let mut command = self.world.command(node, change);
        command.request = RequestId(ask.request.clone());
        if self.lie == Some(Lie::ForgetsKeys)
            && node == 1
            && let Change::Submit { spec, .. } = &mut command.change
            && let Some(key) = &mut spec.idempotency_key
        {
            // The list still tells the key without what is added here.
            key.push_str(FORGOTTEN);
            command.request.0.push_str(FORGOTTEN);
        }
        command
    }

    fn told(&mut self, ask: &Ask, outcome: Option<Outcome>) -> Told {
        let effect = match outcome {
            None => {
                let detail = "no answer".to_owned();
                return Told::Unknown { detail };
            }
            Some(Ok(effect)) => effect,
            Some(Err(refusal)) => {
                let completes = matches!(
                    &ask.action,
                    Action::Finish {
                        ended: Ended::Succeeded,
                        ..
                    }
                );
                if completes && self.lies(Lie::AcceptsCompletions) {
                    let state = JobState::Completed.to_string();
                    return Told::Moved { state };
                }
                return Told::Rejected {
                    status: 409,
                    detail: refusal.to_string(),
                };
            }
        };
        let moved = |state: JobState| Told::Moved {
            state: state.to_string(),
        };
        match effect {
            Effect::Submitted { job, .. } => Told::Submitted {
                job: mvm_check::JobId(job.0),
            },
            Effect::Claimed { claims } => Told::Claimed {
                claims: claims
                    .into_iter()
                    .map(|claim| mvm_check::Claim {
                        job: mvm_check::JobId(claim.job.0),
                        token: Token(claim.token.0),
                    })
                    .collect(),
            },
            Effect::Renewed { .. } => Told::Renewed,
            Effect::Started => moved(JobState::InProgress),
            Effect::Ended { state, .. } | Effect::Cancelled { state, .. } => moved(state),
            other => panic!("{:?} had the effect {other:?}", ask.action),
        }
    }

    fn jobs(&self) -> Vec<JobSeen> {
        let query = Query::List {
            after: None,
            limit: PAGE_MAX,
            order: Order::OldestFirst,
            filter: Filter::default(),
        };
        let Answer::Jobs { jobs, .. } = self.world.queue.answer(&query) else {
            panic!("the queue answered another question");
        };
        let seen = |job: &Job| {
            let key = job.spec.idempotency_key.clone().unwrap_or_default();
            JobSeen {
                id: mvm_check::JobId(job.id.0.clone()),
                key: key.trim_end_matches(FORGOTTEN).to_owned(),
                state: job.state.to_string(),
                token: Token(job.token.0),
                claimed_by: job.claimed_by.clone(),
            }
        };
        jobs.iter().map(seen).collect()
    }

    fn attempts(&self, job: &JobId) -> Vec<AttemptSeen> {
        let query = Query::Attempts { job: job.clone() };
        let Answer::Attempts { attempts } = self.world.queue.answer(&query) else {
            panic!("the queue answered another question");
        };
        let seen = attempts.into_iter().map(|attempt| AttemptSeen {
            token: Token(attempt.token.0),
            worker: attempt.worker,
            outcome: attempt.outcome.map(|outcome| outcome.as_str().to_owned()),
        });
        seen.collect()
    }

    fn finals(&mut self) {
        for node in 1..=NODES as u64 {
            let mut jobs = self.jobs();
            if self.lie == Some(Lie::ForgetsAJob) && node == 3 {
                jobs.pop();
            }
            if self.lie == Some(Lie::InventsAJob)
                && let Some(last) = jobs.last().cloned()
            {
                let key = "nobody's".to_owned();
                let id = mvm_check::JobId(key.clone());
                jobs.push(JobSeen { id, key, ..last });
            }
            let attempts: BTreeMap<_, _> = jobs
                .iter()
                .filter(|job| job.token.0 > 0)
                .map(|job| (job.id.clone(), self.attempts(&JobId(job.id.0.clone()))))
                .collect();
            let state = FinalState { jobs, attempts };
            self.recorder.finally(NodeId(node), state);
        }
    }
}

/// What a forgetful node adds to keys.
const FORGOTTEN: &str = "+";
