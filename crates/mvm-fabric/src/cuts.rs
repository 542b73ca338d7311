//! The cut matrix: which directions pass nothing at all. The first rule of every segment.
//!
//! Checking that ports exist and clearing queues of a freshly cut direction is done in `segment`.

use std::time::Instant;

use crate::counters::Cause;
use crate::frame::Frame;
use crate::rule::{Link, Port, Rule, Verdict};

/// A square of directions, each whole or cut.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    /// `rows[from][to]`.
    rows: Vec<Vec<bool>>,
    /// How many directions are cut.
    count: usize,
}

impl Cuts {
    /// Makes room for the next port, which starts with no direction cut.
    pub(crate) fn add_port(&mut self) {
        for row in &mut self.rows {
            row.push(false);
        }
        self.rows.push(vec![false; self.rows.len() + 1]);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn is_cut(&self, link: Link) -> bool {
        self.rows[link.from.index()][link.to.index()]
    }

    /// The directions that are cut.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Link> {
        (0..).zip(&self.rows).flat_map(|(from, row)| {
            let cut = (0..).zip(row).filter(|(_, cut)| **cut);
            cut.map(move |(to, _)| Link {
                from: Port(from),
                to: Port(to),
            })
        })
    }

    pub(crate) fn set(&mut self, link: Link, cut: bool) {
        let cell = &mut self.rows[link.from.index()][link.to.index()];
        match (*cell, cut) {
            (false, true) => self.count += 1,
            (true, false) => self.count -= 1,
            (true, true) | (false, false) => {}
        }
        *cell = cut;
    }

    /// Sets every direction anew: cut where `cut` says so, whole elsewhere.
    pub(crate) fn set_all(&mut self, cut: impl Fn(Link) -> bool) {
        self.count = 0;
        for (from, row) in (0..).zip(&mut self.rows) {
            for (to, cell) in (0..).zip(row) {
                *cell = cut(Link {
                    from: Port(from),
                    to: Port(to),
                });
                self.count += usize::from(*cell);
            }
        }
    }
}

impl Rule for Cuts {
    fn judge(&mut self, link: Link, _frame: &Frame<'_>, _now: Instant) -> Verdict {
        if self.is_cut(link) {
            Verdict::Drop(Cause::Cut)
        } else {
            Verdict::Pass
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(from: u32, to: u32) -> Link {
        Link {
            from: Port(from),
            to: Port(to),
        }
    }

    #[test]
    fn a_direction_is_cut_alone_and_counted_once() {
        let mut cuts = Cuts::default();
        for _ in 0..3 {
            cuts.add_port();
        }
        cuts.set(link(0, 1), true);
        cuts.set(link(0, 1), true);
        assert!(cuts.is_cut(link(0, 1)));
        assert!(!cuts.is_cut(link(1, 0)));
        assert_eq!(cuts.count, 1);
        assert_eq!(cuts.iter().collect::<Vec<_>>(), [link(0, 1)]);
        cuts.set(link(0, 1), false);
        cuts.set(link(0, 1), false);
        assert!(cuts.is_empty());
    }

    #[test]
    fn setting_all_replaces_what_was_there_and_a_new_port_starts_whole() {
        let mut cuts = Cuts::default();
        for _ in 0..3 {
            cuts.add_port();
        }
        cuts.set(link(0, 1), true);
        cuts.set_all(|link| link.to == Port(2) && link.from != Port(2));
        assert!(!cuts.is_cut(link(0, 1)));
        assert_eq!(cuts.count, 2);
        cuts.add_port();
        assert!(!cuts.is_cut(link(3, 2)));
        assert!(!cuts.is_cut(link(2, 3)));
        assert_eq!(cuts.count, 2);
    }
}
