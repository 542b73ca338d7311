//! Changes that last until a guard is dropped.

use std::sync::Arc;

use mvm_fabric::{Impairment, Link, Links};

use super::{Network, NetworkError, Shared, lock, set_impairment};
use crate::event::Event;

impl Network {
    /// Makes changes that last as long as the guard returned.
    ///
    /// `changes` makes any number of them by the network it is given. When the guard is dropped, each direction
    /// that they changed is put back to how it was before them: cut or not, and its impairment. Directions that
    /// they did not change are left alone, whatever became of them.
    ///
    /// Guards that change the same directions are to be dropped in reverse order, as scopes do.
    ///
    /// ```no_run
    /// # fn example(network: &mvm_lab::network::Network) -> Result<(), mvm_lab::network::NetworkError> {
    /// let alone = network.disturb(|network| {
    ///     network.of("n2")?.loss(0.1)?;
    ///     network.isolate("n1")
    /// })?;
    /// // What is tried here finds n1 alone.
    /// drop(alone);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Whatever `changes` returns; what it had changed is put back then.
    pub fn disturb(
        &self,
        changes: impl FnOnce(&Network) -> Result<(), NetworkError>,
    ) -> Result<Disturbance, NetworkError> {
        let undo = Arc::default();
        let changed = changes(&Network {
            shared: Arc::clone(&self.shared),
            segment: self.segment,
            undo: Some(Arc::clone(&undo)),
        });
        let disturbance = Disturbance {
            shared: Arc::clone(&self.shared),
            undo: std::mem::take(&mut *lock(&undo)),
        };
        // Where it failed, the guard is dropped here.
        changed.map(|()| disturbance)
    }
}

/// What puts links back to how they were, when dropped; made by [`Network::disturb`].
///
/// It may outlive the lab, and then does nothing that anybody sees. A checkpoint that is restored meanwhile brings
/// the links as they were when it was taken; dropping the guard then puts back its directions all the same.
#[must_use = "dropped at once, it puts the links back at once"]
pub struct Disturbance {
    shared: Arc<Shared>,
    undo: Undo,
}

impl Disturbance {
    /// Puts the links back, as dropping does, and tells if that fails.
    ///
    /// # Errors
    ///
    /// If the switch has stopped.
    pub fn put_back(mut self) -> Result<(), NetworkError> {
        self.undo()
    }

    /// Leaves the links as they are.
    pub fn keep(mut self) {
        self.undo = Undo::default();
    }

    fn undo(&mut self) -> Result<(), NetworkError> {
        let Undo { changes, before } = std::mem::take(&mut self.undo);
        if changes.is_empty() {
            return Ok(());
        }
        let ((), effect) = self.shared.apply(move |links| {
            let last_first = before.iter().rev();
            last_first.copied().try_for_each(|before| {
                match before.cut {
                    true => links.cut_link(before.link)?,
                    false => links.heal_link(before.link)?,
                }
                set_impairment(links, before.link, before.impairment)
            })
        })?;
        let words = format!("put back: {}", changes.join("; "));
        self.shared.changed(words, effect);
        Ok(())
    }
}

impl Drop for Disturbance {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            let text = format!("links were not put back: {error}");
            self.shared.recorder.record(Event::Warning { text });
        }
    }
}

/// What was changed and how it was before.
#[derive(Default)]
pub(super) struct Undo {
    changes: Vec<String>,
    before: Vec<Before>,
}

impl Undo {
    /// Adds a change to those before it.
    pub(super) fn add(&mut self, change: String, before: Vec<Before>) {
        self.changes.push(change);
        self.before.extend(before);
    }
}

/// How a direction was before it was changed.
#[derive(Clone, Copy)]
pub(super) struct Before {
    link: Link,
    cut: bool,
    impairment: Impairment,
}

impl Before {
    /// Tells how those directions were that are another way now.
    pub(super) fn of_changed(old: &Links, new: &Links) -> Vec<Before> {
        let ports = || old.ports();
        let links = ports().flat_map(|from| ports().map(move |to| Link { from, to }));
        links
            .filter_map(|link| {
                let before = Before::of(old, link)?;
                let now = Before::of(new, link)?;
                let same = before.cut == now.cut && before.impairment == now.impairment;
                (!same).then_some(before)
            })
            .collect()
    }

    /// None for a port with itself.
    fn of(links: &Links, link: Link) -> Option<Before> {
        Some(Before {
            link,
            cut: links.is_cut(link).ok()?,
            impairment: links.impairment(link).ok()?,
        })
    }
}
