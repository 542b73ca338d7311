//! Answers: none from a node without a majority, none that is stale, none that no node may give.

use std::collections::HashSet;

use super::{
    Invariant, Violation,
    case::{Case, complain, shown},
};
use crate::{
    action::{Action, At, Consistency, Told},
    history::Operation,
};

pub(super) fn look(case: &Case, found: &mut Vec<Violation>) {
    for operation in &case.operations {
        minority(case, operation, found);
        defect(operation, found);
    }
    fresh(case, found);
}

/// What was asked and answered within a cut cannot have been agreed on by a majority.
fn minority(case: &Case, operation: &Operation, found: &mut Vec<Violation>) {
    let within = case.cuts.iter().find(|cut| {
        cut.node == operation.node
            && cut.from <= operation.invoked
            && operation.returned_at() <= cut.to
    });
    if let Some(cut) = within
        && operation.action.is_write()
        && operation.is_acknowledged()
    {
        let how = format!(
            "{} was cut off from {} s on: {}",
            cut.node,
            cut.from,
            shown([operation])
        );
        complain(found, Invariant::MinorityNeverAcknowledges, how);
    }
}

fn defect(operation: &Operation, found: &mut Vec<Violation>) {
    let wrong = match (&operation.action, &operation.returned) {
        (_, Some((_, Told::Broken { .. }))) => true,
        // Workloads submit nothing that is to be rejected.
        (Action::Submit { .. }, Some((_, Told::Rejected { .. }))) => true,
        _ => false,
    };
    if wrong {
        complain(found, Invariant::NoDefect, shown([operation]));
    }
}

fn fresh(case: &Case, found: &mut Vec<Violation>) {
    let mut acknowledged: Vec<(At, &str, &Operation)> = Vec::new();
    for operation in &case.operations {
        if let Action::Submit { key, .. } = &operation.action
            && operation.is_acknowledged()
        {
            acknowledged.push((operation.returned_at(), key, operation));
        }
    }
    for list in &case.operations {
        let Action::List {
            consistency: Consistency::Linearizable,
        } = &list.action
        else {
            continue;
        };
        let Some((_, Told::Listed { jobs })) = &list.returned else {
            continue;
        };
        let listed: HashSet<&str> = jobs.iter().map(|job| job.key.as_str()).collect();
        let missing = acknowledged
            .iter()
            .find(|(at, key, _)| *at < list.invoked && !listed.contains(key));
        if let Some((_, key, submit)) = missing {
            let how = format!("key {key} is missing: {}", shown([*submit, list]));
            complain(found, Invariant::ReadsAreFresh, how);
        }
    }
}
