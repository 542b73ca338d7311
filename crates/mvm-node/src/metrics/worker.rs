//! What is counted of the node's own worker.

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

/// The slots of the node's own worker.
#[derive(Debug)]
pub(crate) struct WorkerMetrics {
    slots: Gauge,
    busy: Gauge,
}

impl WorkerMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            slots: Gauge::default(),
            busy: Gauge::default(),
        };
        registry.register(
            "worker_slots",
            "Jobs that this node's own worker runs at once",
            metrics.slots.clone(),
        );
        registry.register(
            "worker_slots_busy",
            "Jobs that this node's own worker holds now",
            metrics.busy.clone(),
        );
        metrics
    }

    /// Says how many slots there are.
    pub(crate) fn set_slots(&self, slots: u32) {
        self.slots.set(slots.into());
    }

    /// Takes a slot until dropped.
    pub(crate) fn busy(&self) -> Busy {
        self.busy.inc();
        Busy(self.busy.clone())
    }
}

/// A slot that is taken.
#[derive(Debug)]
pub(crate) struct Busy(Gauge);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.dec();
    }
}
