//! `mvm-ci job list`.

use std::{io, pin::pin, process::ExitCode};

use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use mvm_client::{Client, JobView, JobsQuery};
use mvm_queue::{Filter, Order, PAGE_MAX, UnixMillis, WaitsFor};

use crate::{
    cli::{ListArgs, When},
    commands::{
        connect::InputError,
        output::{self, Cell},
    },
};

pub(super) async fn list(
    client: &Client,
    arguments: ListArgs,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let wanted = match arguments.all {
        true => None,
        false => Some(arguments.limit),
    };
    let mut jobs = pin!(client.all_jobs(query(arguments)?));
    let mut output = io::stdout().lock();
    let mut rows = vec![header()];
    let mut listed = 0;
    let mut more = false;
    while let Some(job) = jobs.try_next().await? {
        if wanted == Some(listed) {
            more = true;
            break;
        }
        listed += 1;
        match json {
            true => output::json_line(&mut output, &job)?,
            false => rows.push(row(&job)),
        }
    }
    if !json {
        output::table(&mut output, &rows)?;
    }
    if more {
        output::say("there are more; see --limit and --all")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn query(arguments: ListArgs) -> Result<JobsQuery, InputError> {
    let filter = Filter {
        state: arguments.state,
        label: arguments.label,
        submitted_on: arguments.submitted_on,
        claimed_on: arguments.claimed_on,
        created_from_ms: arguments.since.map(earlier).transpose()?,
        created_before_ms: None,
    };
    let order = match arguments.oldest_first {
        true => Order::OldestFirst,
        false => Order::NewestFirst,
    };
    let limit = match arguments.all {
        true => PAGE_MAX,
        // One more, to know whether there are more.
        false => arguments.limit.saturating_add(1).min(PAGE_MAX),
    };
    Ok(JobsQuery {
        order,
        limit,
        ..JobsQuery::new(filter)
    })
}

fn earlier(when: When) -> Result<UnixMillis, InputError> {
    let time = match when {
        When::At(time) => Ok(time),
        When::Distance(distance) => Timestamp::now().checked_sub(distance),
    };
    let time = time.map_err(|_| InputError::Time)?;
    Ok(UnixMillis(time.as_millisecond()))
}

fn header() -> Vec<Cell> {
    let titles = ["ID", "STATE", "KIND", "AGE", "ATTEMPTS", "ABOUT"];
    titles.map(Cell::plain).into()
}

fn row(job: &JobView) -> Vec<Cell> {
    let about = match (&job.waits_for, &job.error, &job.claimed_by) {
        (Some(WaitsFor::Paused), _, _) => "paused".to_owned(),
        (Some(waits_for), _, _) => format!("waits for {}", waits_for.as_str().replace('_', " ")),
        (None, Some(error), _) => error.clone(),
        (None, None, Some(worker)) => format!("worker {worker}"),
        (None, None, None) => String::new(),
    };
    vec![
        Cell::plain(&*job.id.0),
        Cell::state(job.state),
        Cell::plain(&*job.spec.kind),
        Cell::plain(output::age(job.created_at_ms)),
        Cell::plain(job.attempts.to_string()),
        Cell::plain(about),
    ]
}
