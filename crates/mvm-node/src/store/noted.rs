//! What is said of a command that was written to the log: it is counted, and a job that moved gets a line in the log of
//! the node.
//!
//! Payloads, results, errors and output are never logged.

use mvm_queue::{Change, Command, Effect, Outcome};
use tracing::{debug, info};

use crate::metrics::Metrics;

/// Notes what node `node`, which wrote a command to the log, learnt of its outcome.
pub(super) fn note(metrics: &Metrics, node: u64, command: &Command, outcome: &Outcome) {
    for (command, outcome) in command.outcomes(outcome) {
        let request = command.request.0.as_str();
        match outcome {
            Ok(effect) => {
                metrics.queue.applied(&command, effect);
                log(node, request, &command.change, effect);
            }
            Err(refusal) => debug!(node, request, %refusal, "a change was refused"),
        }
    }
}

fn log(node: u64, request: &str, change: &Change, effect: &Effect) {
    match (change, effect) {
        (
            Change::Submit { submitted_on, .. },
            Effect::Submitted {
                job,
                existing: false,
                ..
            },
        ) => info!(node, request, %job, submitted_on, "job submitted"),
        (Change::Claim { node: by, .. }, Effect::Claimed { claims }) => {
            for claim in claims {
                let (job, token, submitted_on) = (&claim.job, claim.token, claim.submitted_on);
                info!(node, request, %job, %token, claimed_on = by, submitted_on, "job claimed");
            }
        }
        (Change::Start { job, token }, _) => info!(node, request, %job, %token, "job started"),
        (Change::Finish { job, token, report }, Effect::Ended { state, .. }) => {
            let outcome = report.outcome().as_str();
            info!(node, request, %job, %token, outcome, %state, "attempt ended");
        }
        (Change::Expire { job, token, cause }, Effect::Ended { state, .. }) => {
            let outcome = cause.outcome().as_str();
            info!(node, request, %job, %token, outcome, %state, "attempt ended by the leader");
        }
        (Change::Cancel { job, .. }, Effect::Cancelled { state, .. }) => {
            info!(node, request, %job, %state, "job cancelled, or its worker asked to stop");
        }
        (Change::Retry { job, .. }, _) => info!(node, request, %job, "job retried by hand"),
        (Change::Pause { job, .. }, Effect::Paused { state }) => {
            info!(node, request, %job, %state, "job paused, or its worker asked to park it");
        }
        (Change::Resume { job }, _) => info!(node, request, %job, "job resumed"),
        (Change::Park { job, token, .. }, Effect::Parked { state, .. }) => {
            debug!(node, request, %job, %token, %state, "workflow parked");
        }
        (Change::Send { job, .. }, Effect::Sent { number, .. }) => {
            debug!(node, request, %job, number, "message sent");
        }
        (Change::Deploy { name, version, .. }, Effect::Deployed { existing: false }) => {
            info!(node, request, module = name, version, "module deployed");
        }
        (Change::Ready { job, .. }, _) => debug!(node, request, %job, "pause over"),
        _ => {}
    }
}
