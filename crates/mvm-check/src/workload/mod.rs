//! The workload: clients as pure state machines, each drawn from one seed. They are asked what they do next and told what came
//! of it; who carries it out, and on what clock, is the caller's.

mod submitter;
mod worker;

use std::time::Duration;

use rand_pcg::{
    Pcg64Mcg,
    rand_core::{Rng, SeedableRng},
};
use serde_json::{Value, json};

use self::{submitter::Submitter, worker::Worker};
use crate::action::{Action, At, NodeId, Told};

/// What clients there are and what they do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything that is drawn is drawn from this.
    pub seed: u64,
    /// Nodes are numbered from 1 to this.
    pub nodes: u64,
    /// Submitters, the first at home on node 1, the second on node 2, and so on.
    pub submitters: u64,
    /// Jobs that each submitter has for itself.
    pub jobs_each: u64,
    /// Submitters begin no more jobs when there is calm.
    pub until_calm: bool,
    /// Jobs under a key that two submitters, at home on different nodes, both submit.
    pub shared_jobs: u64,
    /// Workers, at home like submitters.
    pub workers: u64,
    /// How long a submitter or an idle worker waits between two questions.
    pub pace: Duration,
    /// The cluster's lease. Workers renew at a third of it, and oversleep by a third of it.
    pub lease: Duration,
    /// Whether clients misbehave while there is trouble: give up, die, oversleep, lie about tokens, cancel.
    pub misbehave: bool,
    /// A submitter reads the whole list after so many jobs on average; 0 for never.
    pub reads_one_in: u32,
}

/// The kind of the workload's jobs, which no node works on by itself.
const KIND: &str = "work";
/// So many attempts and losses that no job ends for that.
const TRIES_MAX: u32 = 50;

impl Plan {
    /// Returns the clients.
    pub fn processes(&self) -> Vec<Process> {
        let submitters = (0..self.submitters)
            .map(|number| Process(Kind::Submitter(Submitter::new(self, number))));
        let workers =
            (0..self.workers).map(|number| Process(Kind::Worker(Worker::new(self, number))));
        submitters.chain(workers).collect()
    }

    fn home(&self, number: u64) -> NodeId {
        NodeId(number % self.nodes + 1)
    }

    /// What a job of a key is. The same key is always the same job, whoever submits it.
    fn spec(key: &str) -> Value {
        json!({
            "kind": KIND,
            "payload": { "of": key },
            "attempts_max": TRIES_MAX,
            "losses_max": TRIES_MAX,
            "backoff": { "base_ms": 50, "max_ms": 200 },
        })
    }
}

/// What a client does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// It asks, and is to be told.
    Ask(Ask),
    /// It does nothing before this moment.
    Wait(At),
    /// It has nothing left to do.
    Done,
}

/// A question.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Whom.
    pub node: NodeId,
    /// The request's id; the idempotency key of a submission.
    pub request: String,
    /// What.
    pub action: Action,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The nemesis is at work.
    Trouble,
    /// It is not any more, and clients behave.
    Calm,
}

/// A client.
#[derive(Debug)]
pub struct Process(Kind);

#[derive(Debug)]
enum Kind {
    Submitter(Submitter),
    Worker(Worker),
}

impl Process {
    /// Returns its name.
    pub fn name(&self) -> &str {
        match &self.0 {
            Kind::Submitter(submitter) => &submitter.name,
            Kind::Worker(worker) => &worker.name,
        }
    }

    /// Returns what it does at this moment. A worker is never done.
    pub fn next(&mut self, now: At, phase: Phase) -> Next {
        match &mut self.0 {
            Kind::Submitter(submitter) => submitter.next(now, phase),
            Kind::Worker(worker) => worker.next(now, phase),
        }
    }

    /// Tells it what came of its question.
    pub fn told(&mut self, now: At, told: &Told) {
        match &mut self.0 {
            Kind::Submitter(submitter) => submitter.told(now, told),
            Kind::Worker(worker) => worker.told(now, told),
        }
    }
}

/// What a client draws.
#[derive(Debug)]
struct Chance {
    random: Pcg64Mcg,
}

impl Chance {
    /// Of one process of a plan; processes of a seed draw independently.
    fn new(seed: u64, process: u64) -> Chance {
        // The second constant is the golden ratio's, to spread small numbers.
        let mixed = seed ^ process.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Chance {
            random: Pcg64Mcg::seed_from_u64(mixed),
        }
    }

    fn one_in(&mut self, times: u32) -> bool {
        self.random.next_u32().is_multiple_of(times)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound.max(1)
    }

    /// Between a half and one and a half of a duration.
    fn about(&mut self, duration: Duration) -> Duration {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 2);
        Duration::from_micros(us / 2 + self.below(us))
    }

    /// Another node than this one.
    fn other(&mut self, node: NodeId, nodes: u64) -> NodeId {
        let on = 1 + self.below(nodes.saturating_sub(1));
        NodeId((node.0 - 1 + on) % nodes + 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::action::JobId;

    const PLAN: Plan = Plan {
        seed: 7,
        nodes: 3,
        submitters: 4,
        jobs_each: 2,
        until_calm: false,
        shared_jobs: 4,
        workers: 1,
        pace: Duration::from_millis(10),
        lease: Duration::from_secs(1),
        misbehave: true,
        reads_one_in: 0,
    };

    /// What each submitter of a plan asks if all goes well.
    fn submissions(plan: &Plan) -> Vec<Ask> {
        let mut asked = Vec::new();
        for mut process in plan.processes() {
            let mut now = At(0);
            for _ in 0..100 {
                match process.next(now, Phase::Calm) {
                    Next::Ask(ask) => {
                        let job = JobId(ask.request.clone());
                        process.told(now, &Told::Submitted { job });
                        asked.push(ask);
                    }
                    Next::Wait(until) => now = until,
                    Next::Done => break,
                }
            }
        }
        asked.retain(|ask| matches!(ask.action, Action::Submit { .. }));
        asked
    }

    #[test]
    fn a_seed_is_a_workload() {
        assert_eq!(submissions(&PLAN), submissions(&PLAN));
    }

    #[test]
    fn shared_keys_are_one_job_submitted_at_two_nodes() {
        let mut nodes: BTreeMap<String, Vec<NodeId>> = BTreeMap::new();
        for ask in submissions(&PLAN) {
            nodes.entry(ask.request).or_default().push(ask.node);
        }
        assert_eq!(nodes.len(), 4 * 2 + 4);
        for (key, nodes) in nodes {
            match key.starts_with("shared") {
                // The last submitter and the first are both at home on node 1.
                true if key == "shared-3" => assert_eq!(nodes, [NodeId(1), NodeId(1)]),
                true => assert!(nodes.len() == 2 && nodes[0] != nodes[1], "{key}: {nodes:?}"),
                false => assert_eq!(nodes.len(), 1, "{key}"),
            }
        }
    }
}
