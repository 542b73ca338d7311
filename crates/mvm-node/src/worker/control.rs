//! What a worker is told to do, and how busy it is.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use tokio::sync::watch;

/// What a worker is to do with jobs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Order {
    /// Take them and run them.
    Work,
    /// Run those it has; take no more.
    Drain,
    /// End those it has and give them back; take no more.
    GiveBack,
}

/// A worker as others see it.
#[derive(Debug)]
pub(crate) struct Control {
    slots: u32,
    busy: AtomicU32,
    stopping: AtomicBool,
    orders: watch::Sender<Order>,
}

impl Default for Control {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Control {
    /// Of a worker with so many slots, which takes jobs.
    pub(crate) fn new(slots: u32) -> Self {
        Self {
            slots,
            busy: AtomicU32::new(0),
            stopping: AtomicBool::new(false),
            orders: watch::Sender::new(Order::Work),
        }
    }

    /// How many jobs it runs at once.
    pub(crate) const fn slots(&self) -> u32 {
        self.slots
    }

    /// How many it runs now.
    pub(crate) fn busy(&self) -> u32 {
        self.busy.load(Ordering::Relaxed)
    }

    /// Whether it takes no more jobs.
    pub(crate) fn is_draining(&self) -> bool {
        *self.orders.borrow() != Order::Work
    }

    /// Waits until it takes jobs, which it does unless told otherwise.
    pub(crate) async fn takes_jobs(&self) {
        let mut orders = self.orders.subscribe();
        // We have the sender.
        let _ = orders.wait_for(|order| *order == Order::Work).await;
    }

    /// Whether its node is on the way out.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Has it take no more jobs, or take jobs again. One that stops does not take them again.
    pub(crate) fn drain(&self, drain: bool) {
        let wanted = if drain { Order::Drain } else { Order::Work };
        self.orders.send_if_modified(|order| {
            let changes = *order != Order::GiveBack && *order != wanted;
            if changes {
                *order = wanted;
            }
            changes
        });
    }

    /// Lets it finish what it has for so long, then has it give back the rest.
    pub(crate) async fn stop(&self, grace: Duration) {
        self.stopping.store(true, Ordering::Relaxed);
        self.drain(true);
        let idle = async {
            while self.busy() > 0 {
                tokio::time::sleep(LOOK).await;
            }
        };
        // Whatever is left then is given back.
        let _ = tokio::time::timeout(grace, idle).await;
        self.orders.send_replace(Order::GiveBack);
    }

    pub(super) fn orders(&self) -> watch::Receiver<Order> {
        self.orders.subscribe()
    }

    pub(super) fn tell_busy(&self, busy: u32) {
        self.busy.store(busy, Ordering::Relaxed);
    }
}

const LOOK: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_stops_takes_no_job_again() {
        let control = Control::new(2);
        let orders = control.orders();
        assert!(!control.is_draining());
        control.drain(true);
        assert_eq!(*orders.borrow(), Order::Drain);
        control.drain(false);
        assert_eq!(*orders.borrow(), Order::Work);
        control.tell_busy(1);
        control.stop(Duration::from_millis(1)).await;
        control.drain(false);
        assert_eq!(*orders.borrow(), Order::GiveBack);
        assert!(control.is_draining() && control.is_stopping());
    }
}
