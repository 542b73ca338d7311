//! A client that submits jobs, each again and again under its key until it knows what became of it.

use std::{collections::VecDeque, time::Duration};

use super::{Ask, Chance, Next, Phase, Plan};
use crate::action::{Action, At, Class, Consistency, JobId, NodeId, Told};

/// Of so many refused submissions one is given up, so that refusals with nothing after them are in the history.
const GIVES_UP_ONE_IN: u32 = 3;
/// Of so many acknowledged jobs one is cancelled.
const CANCELS_ONE_IN: u32 = 12;

#[derive(Debug)]
pub(super) struct Submitter {
    pub(super) name: String,
    home: NodeId,
    nodes: u64,
    pace: Duration,
    misbehave: bool,
    until_calm: bool,
    /// The first key was submitted and its job is not known yet.
    trying: bool,
    reads_one_in: u32,
    chance: Chance,
    keys: VecDeque<String>,
    /// Questions so far, for request ids.
    asked: u64,
    node: NodeId,
    waits_until: At,
    then: Then,
    phase: Phase,
}

#[derive(Debug)]
enum Then {
    /// Submit the first key, perhaps again.
    Submit,
    Cancel(JobId),
    Read,
}

impl Submitter {
    pub(super) fn new(plan: &Plan, number: u64) -> Submitter {
        let own = (0..plan.jobs_each).map(|job| format!("own-{number}-{job}"));
        let shared = (0..plan.shared_jobs).filter(|job| {
            let one = job % plan.submitters;
            number == one || number == (one + 1) % plan.submitters
        });
        let shared = shared.map(|job| format!("shared-{job}"));
        let mut chance = Chance::new(plan.seed, number);
        let mut keys: VecDeque<String> = own.collect();
        // Shared ones come first, so that both submitters are likely to be at it at once.
        for key in shared.collect::<Vec<_>>().into_iter().rev() {
            keys.push_front(key);
        }
        let home = plan.home(number);
        Submitter {
            name: format!("submitter {number}"),
            home,
            nodes: plan.nodes,
            pace: plan.pace,
            misbehave: plan.misbehave,
            until_calm: plan.until_calm,
            trying: false,
            reads_one_in: plan.reads_one_in,
            waits_until: At::from(chance.about(plan.pace)),
            chance,
            keys,
            asked: 0,
            node: home,
            then: Then::Submit,
            phase: Phase::Trouble,
        }
    }

    pub(super) fn next(&mut self, now: At, phase: Phase) -> Next {
        self.phase = phase;
        if phase == Phase::Calm && self.until_calm && !self.trying {
            self.keys.clear();
        }
        if now < self.waits_until {
            return Next::Wait(self.waits_until);
        }
        self.asked += 1;
        let number = self.asked;
        let of_its_own = |what: &str| format!("{}-{what}-{number}", self.name.replace(' ', "-"));
        let (request, action) = match &self.then {
            Then::Cancel(job) => (of_its_own("cancel"), Action::Cancel { job: job.clone() }),
            Then::Read => (
                of_its_own("read"),
                Action::List {
                    consistency: Consistency::Linearizable,
                },
            ),
            Then::Submit => match self.keys.front() {
                None => return Next::Done,
                Some(key) => {
                    self.trying = true;
                    let spec = Plan::spec(key);
                    (
                        key.clone(),
                        Action::Submit {
                            key: key.clone(),
                            spec,
                        },
                    )
                }
            },
        };
        Next::Ask(Ask {
            node: self.node,
            request,
            action,
        })
    }

    pub(super) fn told(&mut self, now: At, told: &Told) {
        self.waits_until = now.after(self.chance.about(self.pace));
        let fickle = self.misbehave && self.phase == Phase::Trouble;
        if !matches!(self.then, Then::Submit) {
            self.then = Then::Submit;
            self.node = self.home;
            return;
        }
        match told.class() {
            Class::Acknowledged => {
                self.next_key();
                if let Told::Submitted { job } = told
                    && fickle
                    && self.chance.one_in(CANCELS_ONE_IN)
                {
                    self.then = Then::Cancel(job.clone());
                } else if self.reads_one_in > 0 && self.chance.one_in(self.reads_one_in) {
                    self.then = Then::Read;
                    self.node = self.chance.other(self.home, self.nodes);
                }
            }
            Class::Refused if fickle && self.chance.one_in(GIVES_UP_ONE_IN) => self.next_key(),
            Class::Refused | Class::Unknown => {
                self.node = self.chance.other(self.node, self.nodes);
            }
            // The checker tells of it.
            Class::Rejected => self.next_key(),
        }
    }

    fn next_key(&mut self) {
        self.keys.pop_front();
        self.trying = false;
        self.node = self.home;
    }
}
