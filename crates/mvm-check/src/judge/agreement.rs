//! Agreement: in the end every node tells the same.

use std::collections::BTreeMap;

use super::{
    Invariant, Violation,
    case::{Case, complain},
};
use crate::action::{JobId, JobSeen};

pub(super) fn look(case: &Case, found: &mut Vec<Violation>) {
    let mut finals = case.finals.iter();
    let Some((first, state)) = finals.next() else {
        return;
    };
    let by_id = |jobs: &[JobSeen]| -> BTreeMap<JobId, JobSeen> {
        jobs.iter()
            .map(|job| (job.id.clone(), job.clone()))
            .collect()
    };
    let expected = by_id(&state.jobs);
    for (node, other) in finals {
        let listed = by_id(&other.jobs);
        let ids = expected.keys().chain(listed.keys());
        let differs = |id: &&JobId| expected.get(id) != listed.get(id);
        if let Some(id) = ids.into_iter().find(differs) {
            let told = |job: Option<&JobSeen>| match job {
                Some(job) => format!("{} by token {}", job.state, job.token),
                None => "absent".to_owned(),
            };
            let how = format!(
                "{id} is {} on {first} and {} on {node}; {} and {} jobs are listed",
                told(expected.get(id)),
                told(listed.get(id)),
                state.jobs.len(),
                other.jobs.len()
            );
            complain(found, Invariant::NodesAgree, how);
        }
        let differs = |(id, attempts): &(&JobId, &Vec<_>)| {
            other.attempts.get(id).is_some_and(|told| told != *attempts)
        };
        if let Some((id, _)) = state.attempts.iter().find(differs) {
            let how = format!("{first} and {node} tell differently of the attempts of {id}");
            complain(found, Invariant::NodesAgree, how);
        }
    }
}
