//! Submissions by idempotency key: kept if acknowledged, absent if refused, one job each.

use std::collections::BTreeMap;

use super::{
    Ends, Invariant, Violation,
    case::{Case, complain, shown},
};
use crate::{
    action::{Action, JobId, JobSeen, NodeId, Told},
    history::Operation,
};

/// Everything that was asked under one key.
#[derive(Default)]
struct Key<'a> {
    operations: Vec<&'a Operation>,
    /// The jobs it was told to be.
    told: Vec<(&'a JobId, &'a Operation)>,
}

impl Key<'_> {
    fn may_be(&self) -> bool {
        self.operations
            .iter()
            .any(|operation| operation.may_have_happened())
    }
}

pub(super) fn look(case: &Case, found: &mut Vec<Violation>) {
    let keys = keys(case);
    for (name, key) in &keys {
        told_one_job(name, key, found);
        for (node, state) in &case.finals {
            let listed: Vec<_> = state.jobs.iter().filter(|job| job.key == **name).collect();
            as_promised(name, key, *node, &listed, found);
            if case.rules.ends == Ends::Completed {
                ended(case, key, *node, &listed, found);
            }
        }
    }
    for (node, state) in &case.finals {
        for job in &state.jobs {
            if !keys.contains_key(job.key.as_str()) {
                let how = format!(
                    "{node} lists {} of key {}, which nobody submitted",
                    job.id, job.key
                );
                complain(found, Invariant::NothingInvented, how);
            }
        }
    }
}

fn keys(case: &Case) -> BTreeMap<&str, Key<'_>> {
    let mut keys: BTreeMap<&str, Key<'_>> = BTreeMap::new();
    for operation in &case.operations {
        if let Action::Submit { key, .. } = &operation.action {
            let of_key = keys.entry(key).or_default();
            of_key.operations.push(operation);
            if let Some((_, Told::Submitted { job })) = &operation.returned {
                of_key.told.push((job, operation));
            }
        }
    }
    keys
}

fn told_one_job(name: &str, key: &Key<'_>, found: &mut Vec<Violation>) {
    let Some((first, by)) = key.told.first() else {
        return;
    };
    if let Some((_, other)) = key.told.iter().find(|(job, _)| job != first) {
        let how = format!(
            "key {name} was told to be two jobs: {}",
            shown([*by, *other])
        );
        complain(found, Invariant::OneJobPerKey, how);
    }
}

/// Compares what a node lists under a key with what its submitters were told.
fn as_promised(
    name: &str,
    key: &Key<'_>,
    node: NodeId,
    listed: &[&JobSeen],
    found: &mut Vec<Violation>,
) {
    if listed.len() > 1 {
        let ids: Vec<_> = listed.iter().map(|job| job.id.to_string()).collect();
        let how = format!(
            "{node} lists {} under key {name}: {}",
            ids.join(" and "),
            shown(key.operations.iter().copied())
        );
        complain(found, Invariant::OneJobPerKey, how);
    }
    match (key.told.first(), listed.first()) {
        (Some((_, by)), None) => {
            let how = format!("{node} does not list key {name}: {}", shown([*by]));
            complain(found, Invariant::AcknowledgedEnds, how);
        }
        (Some((told, by)), Some(job)) if *told != &job.id => {
            let how = format!("{node} lists key {name} as {}: {}", job.id, shown([*by]));
            complain(found, Invariant::OneJobPerKey, how);
        }
        (None, Some(job)) if !key.may_be() => {
            let how = format!(
                "{node} lists {} of key {name}: {}",
                job.id,
                shown(key.operations.iter().copied())
            );
            complain(found, Invariant::RefusedNeverApplied, how);
        }
        _ => {}
    }
}

/// A job that is listed must have ended: completed, or cancelled if somebody asked for that.
fn ended(
    case: &Case,
    key: &Key<'_>,
    node: NodeId,
    listed: &[&JobSeen],
    found: &mut Vec<Violation>,
) {
    for job in listed {
        let cancelled = || {
            case.operations.iter().any(|operation| {
                matches!(&operation.action, Action::Cancel { job: of } if *of == job.id)
                    && operation.may_have_happened()
            })
        };
        let fine = job.state == "completed" || (job.state == "cancelled" && cancelled());
        if !fine {
            let how = format!(
                "{} of key {} is {} on {node} in the end: {}",
                job.id,
                job.key,
                job.state,
                shown(key.operations.iter().copied())
            );
            complain(found, Invariant::AcknowledgedEnds, how);
        }
    }
}
