//! The core and a database, to which the same is applied.

use super::database::Database;
use crate::{
    command::{Change, Command},
    effect::Effect,
    id::{JobId, RequestId, UnixMillis},
    job::JobSpec,
    limits::SLOTS_MAX,
    query::{Answer, Query},
    queue::{Outcome, Queue},
};

/// Applies to both, which must agree.
pub(super) struct Both {
    pub(super) queue: Queue,
    pub(super) database: Database,
    requests: u32,
}

impl Both {
    pub(super) fn new() -> Self {
        Self {
            queue: Queue::new(),
            database: Database::new(),
            requests: 0,
        }
    }

    pub(super) fn apply(&mut self, change: Change) -> Outcome {
        self.requests += 1;
        let command = Command {
            request: RequestId(format!("r{}", self.requests)),
            at: UnixMillis(1),
            change,
        };
        let outcome = self.queue.apply(&command);
        let found = self.database.apply(&[command]);
        assert_eq!(found.first(), Some(&outcome));
        outcome
    }

    pub(super) fn submit(&mut self, id: &str, spec: JobSpec) -> Outcome {
        self.apply(submit(id, spec))
    }

    pub(super) fn ask(&self, query: &Query) -> Answer {
        let answer = self.queue.answer(query);
        assert_eq!(self.database.answer(query), answer);
        answer
    }

    /// How many jobs a worker gets.
    pub(super) fn claim(&mut self) -> usize {
        let change = Change::Claim {
            node: 1,
            worker: "w".into(),
            slots: SLOTS_MAX,
            labels: (0..1).map(|label| format!("l{label}")).collect(),
            kinds: [].into(),
        };
        match self.apply(change) {
            Ok(Effect::Claimed { claims }) => claims.len(),
            other => panic!("{other:?}"),
        }
    }
}

fn submit(id: &str, spec: JobSpec) -> Change {
    Change::Submit {
        job: JobId(id.into()),
        submitted_on: 1,
        spec: Box::new(spec),
        tick: None,
    }
}
