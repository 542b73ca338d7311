//! A history as the rules look at it: operations, periods without a majority, and what each node told in the end.

use std::collections::{BTreeMap, BTreeSet};

use super::{Invariant, Rules, Violation};
use crate::{
    action::{At, NodeId},
    history::{Event, FinalState, History, Operation},
};

/// A time in which a node could not reach a majority.
pub(super) struct CutOff {
    pub(super) node: NodeId,
    pub(super) from: At,
    pub(super) to: At,
}

pub(super) struct Case {
    pub(super) operations: Vec<Operation>,
    pub(super) cuts: Vec<CutOff>,
    pub(super) finals: BTreeMap<NodeId, FinalState>,
    pub(super) rules: Rules,
}

impl Case {
    pub(super) fn new(history: &History, rules: Rules) -> Case {
        let finals = history.events().iter().filter_map(|event| match event {
            Event::Final { node, state } => Some((*node, state.clone())),
            _ => None,
        });
        let operations = history.operations();
        let nodes: BTreeSet<NodeId> = operations.iter().map(|asked| asked.node).collect();
        let cuts = nodes.into_iter().flat_map(|node| {
            let times = history.cut_off(node);
            times.map(move |(from, to)| CutOff { node, from, to })
        });
        Case {
            cuts: cuts.collect(),
            finals: finals.collect(),
            operations,
            rules,
        }
    }
}

/// Adds a violation.
pub(super) fn complain(found: &mut Vec<Violation>, invariant: Invariant, how: String) {
    found.push(Violation { invariant, how });
}

/// The operations that show something, at most so many that a line stays readable.
pub(super) fn shown<'a>(operations: impl IntoIterator<Item = &'a Operation>) -> String {
    const SHOWN: usize = 4;
    let mut operations = operations.into_iter();
    let mut text = operations
        .by_ref()
        .take(SHOWN)
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    let more = operations.count();
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}
