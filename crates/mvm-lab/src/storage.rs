//! What the lab keeps in the cache, and the bound on it.

use mvm_machine::{
    cache::{BYTES_MAX_DEFAULT, Cache, Entry, Freed, Shelf},
    data_disk::DATA_DISKS,
    debian,
    image::IMAGES,
    kernel::GIVEN_KERNELS,
    snapshot::SNAPSHOTS,
};

use crate::checkpoint::CHECKPOINTS;

/// What can be made again without a network.
const SHELVES: [Shelf; 5] = [IMAGES, GIVEN_KERNELS, DATA_DISKS, SNAPSHOTS, CHECKPOINTS];
/// Overrides the bound, in GiB.
const BOUND_VARIABLE: &str = "MVM_CI_CACHE_GIB";

/// Lists what the cache holds, what was used longest ago first.
pub fn entries(cache: &Cache) -> Vec<Entry> {
    let shelves: Vec<Shelf> = SHELVES.into_iter().chain([debian::ROOTS]).collect();
    cache.entries(&shelves)
}

/// Removes what was used longest ago until the rest takes at most `bytes_max`; what is in use stays.
pub fn shrink(cache: &Cache, bytes_max: u64) -> Freed {
    cache.shrink(&SHELVES, bytes_max)
}

/// Returns the most that the cache may hold: `MVM_CI_CACHE_GIB`, or 8 GiB.
pub fn bytes_max() -> u64 {
    let told = std::env::var(BOUND_VARIABLE).ok();
    match told.as_deref().map(str::parse::<u32>) {
        Some(Ok(gib)) => u64::from(gib) << 30,
        Some(Err(error)) => {
            tracing::warn!(%error, "{BOUND_VARIABLE} is no number of GiB and is ignored");
            BYTES_MAX_DEFAULT
        }
        None => BYTES_MAX_DEFAULT,
    }
}

/// Keeps the cache within its bound, after something large was put into it.
pub(crate) fn keep_bound(cache: &Cache) {
    let freed = shrink(cache, bytes_max());
    if freed.entries > 0 {
        tracing::info!(
            entries = freed.entries,
            bytes = freed.bytes,
            "removed what was used longest ago from the cache"
        );
    }
}
