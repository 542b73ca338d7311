//! `mvm-ci job show`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use mvm_client::{Client, Consistency, JobView};
use mvm_queue::{Attempt, JobId, WaitsFor};
use serde_json::json;

use crate::commands::{
    output::{self, Cell, Meaning},
    work,
};

pub(super) async fn show(client: &Client, id: &JobId, json: bool) -> anyhow::Result<ExitCode> {
    let job = client.job(id, Consistency::Linearizable).await?;
    let attempts = client.attempts(id).await?;
    let mut output = io::stdout().lock();
    if json {
        output::json_line(&mut output, &json!({ "job": job, "attempts": attempts }))?;
    } else {
        output::table(&mut output, &facts(&job))?;
        tell_attempts(&mut output, &attempts)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn facts(job: &JobView) -> Vec<Vec<Cell>> {
    let by = job.claimed_by.as_ref().map(|worker| match job.claimed_on {
        Some(node) => format!("{worker} (node {node})"),
        None => worker.clone(),
    });
    let facts = [
        (
            "waits for",
            job.waits_for
                .filter(|what| *what != WaitsFor::Paused)
                .map(|what| what.as_str().replace('_', " ")),
        ),
        ("wakes", job.wakes_at_ms.map(output::time)),
        (
            "submitted",
            Some(format!(
                "{} on node {}",
                output::time(job.created_at_ms),
                job.submitted_on
            )),
        ),
        ("schedule", job.schedule.clone()),
        ("worker", by),
        ("ended", job.finished_at_ms.map(output::time)),
        ("paused", job.paused.clone().map(reason)),
        ("stop requested", job.cancel_requested.then(|| "yes".into())),
        ("error", job.error.clone()),
        ("result", job.result.as_ref().map(ToString::to_string)),
    ];
    let mut rows = vec![
        vec![Cell::plain("id"), Cell::plain(&*job.id.0)],
        vec![Cell::plain("state"), Cell::state(job.state)],
    ];
    let told = facts
        .into_iter()
        .filter_map(|(name, fact)| Some((name, fact?)));
    let told = work::facts(&job.spec).into_iter().chain(told);
    rows.extend(told.map(|(name, fact)| vec![Cell::plain(name), Cell::plain(fact)]));
    rows
}

fn reason(paused: String) -> String {
    if paused.is_empty() {
        "yes".into()
    } else {
        paused
    }
}

fn tell_attempts(output: &mut impl Write, attempts: &[Attempt]) -> io::Result<()> {
    if attempts.is_empty() {
        return Ok(());
    }
    writeln!(output)?;
    let titles = [
        "ATTEMPT", "OUTCOME", "WORKER", "NODE", "CLAIMED", "TOOK", "OUTPUT", "ERROR",
    ];
    let mut rows = vec![titles.map(Cell::plain).to_vec()];
    rows.extend(attempts.iter().map(row));
    output::table(output, &rows)
}

fn row(attempt: &Attempt) -> Vec<Cell> {
    use mvm_queue::AttemptOutcome as Outcome;
    let (outcome, meaning) = match attempt.outcome {
        None => ("running", Meaning::Moving),
        Some(outcome) => (
            outcome.as_str(),
            match outcome {
                Outcome::Succeeded => Meaning::Good,
                Outcome::Failed | Outcome::TimedOut => Meaning::Bad,
                Outcome::Lost | Outcome::Cancelled => Meaning::Doubtful,
            },
        ),
    };
    let took = attempt.started_at_ms.zip(attempt.ended_at_ms);
    let took = took.map_or_else(String::new, |(started, ended)| {
        format!("{} ms", ended.0.saturating_sub(started.0))
    });
    let dropped = match attempt.log_dropped_bytes {
        0 => String::new(),
        bytes => format!(", {bytes} not kept"),
    };
    vec![
        Cell::plain(attempt.token.to_string()),
        Cell::new(outcome, meaning),
        Cell::plain(&*attempt.worker),
        Cell::plain(attempt.node.to_string()),
        Cell::plain(output::time(attempt.claimed_at_ms)),
        Cell::plain(took),
        Cell::plain(format!("{} bytes{dropped}", attempt.log_bytes)),
        Cell::plain(attempt.error.as_deref().unwrap_or_default()),
    ]
}
