//! Rules: what happens to a frame on its way from one port to another.
//!
//! Rules stand in a fixed order and the first that has an opinion wins. Cutting a direction (`cuts`) is
//! the first rule. An impairment is added as another rule in [`Rules`]; when it needs more than `Drop`,
//! as a delay does, [`Verdict`] gets another variant and `Segment::pass` another arm.

use std::time::Instant;

use crate::counters::Cause;
use crate::cuts::Cuts;
use crate::frame::Frame;

/// One port of a switch, valid for the switch that handed it out and those restored from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub(crate) u32);

impl Port {
    /// The position of the port in its switch, counted from zero in the order of attaching.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One direction of a pair of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// The ingress port, where frames come from.
    pub from: Port,
    /// The egress port, where frames go.
    pub to: Port,
}

/// What a rule says about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No opinion: the next rule is asked, and after the last one the frame is delivered.
    Pass,
    /// The frame ends here.
    Drop(Cause),
}

/// Decides about one frame in one direction. A flooded frame is judged once per egress port.
pub(crate) trait Rule {
    fn judge(&mut self, link: Link, frame: &Frame<'_>, now: Instant) -> Verdict;
}

/// All rules of a segment, in the order in which they are asked.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) cuts: Cuts,
}

impl Rules {
    /// Asks the rules in order; the first opinion wins.
    pub(crate) fn judge(&mut self, link: Link, frame: &Frame<'_>, now: Instant) -> Verdict {
        // The fast path: most networks are healthy most of the time.
        if self.cuts.is_empty() {
            return Verdict::Pass;
        }
        first_opinion(&mut [&mut self.cuts], link, frame, now)
    }
}

fn first_opinion(
    chain: &mut [&mut dyn Rule],
    link: Link,
    frame: &Frame<'_>,
    now: Instant,
) -> Verdict {
    for rule in chain {
        match rule.judge(link, frame, now) {
            Verdict::Pass => {}
            opinion @ Verdict::Drop(_) => return opinion,
        }
    }
    Verdict::Pass
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed {
        verdict: Verdict,
        asked: u32,
    }

    impl Rule for Fixed {
        fn judge(&mut self, _: Link, _: &Frame<'_>, _: Instant) -> Verdict {
            self.asked += 1;
            self.verdict
        }
    }

    #[track_caller]
    fn check(verdicts: [Verdict; 3], expected: Verdict, expected_asked: [u32; 3]) {
        let mut rules = verdicts.map(|verdict| Fixed { verdict, asked: 0 });
        let [first, second, third] = &mut rules;
        let link = Link {
            from: Port(0),
            to: Port(1),
        };
        let frame = Frame::parse(&[0; 14]).unwrap();
        let verdict = first_opinion(&mut [first, second, third], link, &frame, Instant::now());
        assert_eq!(verdict, expected);
        assert_eq!(rules.map(|rule| rule.asked), expected_asked);
    }

    #[test]
    fn the_first_opinion_wins_and_later_rules_are_not_asked() {
        let (cut, full) = (Verdict::Drop(Cause::Cut), Verdict::Drop(Cause::QueueFull));
        check(
            [Verdict::Pass, Verdict::Pass, Verdict::Pass],
            Verdict::Pass,
            [1, 1, 1],
        );
        check([Verdict::Pass, cut, full], cut, [1, 1, 0]);
        check([full, cut, cut], full, [1, 0, 0]);
        check([Verdict::Pass, Verdict::Pass, full], full, [1, 1, 1]);
    }
}
