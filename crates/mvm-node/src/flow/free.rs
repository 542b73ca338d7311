//! Room for workflows on this node: as long as there is some, what is started here is this node's at once.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use mvm_flow::{id::ExecutionId, journal};

use crate::worker::Control;

/// Free slots, and what was claimed for them that the engine does not have yet.
#[derive(Debug, Default)]
pub(super) struct Free {
    slots: AtomicUsize,
    queued: AtomicBool,
    given: Mutex<Given>,
}

/// What the engine is to run.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// What was claimed.
    pub(super) claimed: Vec<mvm_queue::Claim>,
    /// What will be claimed with the first thing that it writes.
    pub(super) early: Vec<journal::Claim>,
}

impl Free {
    /// The engine has so many, besides those of what it will be given.
    pub(super) fn offer(&self, slots: usize) {
        let given = self.given();
        let given = given.claimed.len() + given.early.len();
        self.slots
            .store(slots.saturating_sub(given), Ordering::Relaxed);
    }

    /// Takes all.
    pub(super) fn take(&self) -> usize {
        self.slots.swap(0, Ordering::Relaxed)
    }

    /// Takes one, if there is one and the node takes work.
    pub(super) fn reserve(&self, control: &Control) -> bool {
        !control.is_draining()
            && self
                .slots
                .try_update(Ordering::Relaxed, Ordering::Relaxed, |slots| {
                    slots.checked_sub(1)
                })
                .is_ok()
    }

    /// Gives back one that was reserved.
    pub(super) fn give_back(&self) {
        self.slots.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps claims for the engine.
    pub(super) fn hand_over(&self, claims: Vec<mvm_queue::Claim>) {
        self.given().claimed.extend(claims);
    }

    /// Keeps one for the engine that is yet to be claimed, in a slot that was reserved.
    pub(super) fn give_early(&self, claim: journal::Claim) {
        self.given().early.push(claim);
    }

    /// Takes such a one back, but not its slot, and says whether the engine did not have it yet.
    pub(super) fn withdraw(&self, id: ExecutionId) -> bool {
        let mut given = self.given();
        let before = given.early.len();
        given.early.retain(|claim| claim.id != id);
        given.early.len() < before
    }

    /// Says whether others wait in the queue, as far as was seen last: what is started is not claimed before them.
    pub(super) fn set_queued(&self, queued: bool) {
        self.queued.store(queued, Ordering::Relaxed);
    }

    /// Whether others wait in the queue.
    pub(super) fn is_queued(&self) -> bool {
        self.queued.load(Ordering::Relaxed)
    }

    /// Gives the engine what was kept for it.
    pub(super) fn handed_over(&self) -> Given {
        std::mem::take(&mut *self.given())
    }

    fn given(&self) -> std::sync::MutexGuard<'_, Given> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
