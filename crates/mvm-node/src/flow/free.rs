//! Room for workflows on this node: what is started here is claimed with its submission, as long as there is some.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use crate::worker::Control;

/// Free slots, and what was claimed for them that the engine does not have yet.
#[derive(Debug, Default)]
pub(super) struct Free {
    slots: AtomicUsize,
    claimed: Mutex<Vec<mvm_queue::Claim>>,
}

impl Free {
    /// The engine has so many, besides those of claims that it will be given.
    pub(super) fn offer(&self, slots: usize) {
        let given = self.claimed().len();
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

    /// Keeps claims for the engine.
    pub(super) fn hand_over(&self, claims: Vec<mvm_queue::Claim>) {
        self.claimed().extend(claims);
    }

    /// Gives the engine the claims that were kept for it.
    pub(super) fn handed_over(&self) -> Vec<mvm_queue::Claim> {
        std::mem::take(&mut *self.claimed())
    }

    fn claimed(&self) -> std::sync::MutexGuard<'_, Vec<mvm_queue::Claim>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
