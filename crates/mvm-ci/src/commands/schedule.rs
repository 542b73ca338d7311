//! `mvm-ci schedule`: jobs that the cluster submits at times.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use mvm_client::{Client, ScheduleView};
use mvm_queue::Missed;

use super::{
    connect,
    output::{self, Cell},
    work,
};
use crate::cli::{AddScheduleArgs, ScheduleArgs, ScheduleCommand};

/// There is none of that name.
#[derive(Debug, thiserror::Error)]
#[error("there is no schedule {name:?}; `mvm-ci schedule list` shows those there are")]
pub(super) struct UnknownSchedule {
    name: String,
}

pub(super) async fn schedule(arguments: ScheduleArgs) -> anyhow::Result<ExitCode> {
    let client = connect::client(&arguments.node)?;
    let json = arguments.node.json;
    match arguments.command {
        ScheduleCommand::Add(arguments) => add(&client, *arguments, json).await?,
        ScheduleCommand::List => list(&client, json).await?,
        ScheduleCommand::Show(arguments) => show(&client, arguments.name, json).await?,
        ScheduleCommand::Remove(arguments) => client.remove_schedule(&arguments.name).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn add(client: &Client, arguments: AddScheduleArgs, json: bool) -> anyhow::Result<()> {
    let AddScheduleArgs {
        name,
        cron,
        missed,
        work,
    } = arguments;
    let set = client
        .set_schedule(&name, &cron, missed, &work::spec(work)?)
        .await?;
    let mut output = io::stdout().lock();
    match json {
        true => output::json_line(&mut output, &set)?,
        false => writeln!(output, "{}", output::time(set.next_ms))?,
    }
    Ok(())
}

async fn list(client: &Client, json: bool) -> anyhow::Result<()> {
    let schedules = client.schedules().await?;
    let mut output = io::stdout().lock();
    if json {
        for schedule in &schedules {
            output::json_line(&mut output, schedule)?;
        }
        return Ok(());
    }
    let titles = ["NAME", "CRON", "KIND", "NEXT"];
    let mut rows = vec![titles.map(Cell::plain).to_vec()];
    rows.extend(schedules.iter().map(|schedule| {
        let next = output::time(schedule.next_ms);
        let words = [&schedule.name, &schedule.cron, &schedule.job.kind, &next];
        words.map(|word| Cell::plain(word.as_str())).into()
    }));
    Ok(output::table(&mut output, &rows)?)
}

async fn show(client: &Client, name: String, json: bool) -> anyhow::Result<()> {
    let mut schedules = client.schedules().await?.into_iter();
    let Some(schedule) = schedules.find(|schedule| schedule.name == name) else {
        return Err(UnknownSchedule { name }.into());
    };
    let mut output = io::stdout().lock();
    match json {
        true => output::json_line(&mut output, &schedule)?,
        false => output::table(&mut output, &facts(&schedule))?,
    }
    Ok(())
}

fn facts(schedule: &ScheduleView) -> Vec<Vec<Cell>> {
    let missed = match schedule.missed {
        Missed::Once => "once",
        Missed::All => "all",
        Missed::Skip => "skip",
    };
    let mut facts = vec![
        ("name", schedule.name.clone()),
        ("cron", schedule.cron.clone()),
        ("missed", missed.to_owned()),
        ("next", output::time(schedule.next_ms)),
    ];
    facts.extend(work::facts(&schedule.job));
    let rows = facts.into_iter();
    rows.map(|(name, fact)| vec![Cell::plain(name), Cell::plain(fact)])
        .collect()
}
