//! Machines kept ready for labs: a pool of `mvm-machine` whose machines can be plugged into this crate's switch.
//!
//! Who uses it says so in its [`EnvironmentOptions`](crate::environment::EnvironmentOptions); one pool may serve many
//! runs of one process. When a machine comes from it is `node`'s to decide.

use std::{io, sync::Arc, time::Duration};

use mvm_fabric::Connection;
use mvm_machine::{
    cache::{Cache, CacheError},
    pool::{Cable, Pool, PoolError, PoolOptions},
};

use crate::host_memory::HostMemory;

/// Machines that wait take at most this part of the memory that was available when the pool was made.
const MEMORY_PART: u64 = 4;
/// Scenarios of one kind follow one another within this.
const UNUSED_MAX: Duration = Duration::from_secs(300);
/// As long as a machine has to boot where a topology does not say otherwise.
const BOOT_ALLOWED: Duration = Duration::from_secs(120);

/// Machines cannot be kept ready.
#[derive(Debug, thiserror::Error)]
pub enum WarmError {
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The host's memory could not be read.
    #[error("could not read the host's memory: {0}")]
    Memory(#[source] io::Error),
    /// The pool has no place.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// Makes a pool that keeps so many machines ready of each kind that labs ask for; must be called within a runtime.
pub fn pool(machines_per_kind: usize) -> Result<Arc<Pool>, WarmError> {
    let cache = Cache::for_user()?;
    let memory = HostMemory::read().map_err(WarmError::Memory)?;
    let options = PoolOptions {
        machines_per_kind,
        memory_mib_max: (memory.available_bytes >> 20) / MEMORY_PART,
        unused_max: UNUSED_MAX,
        boot_allowed: BOOT_ALLOWED,
        cable,
    };
    Ok(Arc::new(Pool::new(&cache, options)?))
}

fn cable() -> io::Result<Cable> {
    let Connection {
        switch_end,
        machine_end,
    } = Connection::new()?;
    Ok(Cable {
        switch_end,
        machine_end,
    })
}
