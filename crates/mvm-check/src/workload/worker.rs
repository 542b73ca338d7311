//! A worker that claims one job after the other, and in trouble dies, oversleeps its lease, lies about its token, or fails.

use std::time::Duration;

use super::{Ask, Chance, KIND, Next, Phase, Plan};
use crate::action::{Action, At, Claim, Class, Ended, NodeId, Token, Told};

/// Of so many claims one is forgotten: the worker died before it had the answer, or after.
const DIES_ONE_IN: u32 = 10;
/// Of so many pauses one is longer than the lease.
const OVERSLEEPS_ONE_IN: u32 = 8;
/// Of so many jobs one is tried to be finished under a wrong token first.
const LIES_ONE_IN: u32 = 6;
/// Of so many jobs one fails, and one is given back.
const FAILS_ONE_IN: u32 = 6;
/// How often a claim without an answer is repeated.
const CLAIM_REPEATS: u32 = 3;
/// Renewals of one job at most.
const RENEWALS_MAX: u64 = 3;

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) name: String,
    home: NodeId,
    nodes: u64,
    pace: Duration,
    lease: Duration,
    misbehave: bool,
    chance: Chance,
    asked: u64,
    waits_until: At,
    then: Then,
    phase: Phase,
}

#[derive(Debug)]
enum Then {
    /// Claim under a new name.
    Claim,
    /// Ask the same again, perhaps elsewhere.
    Repeat {
        ask: Ask,
        holds: Option<Held>,
        left: u32,
    },
    /// Go on with a job.
    Step(Held, Step),
}

#[derive(Clone, Debug)]
struct Held {
    claim: Claim,
    renewals_left: u64,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Start,
    Renew,
    Lie,
    Finish,
}

impl Worker {
    pub(super) fn new(plan: &Plan, number: u64) -> Worker {
        let mut chance = Chance::new(plan.seed, plan.submitters + number);
        Worker {
            name: format!("worker {number}"),
            home: plan.home(number),
            nodes: plan.nodes,
            pace: plan.pace,
            lease: plan.lease,
            misbehave: plan.misbehave,
            waits_until: At::from(chance.about(plan.pace)),
            chance,
            asked: 0,
            then: Then::Claim,
            phase: Phase::Trouble,
        }
    }

    pub(super) fn next(&mut self, now: At, phase: Phase) -> Next {
        self.phase = phase;
        if now < self.waits_until {
            return Next::Wait(self.waits_until);
        }
        let ask = match std::mem::replace(&mut self.then, Then::Claim) {
            Then::Claim => self.claim(),
            Then::Repeat { ask, holds, left } => {
                self.then = Then::Repeat {
                    ask: ask.clone(),
                    holds,
                    left,
                };
                return Next::Ask(ask);
            }
            Then::Step(held, step) => self.step(held, step),
        };
        Next::Ask(ask)
    }

    fn fickle(&self) -> bool {
        self.misbehave && self.phase == Phase::Trouble
    }

    fn request(&mut self, what: &str) -> String {
        self.asked += 1;
        format!("{}-{what}-{}", self.name.replace(' ', "-"), self.asked)
    }

    fn some_node(&mut self) -> NodeId {
        match self.chance.one_in(4) {
            true => self.chance.other(self.home, self.nodes),
            false => self.home,
        }
    }

    fn claim(&mut self) -> Ask {
        let request = self.request("claim");
        let ask = Ask {
            node: self.some_node(),
            request: request.clone(),
            action: Action::Claim {
                worker: request,
                slots: 1,
                kinds: vec![KIND.to_owned()],
            },
        };
        self.then = Then::Repeat {
            ask: ask.clone(),
            holds: None,
            left: CLAIM_REPEATS,
        };
        ask
    }

    fn step(&mut self, held: Held, step: Step) -> Ask {
        let Claim { job, token } = held.claim.clone();
        let (request, action) = match step {
            Step::Start => (self.request("start"), Action::Start { job, token }),
            Step::Renew => (self.request("renew"), Action::Renew { job, token }),
            Step::Lie => {
                let wrong = match self.chance.one_in(2) {
                    true => Token(token.0 + 1),
                    false => Token(token.0 - 1),
                };
                let action = Action::Finish {
                    job,
                    token: wrong,
                    ended: Ended::Succeeded,
                };
                (self.request("lie"), action)
            }
            Step::Finish => {
                let ended = match self.fickle() {
                    true if self.chance.one_in(FAILS_ONE_IN) => Ended::Failed,
                    true if self.chance.one_in(FAILS_ONE_IN) => Ended::Lost,
                    _ => Ended::Succeeded,
                };
                (self.request("finish"), Action::Finish { job, token, ended })
            }
        };
        let ask = Ask {
            node: self.some_node(),
            request,
            action,
        };
        self.then = match step {
            // Whatever comes of a lie, the truth follows.
            Step::Lie => Then::Step(held, Step::Finish),
            Step::Start | Step::Renew | Step::Finish => Then::Repeat {
                ask: ask.clone(),
                holds: Some(held),
                left: u32::MAX,
            },
        };
        ask
    }

    pub(super) fn told(&mut self, now: At, told: &Told) {
        let then = std::mem::replace(&mut self.then, Then::Claim);
        let Then::Repeat {
            mut ask,
            holds,
            left,
        } = then
        else {
            // A lie: the truth comes next.
            self.then = then;
            return;
        };
        self.waits_until = now.after(self.chance.about(self.pace));
        let again = match told.class() {
            Class::Unknown => left > 0,
            // Nothing was applied, so a claim may as well be a new one.
            Class::Refused => holds.is_some(),
            Class::Acknowledged | Class::Rejected => false,
        };
        if again {
            ask.node = self.chance.other(ask.node, self.nodes);
            let left = left.saturating_sub(1);
            self.then = Then::Repeat { ask, holds, left };
            return;
        }
        match (holds, told) {
            (None, Told::Claimed { claims }) => self.begin(now, claims),
            (Some(held), Told::Moved { .. } | Told::Renewed) => self.go_on(now, held, &ask.action),
            // The job is another's by now, or the worker has given up.
            (_, _) => {}
        }
    }

    fn begin(&mut self, now: At, claims: &[Claim]) {
        let Some(claim) = claims.first() else {
            return;
        };
        if self.fickle() && self.chance.one_in(DIES_ONE_IN) {
            return;
        }
        let held = Held {
            claim: claim.clone(),
            renewals_left: self.chance.below(RENEWALS_MAX + 1),
        };
        self.waits_until = now.after(self.pause());
        self.then = Then::Step(held, Step::Start);
    }

    fn go_on(&mut self, now: At, mut held: Held, did: &Action) {
        if matches!(did, Action::Finish { .. }) {
            return;
        }
        if self.fickle() && self.chance.one_in(DIES_ONE_IN) {
            return;
        }
        self.waits_until = now.after(self.pause());
        let step = if held.renewals_left > 0 {
            held.renewals_left -= 1;
            Step::Renew
        } else if self.fickle() && self.chance.one_in(LIES_ONE_IN) {
            Step::Lie
        } else {
            Step::Finish
        };
        self.then = Then::Step(held, step);
    }

    /// Up to a third of the lease; in trouble now and then more than all of it.
    fn pause(&mut self) -> Duration {
        if self.fickle() && self.chance.one_in(OVERSLEEPS_ONE_IN) {
            return self.lease + self.lease / 3;
        }
        self.chance.about(self.lease / 5)
    }
}
