//! Who watches what in this process, and what running executions are told to do: for stores.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{
    id::ExecutionId,
    journal::{Order, Watch},
};

/// Watchers and orders.
#[derive(Debug, Default)]
pub struct Hub {
    watched: Mutex<HashMap<ExecutionId, watch::Sender<u64>>>,
    orders: Mutex<HashMap<ExecutionId, Order>>,
}

impl Hub {
    /// Watches an execution.
    pub fn watch(&self, id: ExecutionId) -> Watch {
        let mut watched = lock(&self.watched);
        let sender = watched.entry(id).or_insert_with(|| watch::channel(0).0);
        Watch(sender.subscribe())
    }

    /// Tells those who watch an execution that it may have changed.
    pub fn touch(&self, id: ExecutionId) {
        let mut watched = lock(&self.watched);
        if let Some(sender) = watched.get(&id) {
            sender.send_modify(|changes| *changes += 1);
            if sender.receiver_count() == 0 {
                watched.remove(&id);
            }
        }
    }

    /// Tells all who watch anything.
    pub fn touch_all(&self) {
        lock(&self.watched).retain(|_, sender| {
            sender.send_modify(|changes| *changes += 1);
            sender.receiver_count() > 0
        });
    }

    /// Sets what the owner of an execution is told.
    pub fn order(&self, id: ExecutionId, order: Option<Order>) {
        let mut orders = lock(&self.orders);
        match order {
            Some(order) => orders.insert(id, order),
            None => orders.remove(&id),
        };
    }

    /// What the owner of an execution is told.
    pub fn ordered(&self, id: ExecutionId) -> Order {
        lock(&self.orders).get(&id).cloned().unwrap_or(Order::GoOn)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
