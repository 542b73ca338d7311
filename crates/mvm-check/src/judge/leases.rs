//! Leases: one at a time, none ended before its time, under tokens that grow.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::{
    Invariant, Violation,
    case::{Case, complain, shown},
};
use crate::{
    action::{Action, At, AttemptSeen, JobId, Token, Told},
    history::Operation,
};

/// A claim that was acknowledged.
struct Grant<'a> {
    token: Token,
    by: &'a Operation,
}

/// What a worker asked under a token.
struct Use<'a> {
    token: Token,
    operation: &'a Operation,
}

#[derive(Default)]
struct Held<'a> {
    /// By token, then in order of invocation.
    grants: Vec<Grant<'a>>,
    uses: Vec<Use<'a>>,
    cancels: Vec<&'a Operation>,
}

pub(super) fn look(case: &Case, found: &mut Vec<Violation>) {
    let first_asked = first_asked(case);
    for (job, held) in jobs(case) {
        tokens_grow(job, &held, &first_asked, found);
        granted_once(job, &held, found);
        old_tokens_are_refused(job, &held, found);
        if let Some(lease) = case.rules.lease {
            lasts(job, &held, lease, &first_asked, found);
        }
    }
    tokens_are_kept(case, found);
}

/// When each request was asked for the first time: it may have been applied then, whatever came of its repetitions.
fn first_asked(case: &Case) -> HashMap<&str, At> {
    let mut first = HashMap::new();
    for operation in &case.operations {
        first
            .entry(operation.request.as_str())
            .or_insert(operation.invoked);
    }
    first
}

fn asked(operation: &Operation, first_asked: &HashMap<&str, At>) -> At {
    let first = first_asked.get(operation.request.as_str());
    first.copied().unwrap_or(operation.invoked)
}

fn jobs(case: &Case) -> BTreeMap<&JobId, Held<'_>> {
    let mut jobs: BTreeMap<&JobId, Held<'_>> = BTreeMap::new();
    for operation in &case.operations {
        match &operation.action {
            Action::Claim { .. } => {
                if let Some((_, Told::Claimed { claims })) = &operation.returned {
                    for claim in claims {
                        let token = claim.token;
                        let held = jobs.entry(&claim.job).or_default();
                        held.grants.push(Grant {
                            token,
                            by: operation,
                        });
                    }
                }
            }
            Action::Start { job, token }
            | Action::Renew { job, token }
            | Action::Finish { job, token, .. } => {
                jobs.entry(job).or_default().uses.push(Use {
                    token: *token,
                    operation,
                });
            }
            Action::Cancel { job } => jobs.entry(job).or_default().cancels.push(operation),
            Action::Submit { .. } | Action::List { .. } | Action::Attempts { .. } => {}
        }
    }
    for held in jobs.values_mut() {
        held.grants.sort_by_key(|grant| (grant.token, grant.by.id));
    }
    jobs
}

/// A claim that began after another was answered has the larger token.
fn tokens_grow(
    job: &JobId,
    held: &Held<'_>,
    first_asked: &HashMap<&str, At>,
    found: &mut Vec<Violation>,
) {
    // In order of tokens: none may have begun after one behind it had ended.
    let mut ended_first: Option<&Grant<'_>> = None;
    for grant in held.grants.iter().rev() {
        if let Some(later) = ended_first
            && later.by.returned_at() < asked(grant.by, first_asked)
        {
            let how = format!(
                "{job} was granted under token {} after {}: {}",
                grant.token,
                later.token,
                shown([later.by, grant.by])
            );
            complain(found, Invariant::TokensGrow, how);
        }
        let sooner =
            ended_first.is_none_or(|later| grant.by.returned_at() < later.by.returned_at());
        if sooner {
            ended_first = Some(grant);
        }
    }
}

/// Two claims never get one token of a job.
fn granted_once(job: &JobId, held: &Held<'_>, found: &mut Vec<Violation>) {
    for pair in held.grants.windows(2) {
        if pair[0].token == pair[1].token && pair[0].by.request != pair[1].by.request {
            let how = format!(
                "{job} was granted twice under token {}: {}",
                pair[0].token,
                shown([pair[0].by, pair[1].by])
            );
            complain(found, Invariant::TokensGrow, how);
        }
    }
}

/// What begins after a newer claim was answered is not accepted, and neither is a token that was never granted.
fn old_tokens_are_refused(job: &JobId, held: &Held<'_>, found: &mut Vec<Violation>) {
    for of in held.uses.iter().filter(|of| of.operation.is_acknowledged()) {
        let repeats = |earlier: &&Use<'_>| {
            earlier.operation.request == of.operation.request
                && earlier.operation.id < of.operation.id
        };
        // The answer to a repeated request is that of its first time.
        let asked = held.uses.iter().find(repeats).unwrap_or(of);
        let newer = |grant: &&Grant<'_>| {
            grant.token > of.token && grant.by.returned_at() < asked.operation.invoked
        };
        if let Some(grant) = held.grants.iter().find(newer) {
            let how = format!(
                "token {} of {job} was accepted after token {} was granted: {}",
                of.token,
                grant.token,
                shown([grant.by, of.operation])
            );
            complain(found, Invariant::OneLease, how);
        }
    }
}

/// A lease lasts for its time after the last sign of life that was acknowledged, unless its holder or somebody else ends it.
fn lasts(
    job: &JobId,
    held: &Held<'_>,
    lease: Duration,
    first_asked: &HashMap<&str, At>,
    found: &mut Vec<Violation>,
) {
    let asked = |operation: &Operation| asked(operation, first_asked);
    for next in &held.grants {
        let granted = next.by.returned_at();
        let before = held.grants.iter().filter(|grant| grant.token < next.token);
        let Some(token) = before.map(|grant| grant.token).max() else {
            continue;
        };
        let given_up = held.uses.iter().any(|of| {
            let ends = matches!(of.operation.action, Action::Finish { .. });
            ends && of.token == token
                && of.operation.invoked < granted
                && of.operation.may_have_happened()
        });
        let cancelled = held
            .cancels
            .iter()
            .any(|cancel| cancel.invoked < granted && cancel.may_have_happened());
        if given_up || cancelled {
            continue;
        }
        let grants = held.grants.iter().filter(|grant| grant.token == token);
        let renewals = held.uses.iter().filter(|of| {
            of.token == token
                && matches!(of.operation.action, Action::Renew { .. })
                && of.operation.is_acknowledged()
        });
        let signs = grants
            .map(|grant| grant.by)
            .chain(renewals.map(|of| of.operation))
            .filter(|operation| asked(operation) < granted);
        if let Some(last) = signs.max_by_key(|operation| asked(operation))
            && granted.since(asked(last)) < lease
        {
            let how = format!(
                "{job} was granted under token {} only {:.3} s after token {token} was good for {:.3} s: {}",
                next.token,
                granted.since(asked(last)).as_secs_f64(),
                lease.as_secs_f64(),
                shown([last, next.by])
            );
            complain(found, Invariant::OneLease, how);
        }
    }
}

/// Every claim that was acknowledged is an attempt in the end, and attempts are in the order of their tokens.
fn tokens_are_kept(case: &Case, found: &mut Vec<Violation>) {
    for (node, state) in &case.finals {
        for (job, attempts) in &state.attempts {
            let tokens: Vec<Token> = attempts.iter().map(|attempt| attempt.token).collect();
            if !tokens.is_sorted_by(|one, next| one < next) {
                let how = format!("{node} tells of attempts {tokens:?} of {job}");
                complain(found, Invariant::TokensGrow, how);
            }
        }
        for operation in &case.operations {
            let Some((_, Told::Claimed { claims })) = &operation.returned else {
                continue;
            };
            for claim in claims {
                let kept = |attempts: &Vec<AttemptSeen>| {
                    attempts.iter().any(|attempt| attempt.token == claim.token)
                };
                if state
                    .attempts
                    .get(&claim.job)
                    .is_some_and(|attempts| !kept(attempts))
                {
                    let how = format!(
                        "{node} does not tell of attempt {} of {}: {}",
                        claim.token,
                        claim.job,
                        shown([operation])
                    );
                    complain(found, Invariant::AcknowledgedEnds, how);
                }
            }
        }
    }
}
