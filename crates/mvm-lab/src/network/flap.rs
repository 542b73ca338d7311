//! A link that comes and goes on a schedule.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use mvm_fabric::Link;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{Network, NetworkError, Shared, lock};
use crate::event::Event;

/// As fine as tokio's timers are.
const PHASE_MIN: Duration = Duration::from_millis(1);

impl Network {
    /// Lets the link between two machines be up for `up`, down for `down`, and so on, until the handle is stopped
    /// or dropped; the link is whole then. It begins with being up. Each change is an event.
    ///
    /// Other links are not touched, and what others do to this one lasts until its next change. These changes are
    /// not among those that [`Network::disturb`] puts back.
    ///
    /// # Errors
    ///
    /// If there is no such machine or link, or a phase is shorter than a millisecond.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn flap(
        &self,
        one: &str,
        other: &str,
        up: Duration,
        down: Duration,
    ) -> Result<Flap, NetworkError> {
        let link = Arc::new(self.flapping(one, other, up, down)?);
        let flapping = Arc::clone(&link);
        let task = tokio::spawn(async move { flapping.run(up, down).await });
        Ok(Flap { link, task })
    }

    /// Lets the link between two machines flap as [`Network::flap`] does for `total`, and returns when that is
    /// over and the link whole. Dropping the future ends it, too, with the link whole.
    ///
    /// # Errors
    ///
    /// As for [`Network::flap`], or if the switch stops meanwhile.
    pub async fn flap_for(
        &self,
        one: &str,
        other: &str,
        up: Duration,
        down: Duration,
        total: Duration,
    ) -> Result<(), NetworkError> {
        let link = Whole(self.flapping(one, other, up, down)?);
        match timeout(total, link.0.run(up, down)).await {
            Err(_elapsed) => link.0.end(),
            Ok(Err(error)) => Err(error),
            Ok(Ok(never)) => match never {},
        }
    }

    fn flapping(
        &self,
        one: &str,
        other: &str,
        up: Duration,
        down: Duration,
    ) -> Result<Flapping, NetworkError> {
        let links = self.directions_of(one, other)?;
        if up.min(down) < PHASE_MIN {
            return Err(NetworkError::Flap {
                up,
                down,
                min: PHASE_MIN,
            });
        }
        Ok(Flapping {
            shared: Arc::clone(&self.shared),
            links,
            words: self.said(format!("{one} - {other}")),
            ended: Mutex::new(false),
        })
    }
}

/// A link that flaps until this is stopped or dropped; made by [`Network::flap`].
#[must_use = "dropped at once, it ends at once"]
pub struct Flap {
    link: Arc<Flapping>,
    task: JoinHandle<Result<Infallible, NetworkError>>,
}

impl Flap {
    /// Ends it and returns when the link is whole and nothing is left of it.
    ///
    /// # Errors
    ///
    /// If a change failed: the switch has stopped.
    pub async fn stop(mut self) -> Result<(), NetworkError> {
        self.task.abort();
        match (&mut self.task).await {
            Ok(Ok(never)) => match never {},
            Ok(Err(error)) => Err(error),
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            Err(_cancelled) => self.link.end(),
        }
    }
}

impl Drop for Flap {
    /// Ends it; the link is whole, and the task never touches it again.
    fn drop(&mut self) {
        self.task.abort();
        self.link.end_or_warn();
    }
}

/// Makes a link whole when dropped.
struct Whole(Flapping);

impl Drop for Whole {
    fn drop(&mut self) {
        self.0.end_or_warn();
    }
}

struct Flapping {
    shared: Arc<Shared>,
    /// One direction of each pair of cards.
    links: Vec<Link>,
    words: String,
    /// Held during each change, so that none comes after the last.
    ended: Mutex<bool>,
}

impl Flapping {
    async fn run(&self, up: Duration, down: Duration) -> Result<Infallible, NetworkError> {
        loop {
            sleep(up).await;
            self.set(true)?;
            sleep(down).await;
            self.set(false)?;
        }
    }

    /// Cuts or heals, unless it has ended.
    fn set(&self, cut: bool) -> Result<(), NetworkError> {
        match *lock(&self.ended) {
            true => Ok(()),
            false => self.change(cut),
        }
    }

    /// Heals for good; does nothing the second time.
    fn end(&self) -> Result<(), NetworkError> {
        let mut ended = lock(&self.ended);
        match std::mem::replace(&mut *ended, true) {
            true => Ok(()),
            false => self.change(false),
        }
    }

    fn end_or_warn(&self) {
        if let Err(error) = self.end() {
            let text = format!("link {} may be left cut: {error}", self.words);
            self.shared.recorder.record(Event::Warning { text });
        }
    }

    fn change(&self, cut: bool) -> Result<(), NetworkError> {
        let flapping = self.links.clone();
        let ((), effect) = self.shared.apply(move |links| {
            flapping.iter().try_for_each(|link| match cut {
                true => links.cut(link.from, link.to),
                false => links.heal(link.from, link.to),
            })
        })?;
        let what = if cut { "cut" } else { "heal" };
        let words = format!("flap: {what} {}", self.words);
        self.shared.changed(words, effect);
        Ok(())
    }
}
