//! The workflows that this node holds, and their leases: renewed together, a few times in each.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use mvm_flow::id::ExecutionId;
use mvm_queue::{FencingToken, JobId};

/// A lease of this node's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Lease {
    pub(super) job: JobId,
    pub(super) token: FencingToken,
    /// Which run of this node's has it.
    pub(super) run: u64,
    /// How often it was renewed, for the names of requests.
    pub(super) renewals: u64,
    /// Whether the cluster knows that the work has begun.
    started: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: Mutex<HashMap<ExecutionId, Lease>>,
    runs: AtomicU64,
}

impl Leases {
    /// Holds one, and returns the number of its run.
    pub(super) fn hold(&self, id: ExecutionId, job: JobId, token: FencingToken) -> u64 {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let lease = Lease {
            job,
            token,
            run,
            renewals: 0,
            started: false,
        };
        self.lock().insert(id, lease);
        run
    }

    /// Whether that run has this one.
    pub(super) fn holds(&self, id: ExecutionId, run: u64) -> bool {
        self.lock().get(&id).is_some_and(|lease| lease.run == run)
    }

    /// Whether this one is held at all.
    pub(super) fn is_here(&self, id: ExecutionId) -> bool {
        self.lock().contains_key(&id)
    }

    /// Whether the work has begun, as far as the cluster knows.
    pub(super) fn is_started(&self, id: ExecutionId) -> bool {
        self.lock().get(&id).is_some_and(|lease| lease.started)
    }

    /// The cluster knows that the work has begun.
    pub(super) fn started(&self, id: ExecutionId) {
        if let Some(lease) = self.lock().get_mut(&id) {
            lease.started = true;
        }
    }

    /// Forgets one, if that run has it.
    pub(super) fn drop(&self, id: ExecutionId, run: u64) {
        let mut leases = self.lock();
        if leases.get(&id).is_some_and(|lease| lease.run == run) {
            leases.remove(&id);
        }
    }

    /// All that are held, counted as renewed once more.
    pub(super) fn renewing(&self) -> Vec<(ExecutionId, Lease)> {
        let mut leases = self.lock();
        leases
            .iter_mut()
            .map(|(id, lease)| {
                lease.renewals += 1;
                (*id, lease.clone())
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ExecutionId, Lease>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
