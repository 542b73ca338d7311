//! `mvm-ci flow list` and `modules`.

use std::io;

use mvm_flow::journal::Shown;

use super::{
    at,
    client::{Client, PAGE_MAX},
    state,
};
use crate::{
    cli::{EngineArgs, ListFlowArgs},
    commands::output::{self, Cell},
};

pub(super) async fn modules(arguments: &EngineArgs) -> anyhow::Result<()> {
    let modules = Client::new(arguments)?.modules().await?;
    let mut output = io::stdout().lock();
    if arguments.json {
        for module in &modules {
            output::json_line(&mut output, module)?;
        }
        return Ok(());
    }
    let titles = ["NAME", "VERSION", "BYTES", "DEPLOYED", "HASH"];
    let mut rows = vec![titles.map(Cell::plain).to_vec()];
    rows.extend(modules.iter().map(|module| {
        vec![
            Cell::plain(&*module.name),
            Cell::plain(&*module.version),
            Cell::plain(module.bytes.to_string()),
            Cell::plain(output::time(at(module.deployed_at))),
            Cell::plain(module.hash.0.chars().take(12).collect::<String>()),
        ]
    }));
    Ok(output::table(&mut output, &rows)?)
}

pub(super) async fn workflows(arguments: ListFlowArgs) -> anyhow::Result<()> {
    let wanted = match arguments.all {
        true => usize::MAX,
        false => arguments.limit,
    };
    let client = Client::new(&arguments.engine)?;
    let mut listed = Vec::new();
    let mut before = None;
    // One more, to know whether there are more.
    while listed.len() <= wanted {
        let limit = (wanted - listed.len()).saturating_add(1).min(PAGE_MAX);
        let module = arguments.module.as_deref();
        let page = client.list(arguments.state, module, before, limit).await?;
        let is_last = page.len() < limit;
        listed.extend(page);
        before = listed.last().map(|workflow: &Shown| workflow.id);
        if is_last {
            break;
        }
    }
    let more = listed.len() > wanted;
    listed.truncate(wanted);
    let mut output = io::stdout().lock();
    if arguments.engine.json {
        for workflow in &listed {
            output::json_line(&mut output, workflow)?;
        }
    } else {
        let titles = ["ID", "STATE", "MODULE", "WORKFLOW", "AGE", "ABOUT"];
        let mut rows = vec![titles.map(Cell::plain).to_vec()];
        rows.extend(listed.iter().map(row));
        output::table(&mut output, &rows)?;
    }
    if more {
        output::say("there are more; see --limit and --all")?;
    }
    Ok(())
}

fn row(workflow: &Shown) -> Vec<Cell> {
    let about = match (&workflow.reason, workflow.until) {
        (Some(reason), _) => reason.clone(),
        (None, Some(until)) => format!("until {}", output::time(at(until))),
        (None, None) => String::new(),
    };
    vec![
        Cell::plain(workflow.id.to_string()),
        state(workflow.state),
        Cell::plain(format!("{}:{}", workflow.module, workflow.version)),
        Cell::plain(&*workflow.workflow),
        Cell::plain(output::age(at(workflow.created_at))),
        Cell::plain(about),
    ]
}
