//! Tells those who wait how far this replica has applied the log, on a follower as on the leader.
//!
//! hiqlite has no channel for that: its metrics are looked at, by one task for all who wait, and not while nobody does.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

/// How often it is looked while somebody waits. A look copies a few numbers.
const LOOK: Duration = Duration::from_millis(20);

/// How far the log is applied, for any number of waiters.
pub(super) struct AppliedIndex {
    index: watch::Sender<u64>,
    wanted: Arc<Notify>,
    /// Drops, and so ends, the task with this.
    _task: JoinSet<()>,
}

impl AppliedIndex {
    /// `look` returns the index of the last entry applied; it never goes back.
    pub(super) fn new<F>(look: impl Fn() -> F + Send + 'static) -> Self
    where
        F: Future<Output = u64> + Send + 'static,
    {
        let (index, wanted) = (watch::Sender::default(), Arc::<Notify>::default());
        let mut task = JoinSet::new();
        task.spawn(publish(index.clone(), Arc::clone(&wanted), look));
        Self {
            index,
            wanted,
            _task: task,
        }
    }

    /// Waits until the log is applied beyond an index, and returns how far it is.
    pub(super) async fn beyond(&self, beyond: u64) -> u64 {
        let index = self.index.subscribe();
        self.wanted.notify_one();
        above(index, beyond).await
    }
}

/// Waits until the index is above another, and returns it; for ever if there is nobody any more to tell.
pub(super) async fn above(mut index: watch::Receiver<u64>, beyond: u64) -> u64 {
    let found = index.wait_for(|index| *index > beyond).await;
    let found = found.map(|index| *index);
    match found {
        Ok(index) => index,
        Err(_) => std::future::pending().await,
    }
}

async fn publish<F>(index: watch::Sender<u64>, wanted: Arc<Notify>, look: impl Fn() -> F + Send)
where
    F: Future<Output = u64> + Send,
{
    loop {
        let found = look().await;
        index.send_if_modified(|known| std::mem::replace(known, found) != found);
        if index.receiver_count() == 0 {
            wanted.notified().await;
        } else {
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test]
    async fn everyone_who_waits_is_told_and_nobody_looks_while_none_does() {
        let (index, looks) = (Arc::new(AtomicU64::new(3)), Arc::new(AtomicU64::new(0)));
        let applied = AppliedIndex::new({
            let (index, looks) = (Arc::clone(&index), Arc::clone(&looks));
            move || {
                looks.fetch_add(1, Ordering::Relaxed);
                std::future::ready(index.load(Ordering::Relaxed))
            }
        });
        assert_eq!(applied.beyond(0).await, 3);
        let both = async { tokio::join!(applied.beyond(3), applied.beyond(4)) };
        let raise = async {
            tokio::time::sleep(2 * LOOK).await;
            index.store(7, Ordering::Relaxed);
        };
        assert_eq!(tokio::join!(both, raise).0, (7, 7));
        // The look that finds nobody is at most one period away.
        tokio::time::sleep(3 * LOOK).await;
        let before = looks.load(Ordering::Relaxed);
        tokio::time::sleep(10 * LOOK).await;
        assert_eq!(looks.load(Ordering::Relaxed), before);
    }
}
