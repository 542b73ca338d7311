//! Partitions in the field's words: each a pure function that gives the directions to cut.
//!
//! Ports are known and named once when they come here; `links` checks that, and does the cutting.

use std::collections::BTreeSet;

use crate::chance::Chance;
use crate::link::{Link, Port};

/// The directions that pass nothing.
pub(crate) type CutSet = BTreeSet<Link>;

/// How many of `nodes` are more than half.
pub(crate) fn majority(nodes: usize) -> usize {
    nodes / 2 + 1
}

/// Cuts between ports of different groups. Of `ports` in all, those not named form one more group together.
pub(crate) fn groups<G: AsRef<[Port]>>(ports: &[Port], groups: &[G]) -> CutSet {
    let named: BTreeSet<Port> = groups
        .iter()
        .flat_map(|group| group.as_ref().iter().copied())
        .collect();
    let rest: Vec<Port> = ports
        .iter()
        .copied()
        .filter(|port| !named.contains(port))
        .collect();
    let all: Vec<&[Port]> = groups
        .iter()
        .map(AsRef::as_ref)
        .chain([rest.as_slice()])
        .collect();
    let mut cuts = CutSet::new();
    for (index, group) in all.iter().enumerate() {
        for other in &all[..index] {
            cuts.extend(both_ways(group, other));
        }
    }
    cuts
}

/// Cuts one port off from all others, both ways.
pub(crate) fn isolate(ports: &[Port], one: Port) -> CutSet {
    let others: Vec<Port> = ports
        .iter()
        .copied()
        .filter(|other| *other != one)
        .collect();
    both_ways(&[one], &others).collect()
}

/// Cuts from every port of one group to every port of another, and not back.
pub(crate) fn one_way(from: &[Port], to: &[Port]) -> CutSet {
    each_to_each(from, to).collect()
}

/// Cuts between two halves of `nodes`, which both see `bridge`. The first half is the smaller one, if they
/// differ, and begins with the first node.
pub(crate) fn bridge(nodes: &[Port], bridge: Port) -> CutSet {
    let others: Vec<Port> = nodes
        .iter()
        .copied()
        .filter(|node| *node != bridge)
        .collect();
    let (first, second) = others.split_at(others.len() / 2);
    both_ways(first, second).collect()
}

/// Lets every node hear just a majority, itself included, and no two the same one.
///
/// As in Jepsen: nodes stand in a ring, and each hears those next to it, as many on both sides if that can
/// be. Where it cannot, because a majority is an even number, some pairs hear each other in one
/// direction only.
pub(crate) fn majorities_ring(nodes: &[Port]) -> CutSet {
    let count = nodes.len();
    let majority = majority(count);
    let mut cuts = CutSet::new();
    for (position, to) in nodes.iter().enumerate() {
        let first = position + count - majority / 2;
        let deaf_to = (majority..count).map(|step| nodes[(first + step) % count]);
        cuts.extend(deaf_to.map(|from| Link { from, to: *to }));
    }
    cuts
}

/// Chooses the largest minority of `nodes`, by chance.
pub(crate) fn random_minority(nodes: &[Port], seed: u64) -> Vec<Port> {
    let mut chance = Chance::of_choice(seed, "minority");
    let mut nodes = nodes.to_vec();
    let count = nodes.len() - majority(nodes.len());
    for chosen in 0..count {
        let left = (nodes.len() - chosen) as u64;
        nodes.swap(chosen, chosen + chance.below(left) as usize);
    }
    nodes.truncate(count);
    nodes.sort_unstable();
    nodes
}

/// Cuts between some of `nodes` and the rest of them.
pub(crate) fn split(nodes: &[Port], some: &[Port]) -> CutSet {
    let rest: Vec<Port> = nodes
        .iter()
        .copied()
        .filter(|node| !some.contains(node))
        .collect();
    both_ways(some, &rest).collect()
}

fn both_ways(group: &[Port], other: &[Port]) -> impl Iterator<Item = Link> {
    each_to_each(group, other).flat_map(|link| [link, link.reverse()])
}

fn each_to_each(from: &[Port], to: &[Port]) -> impl Iterator<Item = Link> {
    from.iter()
        .flat_map(move |from| to.iter().map(move |to| (*from, *to)))
        .map(|(from, to)| Link { from, to })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(count: u32) -> Vec<Port> {
        (0..count).map(Port).collect()
    }

    /// One row per sender, one column per receiver: `+` is heard.
    #[track_caller]
    fn check(count: u32, cuts: &CutSet, expected: &[&str]) {
        let cell = |from: u32, to: u32| {
            let link = Link {
                from: Port(from),
                to: Port(to),
            };
            match (from == to, cuts.contains(&link)) {
                (true, cut) => ['.', '!'][usize::from(cut)],
                (false, true) => '-',
                (false, false) => '+',
            }
        };
        let rows: Vec<String> = (0..count)
            .map(|from| (0..count).map(|to| cell(from, to)).collect())
            .collect();
        assert_eq!(rows, expected);
    }

    #[test]
    fn words_mean_what_they_say() {
        let four = ports(4);
        check(
            4,
            &groups(&four, &[&four[..1]]),
            &[".---", "-.++", "-+.+", "-++."],
        );
        check(
            4,
            &groups(&four, &[&four[..1], &four[1..2]]),
            &[".---", "-.--", "--.+", "--+."],
        );
        check(
            4,
            &groups::<Vec<Port>>(&four, &[]),
            &[".+++", "+.++", "++.+", "+++."],
        );
        check(
            4,
            &isolate(&four, Port(2)),
            &[".+-+", "+.-+", "--.-", "++-."],
        );
        check(
            4,
            &one_way(&four[..2], &four[2..]),
            &[".+--", "+.--", "++.+", "+++."],
        );
        check(3, &bridge(&ports(3), Port(1)), &[".+-", "+.+", "-+."]);
        check(
            5,
            &bridge(&ports(5), Port(0)),
            &[".++++", "+.+--", "++.--", "+--.+", "+--+."],
        );
        check(
            4,
            &split(&four, &four[3..]),
            &[".++-", "+.+-", "++.-", "---."],
        );
    }

    #[test]
    fn a_ring_of_majorities() {
        check(3, &majorities_ring(&ports(3)), &[".+-", "-.+", "+-."]);
        check(
            4,
            &majorities_ring(&ports(4)),
            &[".+-+", "+.+-", "-+.+", "+-+."],
        );
        check(
            5,
            &majorities_ring(&ports(5)),
            &[".+--+", "+.+--", "-+.+-", "--+.+", "+--+."],
        );
        for count in 3..40 {
            check_ring(count);
        }
    }

    #[track_caller]
    fn check_ring(count: u32) {
        let nodes = ports(count);
        let cuts = majorities_ring(&nodes);
        let heard_by = |to: Port| -> BTreeSet<Port> {
            let heard = |from: &Port| !cuts.contains(&Link { from: *from, to });
            nodes.iter().copied().filter(heard).collect()
        };
        let views: BTreeSet<_> = nodes.iter().map(|node| heard_by(*node)).collect();
        assert_eq!(views.len(), nodes.len(), "{count}: two see the same");
        let majority = majority(nodes.len());
        assert!(views.iter().all(|view| view.len() == majority), "{count}");
    }

    #[test]
    fn a_random_minority_is_the_largest_and_depends_on_the_seed() {
        for (nodes, expected) in [(3, 1), (4, 1), (5, 2), (6, 2), (7, 3)] {
            assert_eq!(random_minority(&ports(nodes), 1).len(), expected);
        }
        let five = ports(5);
        assert_eq!(random_minority(&five, 7), random_minority(&five, 7));
        let seen: BTreeSet<_> = (0..200).map(|seed| random_minority(&five, seed)).collect();
        assert_eq!(seen.len(), 10, "all pairs of five come up");
    }
}
