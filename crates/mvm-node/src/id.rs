//! Makes ids that two nodes can never make alike.
//!
//! An id is a ULID: 48 bits of milliseconds, then - in place of the usual 80 random bits - 16 bits
//! of node id and 64 bits that are random and count upwards within a millisecond. Ids sort by time,
//! and those of one node are strictly increasing.

use std::{
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::rand::{GetRandomFlags, getrandom};

use mvm_flow::id::ExecutionId;
use mvm_queue::{FLOW_KIND, JobId, JobSpec, UnixMillis};

/// Makes the ids of one node.
#[derive(Debug)]
pub(crate) struct IdMaker {
    node: u16,
    last: Mutex<u128>,
}

impl IdMaker {
    /// Starts making ids for a node; the caller sees to it that no two nodes share a number.
    pub(crate) fn new(node: u16) -> Self {
        Self {
            node,
            last: Mutex::new(0),
        }
    }

    /// Makes the id of a new job.
    pub(crate) fn job(&self, now: UnixMillis) -> JobId {
        JobId(self.next(now, random()))
    }

    /// Makes the id of a new job of that kind. That of a workflow can be told to it as its name.
    pub(crate) fn job_of(&self, spec: &JobSpec, now: UnixMillis) -> JobId {
        match &*spec.kind {
            FLOW_KIND => JobId(ExecutionId::random().to_string()),
            _ => self.job(now),
        }
    }

    /// Makes the id of a request that came without one.
    pub(crate) fn request(&self, now: UnixMillis) -> String {
        self.next(now, random())
    }

    fn next(&self, now: UnixMillis, random: u64) -> String {
        let millis = u64::try_from(now.0).unwrap_or(0);
        // Half of the random range is left free, so that counting up never reaches the node's bits.
        let tail = (u128::from(self.node) << 64) | u128::from(random >> 1);
        let fresh = ulid::Ulid::from_parts(millis, tail).0;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = fresh.max(*last + 1);
        ulid::Ulid(*last).to_string()
    }
}

/// When the id of a job was made, by the clock of the node that made it; nothing if it is none of ours.
pub(crate) fn made_at(job: &JobId) -> Option<UnixMillis> {
    let id = ulid::Ulid::from_string(&job.0).ok()?;
    Some(UnixMillis(i64::try_from(id.timestamp_ms()).ok()?))
}

/// Reads the wall clock. The one place in this crate that does.
pub(crate) fn now() -> UnixMillis {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// A number to start counting from, so that a later life of this node does not repeat an earlier one.
pub(crate) fn random_mark() -> i64 {
    random().cast_signed()
}

/// A secret for a node that shares it with nobody.
pub(crate) fn random_secret() -> String {
    format!("{:016x}{:016x}", random(), random())
}

/// A name for a cluster that is being founded.
pub(crate) fn random_cluster() -> String {
    format!("{:016x}", random())
}

/// Sixty-four bits from the kernel's pool.
///
/// Asked anew each time: a machine that was restored from a snapshot must not repeat its siblings.
fn random() -> u64 {
    let mut bytes = [0; 8];
    match getrandom(&mut bytes, GetRandomFlags::empty()) {
        Ok(8) => u64::from_ne_bytes(bytes),
        // Only kernels before 3.17 lack the call. Node and clock still keep ids apart.
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_node_increase_even_when_the_clock_goes_back() {
        let maker = IdMaker::new(1);
        let ids: Vec<String> = [(50, u64::MAX), (50, 0), (50, u64::MAX), (49, 7), (51, 0)]
            .map(|(millis, random)| maker.next(UnixMillis(millis), random))
            .into();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    }

    #[test]
    fn two_nodes_never_make_the_same_id() {
        // Same clock, same random bits, and the longest run of one millisecond: the worst case.
        let (one, two) = (IdMaker::new(1), IdMaker::new(2));
        let of_one: Vec<String> = (0..1000)
            .map(|_| one.next(UnixMillis(5), u64::MAX))
            .collect();
        for _ in 0..1000 {
            let id = two.next(UnixMillis(5), u64::MAX);
            assert!(!of_one.contains(&id));
        }
    }

    #[test]
    fn ids_tell_when_they_were_made() {
        let id = IdMaker::new(7).next(UnixMillis(1_763_916_000_123), u64::MAX);
        assert_eq!(made_at(&JobId(id)), Some(UnixMillis(1_763_916_000_123)));
        assert_eq!(made_at(&JobId("none".into())), None);
    }

    #[test]
    fn ids_sort_by_time_across_nodes() {
        let early = IdMaker::new(u16::MAX).next(UnixMillis(1_000), u64::MAX);
        let late = IdMaker::new(0).next(UnixMillis(1_001), 0);
        assert!(early < late);
    }
}
