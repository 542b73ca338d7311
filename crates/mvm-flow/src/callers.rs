//! Who waits at this engine for the response of a workflow: they are told of it when it is durable, without a look into the
//! store; and a guest can be told that its starter does not wait any more.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::id::ExecutionId;

/// All who wait, and whose starter does not any more.
#[derive(Clone, Debug, Default)]
pub struct Callers(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Executions whose starter went away before there was a response.
    gone: HashSet<ExecutionId>,
    waiting: HashMap<ExecutionId, watch::Sender<Option<Arc<str>>>>,
}

/// The starter waits. Dropped unanswered, it says that they went away.
#[derive(Debug)]
pub struct Waiting {
    callers: Callers,
    id: ExecutionId,
    answered: bool,
}

/// Somebody waits for a response.
#[derive(Debug)]
pub(crate) struct Response {
    callers: Callers,
    id: ExecutionId,
    told: watch::Receiver<Option<Arc<str>>>,
}

impl Callers {
    /// The starter of this one waits for its response.
    pub fn wait(&self, id: ExecutionId) -> Waiting {
        Waiting {
            callers: self.clone(),
            id,
            answered: false,
        }
    }

    /// Whether the starter of this one went away.
    pub fn is_gone(&self, id: ExecutionId) -> bool {
        self.lock().gone.contains(&id)
    }

    /// Forgets an execution that has ended.
    pub fn forget(&self, id: ExecutionId) {
        self.lock().gone.remove(&id);
    }

    /// Waits for a response that is yet to come.
    pub(crate) fn response(&self, id: ExecutionId) -> Response {
        let mut known = self.lock();
        let sender = known.waiting.entry(id).or_default();
        Response {
            callers: self.clone(),
            id,
            told: sender.subscribe(),
        }
    }

    /// Tells those who wait of a response.
    pub(crate) fn respond(&self, id: ExecutionId, text: String) {
        if let Some(sender) = self.lock().waiting.get(&id) {
            sender.send_replace(Some(text.into()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
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
            self.callers.lock().gone.insert(self.id);
        }
    }
}

impl Response {
    /// Returns it once there is one. For ever, if another engine runs the execution.
    pub(crate) async fn come(&mut self) -> String {
        let told = self.told.wait_for(Option::is_some).await;
        let text = told
            .ok()
            .and_then(|text| text.as_deref().map(str::to_owned));
        match text {
            Some(text) => text,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        let mut known = self.callers.lock();
        // This one is still counted.
        let is_last = known
            .waiting
            .get(&self.id)
            .is_some_and(|sender| sender.receiver_count() <= 1);
        if is_last {
            known.waiting.remove(&self.id);
        }
    }
}
