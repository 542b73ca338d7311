//! What a pool has and what it should do next, decided from the time and what happened. Nothing here starts or ends a
//! machine: `M` stands for one, and `E` for what another like it is made from.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::cache::ContentKey;

/// Whoever takes machines needs the processors for what they are taken for, and may take another at once.
const QUIET: Duration = Duration::from_millis(300);
/// What failed is tried again after this, and after twice as long each time it fails again, up to the other.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Machines that can stand for one another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    /// What they are resumed from.
    pub(super) snapshot: ContentKey,
    /// Their memory is in files of their own.
    pub(super) own_memory: bool,
}

/// How much there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) machines_per_kind: usize,
    pub(super) bytes_max: u64,
    pub(super) unused_max: Duration,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<E> {
    /// Make a machine of this kind.
    Make(Kind, E),
    /// Nothing until then, or until something happens.
    Wait(Option<Instant>),
}

/// The machines that wait.
#[derive(Debug)]
pub(super) struct Stock<E, M> {
    bounds: Bounds,
    kinds: HashMap<Kind, Shelf<E, M>>,
    taken: Option<Instant>,
    closed: bool,
}

/// The machines of one kind.
#[derive(Debug)]
struct Shelf<E, M> {
    example: E,
    /// The longest waiting first, each with what it takes of the memory.
    ready: VecDeque<(M, u64)>,
    /// What one is expected to take.
    bytes_each: u64,
    asked: Instant,
    failures: u32,
    retry: Option<Instant>,
}

/// What an example tells before one like it was made.
pub(super) trait Nominal {
    /// The most memory that a machine like this takes.
    fn bytes(&self) -> u64;
}

impl<E: Clone + Nominal, M> Stock<E, M> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Stock {
            bounds,
            kinds: HashMap::new(),
            taken: None,
            closed: false,
        }
    }

    /// Notes that somebody wants, or will want, machines of a kind.
    pub(super) fn asked(&mut self, kind: &Kind, example: &E, now: Instant) {
        if self.closed {
            return;
        }
        let shelf = self.kinds.entry(kind.clone());
        let shelf = shelf.or_insert_with(|| Shelf {
            example: example.clone(),
            ready: VecDeque::new(),
            bytes_each: example.bytes(),
            asked: now,
            failures: 0,
            retry: None,
        });
        shelf.asked = now;
    }

    /// Notes that somebody has just taken a machine, or would have.
    pub(super) fn taken(&mut self, now: Instant) {
        self.taken = Some(now);
    }

    /// Takes the machine of a kind that has waited longest.
    pub(super) fn take(&mut self, kind: &Kind) -> Option<M> {
        let (machine, _) = self.kinds.get_mut(kind)?.ready.pop_front()?;
        Some(machine)
    }

    /// Returns a machine that was not taken after all; it comes back if it is not wanted any more.
    #[must_use]
    pub(super) fn put_back(&mut self, kind: &Kind, machine: M) -> Option<M> {
        match self.kinds.get_mut(kind) {
            Some(shelf) => {
                shelf.ready.push_front((machine, shelf.bytes_each));
                None
            }
            None => Some(machine),
        }
    }

    /// Adds a machine that was made and takes so much memory; it comes back if it is not wanted any more.
    #[must_use]
    pub(super) fn put(&mut self, kind: &Kind, machine: M, bytes: u64) -> Option<M> {
        let Some(shelf) = self.kinds.get_mut(kind) else {
            return Some(machine);
        };
        shelf.failures = 0;
        shelf.retry = None;
        shelf.bytes_each = bytes;
        shelf.ready.push_back((machine, bytes));
        None
    }

    /// Notes that no machine of a kind could be made.
    pub(super) fn failed(&mut self, kind: &Kind, now: Instant) {
        if let Some(shelf) = self.kinds.get_mut(kind) {
            let wait = RETRY_MIN.saturating_mul(1 << shelf.failures.min(16));
            shelf.failures += 1;
            shelf.retry = Some(now + wait.min(RETRY_MAX));
        }
    }

    /// How many machines of a kind there are.
    pub(super) fn ready(&self, kind: &Kind) -> usize {
        self.kinds.get(kind).map_or(0, |shelf| shelf.ready.len())
    }

    /// Forgets the kinds that nobody has asked for in long; returns their machines.
    pub(super) fn let_go(&mut self, now: Instant) -> Vec<M> {
        let unused_max = self.bounds.unused_max;
        let unused = self
            .kinds
            .extract_if(|_, shelf| now.saturating_duration_since(shelf.asked) >= unused_max);
        machines(unused)
    }

    /// Takes no more machines and returns those there are.
    pub(super) fn close(&mut self) -> Vec<M> {
        self.closed = true;
        machines(self.kinds.drain())
    }

    /// What to do now. Of the kinds that lack a machine, the one asked for last comes first.
    pub(super) fn next(&self, now: Instant) -> Next<E> {
        let lacking = || self.kinds.iter().filter(|(_, shelf)| self.lacks(shelf));
        let quiet = self.taken.map(|taken| taken + QUIET);
        let retries = lacking().filter_map(|(_, shelf)| shelf.retry);
        let due = |shelf: &Shelf<E, M>| shelf.retry.is_none_or(|retry| retry <= now);
        let candidate = lacking()
            .filter(|(_, shelf)| due(shelf))
            .max_by_key(|(_, shelf)| shelf.asked);
        match (candidate, quiet.filter(|quiet| *quiet > now)) {
            (Some((kind, shelf)), None) => Next::Make(kind.clone(), shelf.example.clone()),
            (Some(_), Some(quiet)) => Next::Wait(Some(quiet)),
            (None, _) => {
                let unused = self.kinds.values();
                let unused = unused.map(|shelf| shelf.asked + self.bounds.unused_max);
                Next::Wait(retries.filter(|retry| *retry > now).chain(unused).min())
            }
        }
    }

    /// Whether there is to be another machine like these, and room for it.
    fn lacks(&self, shelf: &Shelf<E, M>) -> bool {
        let all = self.kinds.values().flat_map(|shelf| &shelf.ready);
        let bytes: u64 = all.map(|(_, bytes)| bytes).sum();
        shelf.ready.len() < self.bounds.machines_per_kind
            && bytes.saturating_add(shelf.bytes_each) <= self.bounds.bytes_max
    }
}

fn machines<E, M>(kinds: impl Iterator<Item = (Kind, Shelf<E, M>)>) -> Vec<M> {
    kinds
        .flat_map(|(_, shelf)| shelf.ready)
        .map(|(machine, _)| machine)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 100 bytes each until measured.
    impl Nominal for &'static str {
        fn bytes(&self) -> u64 {
            100
        }
    }

    const BOUNDS: Bounds = Bounds {
        machines_per_kind: 2,
        bytes_max: 1000,
        unused_max: Duration::from_secs(60),
    };

    fn kind(name: &str) -> Kind {
        Kind {
            snapshot: ContentKey::of("test").text(name).finish(),
            own_memory: false,
        }
    }

    fn stock(bounds: Bounds) -> (Stock<&'static str, u32>, Instant) {
        (Stock::new(bounds), Instant::now())
    }

    #[track_caller]
    fn check_makes(stock: &Stock<&'static str, u32>, now: Instant, name: &'static str) {
        assert_eq!(stock.next(now), Next::Make(kind(name), name));
    }

    #[track_caller]
    fn check_waits(stock: &Stock<&'static str, u32>, now: Instant, until: Option<Instant>) {
        assert_eq!(stock.next(now), Next::Wait(until));
    }

    #[test]
    fn what_is_asked_for_is_made_up_to_the_bound_and_again_after_a_take() {
        let (mut stock, now) = stock(BOUNDS);
        check_waits(&stock, now, None);
        assert_eq!(stock.take(&kind("a")), None);
        stock.asked(&kind("a"), &"a", now);
        for number in 1..=2 {
            check_makes(&stock, now, "a");
            assert_eq!(stock.put(&kind("a"), number, 10), None);
        }
        check_waits(&stock, now, Some(now + BOUNDS.unused_max));
        assert_eq!(stock.take(&kind("a")), Some(1));
        assert_eq!(stock.ready(&kind("a")), 1);
        stock.taken(now);
        check_waits(&stock, now, Some(now + QUIET));
        check_makes(&stock, now + QUIET, "a");
    }

    #[test]
    fn the_kind_asked_for_last_comes_first() {
        let (mut stock, now) = stock(BOUNDS);
        let later = now + Duration::from_secs(1);
        stock.asked(&kind("a"), &"a", now);
        stock.asked(&kind("b"), &"b", later);
        check_makes(&stock, later, "b");
        stock.asked(&kind("a"), &"a", later + QUIET);
        check_makes(&stock, later + QUIET, "a");
    }

    #[test]
    fn the_memory_is_bounded_by_what_machines_are_measured_to_take() {
        let bounds = Bounds {
            machines_per_kind: 9,
            bytes_max: 250,
            ..BOUNDS
        };
        let (mut stock, now) = stock(bounds);
        stock.asked(&kind("a"), &"a", now);
        check_makes(&stock, now, "a");
        assert_eq!(stock.put(&kind("a"), 1, 90), None);
        check_makes(&stock, now, "a");
        assert_eq!(stock.put(&kind("a"), 2, 90), None);
        check_waits(&stock, now, Some(now + bounds.unused_max));
        let (mut stock, now) = self::stock(Bounds {
            bytes_max: 99,
            ..bounds
        });
        stock.asked(&kind("a"), &"a", now);
        check_waits(&stock, now, Some(now + bounds.unused_max));
    }

    #[test]
    fn what_is_not_asked_for_any_more_is_let_go() {
        let (mut stock, now) = stock(BOUNDS);
        stock.asked(&kind("a"), &"a", now);
        stock.asked(&kind("b"), &"b", now + Duration::from_secs(1));
        assert_eq!(stock.put(&kind("a"), 1, 10), None);
        let then = now + BOUNDS.unused_max;
        assert!(stock.let_go(then - Duration::from_secs(1)).is_empty());
        assert_eq!(stock.let_go(then), [1]);
        assert_eq!(stock.put(&kind("a"), 2, 10), Some(2), "it came too late");
        check_makes(&stock, then, "b");
    }

    #[test]
    fn what_fails_is_tried_ever_more_seldom_and_keeps_nobody_else_waiting() {
        let (mut stock, now) = stock(BOUNDS);
        stock.asked(&kind("a"), &"a", now);
        stock.failed(&kind("a"), now);
        check_waits(&stock, now, Some(now + RETRY_MIN));
        check_makes(&stock, now + RETRY_MIN, "a");
        stock.failed(&kind("a"), now);
        check_waits(&stock, now, Some(now + 2 * RETRY_MIN));
        stock.asked(&kind("b"), &"b", now);
        check_makes(&stock, now, "b");
        for _ in 0..99 {
            stock.failed(&kind("b"), now);
        }
        stock.failed(&kind("a"), now + RETRY_MAX);
        check_makes(&stock, now + RETRY_MAX, "b");
    }

    #[test]
    fn a_closed_stock_takes_nothing() {
        let (mut stock, now) = stock(BOUNDS);
        stock.asked(&kind("a"), &"a", now);
        assert_eq!(stock.put(&kind("a"), 1, 10), None);
        assert_eq!(stock.close(), [1]);
        stock.asked(&kind("a"), &"a", now);
        assert_eq!(stock.put(&kind("a"), 2, 10), Some(2));
        check_waits(&stock, now, None);
    }
}
