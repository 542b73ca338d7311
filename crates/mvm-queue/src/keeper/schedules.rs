//! The schedules that a keeper looks after.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    command::{Change, Tick},
    cron::Schedule,
    id::{JobId, UnixMillis},
    job::JobSpec,
    query::StoredSchedule,
};

/// The schedules by name.
#[derive(Debug, Default)]
pub(super) struct Schedules(BTreeMap<String, Known>);

#[derive(Debug)]
struct Known {
    stored: StoredSchedule,
    /// Nothing for a line that this build does not understand; it fires when a leader does.
    schedule: Option<Schedule>,
    not_before: Duration,
}

impl Schedules {
    pub(super) fn replace(&mut self, all: Vec<StoredSchedule>) {
        self.0.clear();
        all.into_iter().for_each(|stored| self.set(stored));
    }

    pub(super) fn set(&mut self, stored: StoredSchedule) {
        let before = UnixMillis(stored.next_ms.0.saturating_sub(1));
        let known = Known {
            schedule: Schedule::parse(&stored.cron, before).ok(),
            not_before: Duration::ZERO,
            stored,
        };
        self.0.insert(known.stored.name.clone(), known);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// A tick was fired or left out.
    pub(super) fn moved(&mut self, tick: &Tick) {
        if let Some(known) = self.0.get_mut(&tick.schedule)
            && known.stored.revision == tick.revision
            && known.stored.next_ms <= tick.tick_ms
        {
            known.stored.next_ms = tick.next_ms;
            known.not_before = Duration::ZERO;
        }
    }

    /// Adds what to propose about ticks that have come.
    pub(super) fn fire(
        &mut self,
        node: u64,
        now: Duration,
        again: Duration,
        wall: UnixMillis,
        new_id: &mut dyn FnMut(&JobSpec) -> JobId,
        changes: &mut Vec<Change>,
    ) {
        for known in self.0.values_mut().filter(|known| known.not_before <= now) {
            let stored = &known.stored;
            let firing = known
                .schedule
                .as_ref()
                .and_then(|schedule| schedule.firing(stored.next_ms, stored.missed, wall));
            let Some(firing) = firing else { continue };
            let tick = Tick {
                schedule: stored.name.clone(),
                revision: stored.revision,
                tick_ms: stored.next_ms,
                next_ms: firing.next_ms,
            };
            changes.push(if firing.fires {
                Change::Submit {
                    job: new_id(&stored.spec),
                    submitted_on: node,
                    spec: Box::new(stored.spec.clone()),
                    tick: Some(tick),
                }
            } else {
                Change::SkipTick { tick }
            });
            known.not_before = again;
        }
    }

    /// The next tick, and before when it is not looked at.
    pub(super) fn next(&self) -> Option<(UnixMillis, Duration)> {
        let known = self.0.values().filter(|known| known.schedule.is_some());
        known
            .map(|known| (known.stored.next_ms, known.not_before))
            .min()
    }
}
