//! Who waits for the response of a workflow at this engine, so that a guest can be told that nobody does any more.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::id::ExecutionId;

/// Executions whose starter went away before there was a response.
#[derive(Clone, Debug, Default)]
pub struct Callers(Arc<Mutex<HashSet<ExecutionId>>>);

/// Somebody waits. Dropped unanswered, it says that they went away.
#[derive(Debug)]
pub struct Waiting {
    callers: Callers,
    id: ExecutionId,
    answered: bool,
}

impl Callers {
    /// Somebody waits for the response of this one.
    pub fn wait(&self, id: ExecutionId) -> Waiting {
        Waiting {
            callers: self.clone(),
            id,
            answered: false,
        }
    }

    /// Whether the starter of this one went away.
    pub fn is_gone(&self, id: ExecutionId) -> bool {
        self.lock().contains(&id)
    }

    /// Forgets an execution that has ended.
    pub fn forget(&self, id: ExecutionId) {
        self.lock().remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<ExecutionId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// The response is on its way to them.
    pub fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.answered {
            self.callers.lock().insert(self.id);
        }
    }
}
