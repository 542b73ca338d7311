//! Completions: one per job, by the attempt that says so, and by nobody who was refused.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Invariant, Violation,
    case::{Case, complain, shown},
};
use crate::{
    action::{Action, AttemptSeen, Ended, JobId, JobSeen, NodeId, Token, Told},
    history::Operation,
};

/// What was asked of one job with the intent to complete it.
type Finishes<'a> = BTreeMap<&'a JobId, Vec<(Token, &'a Operation)>>;

pub(super) fn look(case: &Case, found: &mut Vec<Violation>) {
    let finishes = finishes(case);
    for (job, asked) in &finishes {
        accepted_once(job, asked, found);
    }
    let claims = claims(case);
    for (node, state) in &case.finals {
        for job in &state.jobs {
            let asked = finishes.get(&job.id).map_or(&[][..], Vec::as_slice);
            accepted_is_kept(*node, job, asked, found);
            if let Some(attempts) = state.attempts.get(&job.id) {
                completed_once(*node, job, attempts, asked, found);
                for attempt in attempts {
                    asked_for(*node, job, attempt, &claims, asked, found);
                }
            }
        }
    }
}

fn finishes(case: &Case) -> Finishes<'_> {
    let mut finishes = Finishes::new();
    for operation in &case.operations {
        if let Action::Finish {
            job,
            token,
            ended: Ended::Succeeded,
        } = &operation.action
        {
            finishes.entry(job).or_default().push((*token, operation));
        }
    }
    finishes
}

/// Claims by the name they were made under.
fn claims(case: &Case) -> BTreeMap<&str, Vec<&Operation>> {
    let mut claims: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in &case.operations {
        if let Action::Claim { worker, .. } = &operation.action {
            claims.entry(worker).or_default().push(operation);
        }
    }
    claims
}

/// A finish that was accepted as a completion.
fn is_accepted(operation: &Operation) -> bool {
    matches!(&operation.returned, Some((_, Told::Moved { state })) if state == "completed")
}

fn accepted_once(job: &JobId, asked: &[(Token, &Operation)], found: &mut Vec<Violation>) {
    // A repeated request is answered as it was the first time.
    let mut accepted: BTreeMap<(Token, &str), &Operation> = BTreeMap::new();
    for (token, operation) in asked {
        if is_accepted(operation) {
            accepted
                .entry((*token, &operation.request))
                .or_insert(operation);
        }
    }
    if accepted.len() > 1 {
        let how = format!(
            "{job} was accepted as completed {} times: {}",
            accepted.len(),
            shown(accepted.into_values())
        );
        complain(found, Invariant::CompletedOnce, how);
    }
}

fn accepted_is_kept(
    node: NodeId,
    job: &JobSeen,
    asked: &[(Token, &Operation)],
    found: &mut Vec<Violation>,
) {
    let accepted = asked.iter().find(|(_, operation)| is_accepted(operation));
    if let Some((_, operation)) = accepted
        && job.state != "completed"
    {
        let how = format!(
            "{node} lists {} as {}: {}",
            job.id,
            job.state,
            shown([*operation])
        );
        complain(found, Invariant::CompletedOnce, how);
    }
}

/// A completed job has one attempt that succeeded, and it is the one whose completion was accepted; others have none.
fn completed_once(
    node: NodeId,
    job: &JobSeen,
    attempts: &[AttemptSeen],
    asked: &[(Token, &Operation)],
    found: &mut Vec<Violation>,
) {
    let succeeded: BTreeSet<Token> = attempts
        .iter()
        .filter(|attempt| attempt.outcome.as_deref() == Some("succeeded"))
        .map(|attempt| attempt.token)
        .collect();
    let expected = usize::from(job.state == "completed");
    if succeeded.len() != expected {
        let how = format!(
            "{} is {} on {node}, and {} of its {} attempts succeeded: {}",
            job.id,
            job.state,
            succeeded.len(),
            attempts.len(),
            shown(asked.iter().map(|(_, operation)| *operation))
        );
        complain(found, Invariant::CompletedOnce, how);
    }
    let elsewhere = |(token, operation): &&(Token, &Operation)| {
        is_accepted(operation) && !succeeded.contains(token)
    };
    if let Some((token, operation)) = asked.iter().find(elsewhere) {
        let how = format!(
            "attempt {token} of {} was accepted and is not the one that {node} says succeeded: {}",
            job.id,
            shown([*operation])
        );
        complain(found, Invariant::CompletedOnce, how);
    }
}

/// An attempt is there because of a claim, and it succeeded because somebody said so, neither of which was refused.
fn asked_for(
    node: NodeId,
    job: &JobSeen,
    attempt: &AttemptSeen,
    claims: &BTreeMap<&str, Vec<&Operation>>,
    asked: &[(Token, &Operation)],
    found: &mut Vec<Violation>,
) {
    // The node's own workers are not in the history.
    let Some(made_by) = claims.get(attempt.worker.as_str()) else {
        return;
    };
    let token = attempt.token;
    if !made_by.iter().any(|claim| claim.may_have_happened()) {
        let how = format!(
            "{node} tells of attempt {token} of {}: {}",
            job.id,
            shown(made_by.iter().copied())
        );
        complain(found, Invariant::RefusedNeverApplied, how);
    }
    if attempt.outcome.as_deref() != Some("succeeded") {
        return;
    }
    let of_token = || asked.iter().filter(|(of, _)| *of == token);
    if of_token().count() == 0 {
        let how = format!(
            "{node} says that attempt {token} of {} succeeded, which nobody said: {}",
            job.id,
            shown(made_by.iter().copied())
        );
        complain(found, Invariant::NothingInvented, how);
    } else if !of_token().any(|(_, operation)| operation.may_have_happened()) {
        let how = format!(
            "{node} says that attempt {token} of {} succeeded: {}",
            job.id,
            shown(of_token().map(|(_, operation)| *operation))
        );
        complain(found, Invariant::RefusedNeverApplied, how);
    }
}
